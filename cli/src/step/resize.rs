//! The first change of a `scale`: the record says who comes and who leaves.

use super::{Context, Step};
use crate::cluster::record::NodeState;
use crate::cluster::spec::Role;
use crate::failure::Result;
use async_trait::async_trait;

/// Saves what the command decided; taken back, it drops the nodes that never became Ready.
pub(super) struct Resize;

#[async_trait(?Send)]
impl Step for Resize {
    fn title(&self) -> String {
        "Recording the new size".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.save().await
    }
    async fn undo(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.record.nodes.retain(|n| n.state != NodeState::Wanted);
        for role in [Role::ControlPlane, Role::Worker] {
            let staying = u32::try_from(cx.record.staying(role).count()).unwrap_or(u32::MAX);
            cx.record.spec.machine_mut(role).count = staying;
        }
        cx.save().await
    }
}
