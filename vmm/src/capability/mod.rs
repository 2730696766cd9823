//! What a running Cloud Hypervisor can be asked, by its version and its build's features.
//!
//! Cloud Hypervisor drops fields it does not know: `sev_snp` on a build without it boots an ordinary
//! VM and says nothing. So what it would drop is refused here. Two fields pass although versions before
//! v50.1 drop them, because without them nothing could be booted there: a disk's `image_type` and
//! `backing_files`. Those versions guess the format and follow backing files.

mod capabilities;
mod gate;
mod version;

pub use capabilities::{Capabilities, Needs, Unsupported};
pub use version::{BadVersion, OLDEST, Version};
