//! The states of a VM, as this crate tells them.

use std::fmt;

use crate::info::VmState;
use crate::process::ExitReason;

/// Where a VM stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The process runs and holds no machine.
    Empty,
    /// Configured, never booted.
    Created,
    /// vCPUs run.
    Running,
    /// vCPUs stand still.
    Paused,
    /// It ran, and is off; it can be booted again.
    Stopped,
    /// The process has ended.
    Ended(ExitReason),
    /// Something else that Cloud Hypervisor says.
    Other(VmState),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(exit) => write!(f, "ended with {exit}"),
            Self::Other(state) => write!(f, "{state}"),
            known => fmt::Debug::fmt(known, f),
        }
    }
}
