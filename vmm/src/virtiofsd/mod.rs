//! virtiofsd: a directory of the host as a virtio-fs device.
//!
//! A virtiofsd serves *one* connection and exits when it ends, which every reboot of the guest does. Cloud
//! Hypervisor then tries to connect again for a minute, deaf to everything, and gives the VM up. So the
//! listening socket stays here, and a daemon is started on it again whenever one ends:
//!
//! ```text
//!              ┌────────────── ends (guest reboots) ─────────────┐
//!              ▼                                                 │
//!   listener ─► daemon --fd=N ─ accept ─ serve ─────────────────►┘     a reboot takes milliseconds
//!      ▲                                                               and Cloud Hypervisor's connect
//!      └── connect: waits in the backlog until a daemon accepts        never fails meanwhile
//! ```
//! Nothing need wait for a daemon to be ready, so it and Cloud Hypervisor start side by side.

mod argv;
mod daemon;

pub use argv::{Cache, Flavor, Sandbox, Share, argv};
pub use daemon::{Virtiofsd, flavor};
