//! `run.json`: what became of a machine, or of a single VM, as far as anybody wrote it down.
//!
//! ```text
//!                    ┌──────────────── started again ───────────────┐
//! (no run.json) ─► Starting ─► Running ─► Ended { clean | crashed } ┘
//! ```

use super::process::Identity;
use super::report::Report;
use super::state::{read_json, write_json};
use crate::failure::Result;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub(crate) enum Run {
    /// A VMM is about to be started: if this stays, look for it by its mark.
    Starting,
    /// It was started.
    Running { process: Identity },
    /// It ended.
    Ended(End),
}

/// How it ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct End {
    /// The guest powered itself off, or it was stopped.
    pub(crate) clean: bool,
    pub(crate) reason: String,
    /// What a single VM's start failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Report>,
}

impl End {
    /// One of which no more is to be told than its reason.
    pub(crate) fn new(clean: bool, reason: impl Into<String>) -> Self {
        Self {
            clean,
            reason: reason.into(),
            failure: None,
        }
    }
}

/// A directory with such a file.
pub(crate) trait Life {
    /// The file.
    fn run(&self) -> PathBuf;

    fn run_state(&self) -> Result<Option<Run>> {
        read_json(&self.run())
    }
    fn set_run_state(&self, run: &Run) -> Result<()> {
        write_json(&self.run(), run)
    }

    /// The VMM's process, if it lives.
    fn living(&self) -> Result<Option<Identity>> {
        Ok(match self.run_state()? {
            Some(Run::Running { process }) if process.alive() => Some(process),
            _ => None,
        })
    }
}
