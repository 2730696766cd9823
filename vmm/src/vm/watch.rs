//! Watching a VM until it ends, counting its reboots, ending a reboot loop.

use std::time::Duration;

use super::Vm;
use crate::error::Result;
use crate::event::EventLog;
use crate::process::Death;

/// How often the event file is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// When a guest that keeps rebooting is ended. Cloud Hypervisor itself would go on for ever, at 57
/// reboots a second if need be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebootPolicy {
    /// This many reboots (32 at most) …
    pub count: usize,
    /// … within this time are a loop.
    pub within: Duration,
}

impl Default for RebootPolicy {
    fn default() -> Self {
        Self {
            count: 5,
            within: Duration::from_secs(60),
        }
    }
}

/// How a watched VM came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// How its process ended.
    pub death: Death,
    /// Reboots over its life.
    pub reboots: u64,
    /// Whether it was killed for rebooting in a loop.
    pub looped: bool,
}

impl Vm {
    /// Waits until the VM ends, however long that takes, and kills it when it reboots in a loop.
    ///
    /// # Errors
    /// When the event file can't be read, or the VM can't be killed.
    pub async fn watch(&self, policy: RebootPolicy) -> Result<Watched> {
        let mut log = EventLog::new(&self.files().events);
        loop {
            let exit = self.process().wait_within(LOOK).await;
            log.read()?;
            let reboots = log.history().reboots;
            if let Some(exit) = exit {
                return Ok(Watched {
                    death: self.files().death(exit),
                    reboots,
                    looped: false,
                });
            }
            if log.history().reboots_in_a_loop(policy.count, policy.within) {
                let death = self.kill().await?;
                return Ok(Watched {
                    death,
                    reboots,
                    looped: true,
                });
            }
        }
    }
}
