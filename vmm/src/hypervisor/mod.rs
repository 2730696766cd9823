//! One Cloud Hypervisor process and the way to talk to it: its files, its argv, its readiness.
//!
//! ```text
//! DIR/ (0700)
//! ├── api.sock      the API; DIR/api.sock.lock beside it from v53 on
//! ├── events.json   the event monitor: a regular file, so nothing is dropped and nobody need read
//! ├── serial.log    Cloud Hypervisor's stdout: ttyS0, appended over reboots, never truncated
//! └── vmm.log       its stderr
//! ```
//! Knows nothing of a VM's configuration or state; [`crate::vm`] does.

mod files;
mod guard;
mod launch;
mod running;

use std::time::Duration;

pub use files::Files;
pub(crate) use files::unlink;
pub(crate) use guard::KillOnDrop;
pub use launch::{ApiSocket, Launch, Seccomp, argv};
pub use running::{Hypervisor, version};

/// How long a killed process may take to be gone.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(5);
