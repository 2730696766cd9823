//! The last step of a creation, and of a start.

use super::{Context, Step};
use crate::cluster::record::Phase;
use crate::failure::Result;
use async_trait::async_trait;

/// The cluster is whole from here on: `create` refuses it, every other verb takes it.
pub(super) struct Finish;

#[async_trait(?Send)]
impl Step for Finish {
    fn title(&self) -> String {
        "Recording that the cluster is ready".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.record.phase = Phase::Ready;
        cx.save().await
    }
}
