//! A process that nobody has taken charge of yet.

use super::{Files, KILL_LIMIT};
use crate::error::Result;
use crate::process::Process;

/// Kills a process that nobody has taken charge of yet.
pub(crate) struct KillOnDrop<'a> {
    process: &'a Process,
    files: &'a Files,
    armed: bool,
}

impl<'a> KillOnDrop<'a> {
    pub(crate) fn new(process: &'a Process, files: &'a Files) -> Self {
        Self {
            process,
            files,
            armed: true,
        }
    }

    /// Lets go of the process on success; kills it on failure, and waits until it is gone.
    pub(crate) async fn settle<T>(mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.process.kill()?;
            self.process.wait_within(KILL_LIMIT).await;
            self.files.unlink_sockets()?;
        }
        self.armed = false;
        result
    }
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            for result in [self.process.kill(), self.files.unlink_sockets()] {
                if let Err(error) = result {
                    tracing::warn!(%error, pid = self.process.pid(), "left behind");
                }
            }
        }
    }
}
