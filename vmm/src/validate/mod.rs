//! What Cloud Hypervisor would refuse only at boot, told before a process is started.
//!
//! Pure: looks at the configuration, not at files. Not complete, and not meant to be: what is missing
//! here Cloud Hypervisor says itself. The rules are those of v53, which differ from v42's only where
//! they name fields that v42 does not have.

mod check;
mod device;
mod machine;
mod transfer;

pub(crate) use check::settle;
pub use check::{Problem, SOCKET_PATH};
pub use machine::problems;
pub use transfer::{receive_problems, restore_problems, send_problems};
