//! The steps by which a cluster rests and goes on: its machines off, and on again.

use super::{Context, Step};
use crate::cluster::record::Phase;
use crate::failure::Result;
use async_trait::async_trait;

/// Recorded before the first machine goes off: from here on `start` brings the cluster back.
pub(super) struct MarkStopped;

#[async_trait(?Send)]
impl Step for MarkStopped {
    fn title(&self) -> String {
        "Recording that the cluster rests".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.phase != Phase::Stopped)
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.record.phase = Phase::Stopped;
        cx.save().await
    }
}

/// Each guest shuts itself down.
pub(super) struct Stop;

#[async_trait(?Send)]
impl Step for Stop {
    fn title(&self) -> String {
        "Stopping the machines".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.provider.stop_machines(&cx.record, cx.reporter).await
    }
}

/// The same machines again.
pub(super) struct Resume;

#[async_trait(?Send)]
impl Step for Resume {
    fn title(&self) -> String {
        "Starting the machines".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.provider.resume_machines(&cx.record).await
    }
}
