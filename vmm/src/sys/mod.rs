//! The calls that no safe wrapper offers: the only unsafe code of the crate, behind safe functions.
//! Knows numbers and structures of the kernel, and no policy.

mod features;
mod memory;
mod process;
mod spawn;

pub(crate) use features::{io_uring, landlock, userfaultfd};
pub(crate) use memory::GuestMemory;
pub(crate) use process::{peer_pidfd, pidfd_exit, watch};
pub(crate) use spawn::spawn;
