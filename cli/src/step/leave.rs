//! Farewell to nodes: their pods move, their etcd member goes, then their machine, then their Node.
//!
//! ```text
//! Leaving   drain ─► etcd lets go ─► machine removed ─► Node deleted ─► out of the record
//! Lost               etcd lets go ─► machine removed ─► Node deleted ─► out of the record
//! ```
//! Workers go together, control planes one at a time; each act finds itself done or does it.

use super::{Context, Step};
use crate::cluster::guest::Guest;
use crate::cluster::name::NodeName;
use crate::cluster::record::{NodeRecord, NodeState, Record};
use crate::cluster::spec::Role;
use crate::failure::{Failure, Result};
use crate::provider::MachineState;
use crate::wait::{Seen, wait_until};
use async_trait::async_trait;
use std::time::Duration;
use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(2);

/// What a farewell may take at least, though the list's own time be up.
const FAREWELL: Duration = Duration::from_secs(60);

fn names(record: &Record, state: NodeState) -> Vec<NodeName> {
    record.in_state(state).map(|n| n.name.clone()).collect()
}

/// Cordons and drains, PodDisruptionBudgets respected.
pub(super) struct Drain;

#[async_trait(?Send)]
impl Step for Drain {
    fn title(&self) -> String {
        "Draining nodes that leave".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.in_state(NodeState::Leaving).next().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let guest = Guest::of(&cx.record).await?;
        let machines = cx.provider.machines(&cx.record.spec.name).await?;
        for node in names(&cx.record, NodeState::Leaving) {
            // Where nothing runs, nothing can be asked to go.
            let runs = machines
                .iter()
                .any(|m| m.name == node && m.state == MachineState::Running);
            if !runs {
                continue;
            }
            let what = format!("node {node} is drained");
            wait_until(&what, cx.deadline, INTERVAL, cx.reporter, async || {
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

/// Parts with the nodes that were drained.
pub(super) struct Leave;

#[async_trait(?Send)]
impl Step for Leave {
    fn title(&self) -> String {
        "Removing nodes that leave".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.in_state(NodeState::Leaving).next().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        part_with(cx, &names(&cx.record, NodeState::Leaving)).await
    }
}

/// Parts with the nodes whose machines are gone. Before others come: etcd counts the dead.
pub(super) struct Bury;

#[async_trait(?Send)]
impl Step for Bury {
    fn title(&self) -> String {
        "Removing what is left of lost nodes".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.in_state(NodeState::Lost).next().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        part_with(cx, &names(&cx.record, NodeState::Lost)).await
    }
}

/// Removes nodes from etcd, the provider, the cluster's API and the record: the workers among them
/// together, then the control planes one by one, the last to come first.
pub(super) async fn part_with(cx: &mut Context<'_>, gone: &[NodeName]) -> Result<()> {
    let (control_planes, workers): (Vec<_>, Vec<_>) = cx
        .record
        .nodes
        .iter()
        .filter(|n| gone.contains(&n.name))
        .cloned()
        .partition(|n| n.role == Role::ControlPlane);
    let workers: Vec<NodeName> = workers.into_iter().map(|n| n.name).collect();
    remove(cx, &workers).await?;
    for node in control_planes.into_iter().rev() {
        leave_etcd(cx, &node, gone).await?;
        remove(cx, &[node.name]).await?;
    }
    Ok(())
}

fn deadline(cx: &Context<'_>) -> Instant {
    cx.deadline.max(Instant::now() + FAREWELL)
}

async fn leave_etcd(cx: &Context<'_>, node: &NodeRecord, gone: &[NodeName]) -> Result<()> {
    let stays = |n: &&NodeRecord| {
        n.role == Role::ControlPlane && n.state == NodeState::Ready && !gone.contains(&n.name)
    };
    let via = cx.record.nodes.iter().find(stays).ok_or_else(|| {
        Failure::internal(format!("no control plane would stay without {}", node.name))
    })?;
    let guest = Guest::of(&cx.record).await?;
    let what = format!("etcd lets go of {}", node.name);
    // A member that has just come, or a leader that has just gone, makes etcd refuse for a while.
    wait_until(&what, deadline(cx), INTERVAL, cx.reporter, async || {
        Ok(match guest.leave_etcd(node, &via.name).await {
            Ok(()) => Seen::There(()),
            Err(failure) => Seen::NotYet(failure.to_string()),
        })
    })
    .await
}

/// Machines, then their Nodes, then the record of them.
async fn remove(cx: &mut Context<'_>, gone: &[NodeName]) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    cx.provider.remove_machines(&cx.record, gone).await?;
    // Only now: a kubelet that still lives would register its Node again. And by a new connection:
    // an earlier one may have led to a control plane that has just gone.
    let guest = Guest::of(&cx.record).await?;
    for node in gone {
        let what = format!("node {node} is deleted");
        wait_until(&what, deadline(cx), INTERVAL, cx.reporter, async || {
            Ok(match guest.delete_node(node).await {
                Ok(()) => Seen::There(()),
                Err(failure) => Seen::NotYet(failure.to_string()),
            })
        })
        .await?;
    }
    cx.record.nodes.retain(|n| !gone.contains(&n.name));
    cx.save().await
}
