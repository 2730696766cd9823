//! Single VMs under Cloud Hypervisor, without a cluster: `knest vm`. One supervisor process a VM; the
//! commands speak with Cloud Hypervisor themselves and need the supervisor for what has to last.
//!
//! ```text
//! knest vm run … ──► vm.json ──► supervisor ──► Cloud Hypervisor ──► guest
//!                                 ├ network namespace, TAP, pasta      (--net user)
//!                                 ├ virtiofsd, whose listener it keeps (--share)
//!                                 ├ console.sock ◄── pty of hvc0
//!                                 └ serial.log, rotated  ◄── ttyS0
//! knest vm console N ──► console.sock
//! knest vm info, api, reboot, stop N ──► api.sock
//! ```
//!
//! Killed, the supervisor leaves the VM running, and the next command that looks at the VM starts
//! another, which finds everything again. Knows nothing of clusters; of provider `local` it uses what
//! any process on this host needs: locks, state files, images, namespaces.

mod build;
mod config;
mod daemons;
mod handle;
mod preflight;
mod spec;
mod state;
mod status;
mod supervisor;
mod terminal;

pub(crate) use crate::provider::local::life::Life;
pub(crate) use build::{Plan, make, reclaim, user_data};
pub(crate) use daemons::find_virtiofsd;
pub(crate) use handle::{
    Open, attach, cleared, discard, ensure_supervisor, existing, failure, has_ended,
    keep_supervised, not_running, open, settled, start, when_ended,
};
pub(crate) use preflight::check;
pub(crate) use spec::{DiskArg, DiskSpec, NetArg, NetSpec, ShareArg, VERSION, VmSpec, readable};
pub(crate) use state::{VmDir, VmLock, list};
pub(crate) use status::Status;
pub(crate) use supervisor::run as supervise;
pub(crate) use terminal::{Left, session};
