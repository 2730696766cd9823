//! Stopping a VM: from a request to its guest down to SIGKILL, each rung with its own patience.
//!
//! ```text
//! PowerButton ─► VmShutdown ─► VmmShutdown ─► Terminate ─► Kill
//!  guest's will   plug pulled   process asked   SIGTERM     SIGKILL
//! ```
//! The process's exit ends the descent at any rung. A refused or unanswered rung is followed by the
//! next, so nothing that Cloud Hypervisor does can keep it alive; SIGTERM for one does nothing while its
//! main thread waits for a back end or a migration.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::hypervisor::Hypervisor;
use crate::info::VmState;
use crate::process::ExitReason;
use crate::request;

/// One way of stopping a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// The ACPI power button: the guest shuts down by itself.
    PowerButton,
    /// `vm.shutdown`: the plug is pulled; the process stays.
    VmShutdown,
    /// `vmm.shutdown`: the process ends.
    VmmShutdown,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// Rungs in order, each with the time it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// The rungs.
    pub rungs: Vec<(Rung, Duration)>,
}

impl Default for Ladder {
    /// Half a minute for the guest, then some seconds a rung.
    fn default() -> Self {
        Self::graceful(Duration::from_secs(30))
    }
}

impl Ladder {
    /// `patience` for the guest, then some seconds a rung.
    #[must_use]
    pub fn graceful(patience: Duration) -> Self {
        let mut ladder = Self::forced();
        ladder.rungs.insert(0, (Rung::PowerButton, patience));
        ladder
    }

    /// Without asking the guest.
    #[must_use]
    pub fn forced() -> Self {
        Self {
            rungs: vec![
                (Rung::VmShutdown, Duration::from_secs(5)),
                (Rung::VmmShutdown, Duration::from_secs(5)),
                (Rung::Terminate, Duration::from_secs(2)),
                (Rung::Kill, Duration::from_secs(5)),
            ],
        }
    }
}

/// What one rung came to.
#[derive(Debug)]
pub struct Attempt {
    /// The rung.
    pub rung: Rung,
    /// How long it was given, or took.
    pub took: Duration,
    /// Why the call or signal failed; `None` when it was taken but did not end the process.
    pub error: Option<Error>,
}

/// How a VM was stopped.
#[derive(Debug)]
pub struct Outcome {
    /// How the process ended.
    pub exit: ExitReason,
    /// The rung that ended it; `None` when it had ended before.
    pub by: Option<Rung>,
    /// The rungs tried before, oldest first.
    pub attempts: Vec<Attempt>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Whether the guest shut down by itself.
    #[must_use]
    pub fn is_graceful(&self) -> bool {
        self.by == Some(Rung::PowerButton) && self.exit.is_success()
    }
}

/// Goes down `ladder` until the process of `hypervisor` has ended.
///
/// # Errors
/// [`Error::Unstoppable`] when it has not after the last rung.
pub async fn descend(hypervisor: &Hypervisor, ladder: &Ladder) -> Result<Outcome> {
    let start = Instant::now();
    let process = hypervisor.process();
    let mut attempts = Vec::new();
    if let Some(exit) = process.exited() {
        return Ok(Outcome {
            exit,
            by: None,
            attempts,
            took: start.elapsed(),
        });
    }
    for (rung, patience) in &ladder.rungs {
        let begun = Instant::now();
        let deadline = begun + *patience;
        // The call is abandoned as soon as the process is gone, or its time is over.
        let pulled = tokio::select! {
            biased;
            exit = process.wait() => Err(exit),
            pulled = tokio::time::timeout(*patience, pull(hypervisor, *rung, *patience)) => Ok(pulled),
        };
        let error = match pulled {
            Err(exit) => {
                return Ok(Outcome {
                    exit,
                    by: Some(*rung),
                    attempts,
                    took: start.elapsed(),
                });
            }
            Ok(Ok(Ok(()))) => {
                // A shut-down VM leaves its process running: there is nothing to wait for.
                let rest = match rung {
                    Rung::VmShutdown => Duration::ZERO,
                    _ => deadline.saturating_duration_since(Instant::now()),
                };
                if let Some(exit) = process.wait_within(rest).await {
                    return Ok(Outcome {
                        exit,
                        by: Some(*rung),
                        attempts,
                        took: start.elapsed(),
                    });
                }
                None
            }
            Ok(Ok(Err(error))) => Some(error),
            Ok(Err(_)) => None,
        };
        tracing::debug!(?rung, ?error, pid = process.pid(), "the VM is still there");
        attempts.push(Attempt {
            rung: *rung,
            took: begun.elapsed(),
            error,
        });
    }
    Err(Error::Unstoppable { pid: process.pid() })
}

async fn pull(hypervisor: &Hypervisor, rung: Rung, limit: Duration) -> Result<()> {
    let client = hypervisor.client();
    let call = match rung {
        Rung::PowerButton => {
            // Cloud Hypervisor presses it on a guest that stands still too, which can't notice.
            let state = client.info().await?.state;
            if state != VmState::Running {
                return Err(Error::WrongState {
                    verb: "press the power button of",
                    state,
                });
            }
            request::vm_power_button()
        }
        Rung::VmShutdown => request::vm_shutdown(),
        Rung::VmmShutdown => request::vmm_shutdown(),
        Rung::Terminate => return hypervisor.process().terminate(),
        Rung::Kill => return hypervisor.process().kill(),
    };
    match client.call_within(&call, limit).await {
        // It may end before it answers; whether it did, its exit tells.
        Err(Error::Transport { .. }) if rung == Rung::VmmShutdown => Ok(()),
        other => other.map(drop),
    }
}
