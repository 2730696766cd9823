//! Farewell to nodes that leave: their pods move, their machine goes, then their Node.

use super::{Context, Step};
use crate::cluster::guest::Guest;
use crate::cluster::name::NodeName;
use crate::cluster::record::NodeState;
use crate::failure::Result;
use crate::wait::{Seen, wait_until};
use async_trait::async_trait;
use std::time::Duration;

fn leaving(cx: &Context<'_>) -> Vec<NodeName> {
    cx.record
        .in_state(NodeState::Leaving)
        .map(|n| n.name.clone())
        .collect()
}

/// Cordons and drains, PodDisruptionBudgets respected.
pub(super) struct Drain;

#[async_trait(?Send)]
impl Step for Drain {
    fn title(&self) -> String {
        "Draining nodes that leave".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(!leaving(cx).is_empty())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let guest = Guest::of(&cx.record).await?;
        for node in leaving(cx) {
            let what = format!("node {node} is drained");
            let every = Duration::from_secs(2);
            wait_until(&what, cx.deadline, every, cx.reporter, async || {
                let left = guest.drain(&node).await?;
                Ok(match left.first() {
                    None => Seen::There(()),
                    Some(pod) => Seen::NotYet(format!("{} pods left on {node}: {pod}", left.len())),
                })
            })
            .await?;
        }
        Ok(())
    }
}

/// Their machines, and then the record of them.
pub(super) struct RemoveMachines;

#[async_trait(?Send)]
impl Step for RemoveMachines {
    fn title(&self) -> String {
        "Removing machines".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(!leaving(cx).is_empty())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let gone = leaving(cx);
        cx.provider.remove_machines(&cx.record, &gone).await?;
        // Only now: a kubelet that still lives would register its Node again.
        let guest = Guest::of(&cx.record).await?;
        for node in &gone {
            guest.delete_node(node).await?;
        }
        cx.record.nodes.retain(|n| !gone.contains(&n.name));
        cx.save().await
    }
}
