//! How a process ended.

use std::fmt;

use rustix::process::WaitIdStatus;
use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// By itself. Cloud Hypervisor: 0 after a guest's power-off, `vmm.shutdown` and SIGTERM; 1 after
    /// an error or panic; 2 on a wrong command line.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It ended, and nobody can tell how: it was another process's child, on a kernel before 6.15.
    Unknown,
}

impl ExitReason {
    /// Whether it ended by itself, with exit code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// From the status word of wait(2).
    pub(crate) fn from_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code((status >> 8) & 0xff),
            signal => Self::Signal(signal),
        }
    }

    pub(super) fn from_waitid(status: &WaitIdStatus) -> Self {
        if let Some(code) = status.exit_status() {
            Self::Code(code)
        } else if let Some(signal) = status.terminating_signal() {
            Self::Signal(signal)
        } else {
            Self::Unknown
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(6) => f.write_str("signal 6 (SIGABRT)"),
            Self::Signal(9) => f.write_str("signal 9 (SIGKILL)"),
            Self::Signal(11) => f.write_str("signal 11 (SIGSEGV)"),
            Self::Signal(15) => f.write_str("signal 15 (SIGTERM)"),
            Self::Signal(31) => f.write_str("signal 31 (SIGSYS, a system call its filter forbids)"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("an exit nobody saw"),
        }
    }
}

/// A process's end, with its last words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// How it ended.
    pub exit: ExitReason,
    /// The last lines of its stderr.
    pub stderr_tail: String,
    /// The last lines of the guest's serial port.
    pub serial_tail: String,
}

impl Death {
    /// Whether it ended as asked or by its guest's will. A vCPU that KVM can't go on with ends Cloud
    /// Hypervisor with exit code 0 too, and only its stderr tells.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.exit.is_success() && !self.stderr_tail.contains("VCPU generated error")
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended with {}", self.exit)?;
        for (what, tail) in [
            ("stderr", &self.stderr_tail),
            ("serial log", &self.serial_tail),
        ] {
            if !tail.is_empty() {
                write!(f, "; the end of its {what}:\n{tail}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_vcpu_is_no_clean_end() {
        let death = |code, stderr: &str| Death {
            exit: ExitReason::Code(code),
            stderr_tail: stderr.to_owned(),
            serial_tail: String::new(),
        };
        assert!(death(0, "WARN: something").is_clean());
        assert!(!death(1, "").is_clean());
        let stderr = "<vcpu0> ERROR:vmm/src/cpu.rs:1460 -- VCPU generated error: VcpuRun(…)";
        assert!(!death(0, stderr).is_clean());
    }

    #[test]
    fn reads_wait_statuses() {
        assert_eq!(ExitReason::from_wait_status(0), ExitReason::Code(0));
        assert_eq!(ExitReason::from_wait_status(0x200), ExitReason::Code(2));
        assert_eq!(ExitReason::from_wait_status(9), ExitReason::Signal(9));
        assert_eq!(ExitReason::from_wait_status(0x86), ExitReason::Signal(6));
    }
}
