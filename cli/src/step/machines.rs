//! The steps that make machines: base disks, the machines themselves, and the end of their
//! secrets.

use super::{Context, Step};
use crate::cluster::name::NodeName;
use crate::cluster::record::{NodeRecord, NodeState, Phase, Record};
use crate::cluster::spec::Role;
use crate::cluster::{guest::Guest, userdata};
use crate::failure::{Failure, Result};
use crate::provider::MachineRequest;
use async_trait::async_trait;

/// Images become disks, once for all nodes.
pub(super) struct Disks;

#[async_trait(?Send)]
impl Step for Disks {
    fn title(&self) -> String {
        "Making the root disks".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.in_state(NodeState::Wanted).next().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.provider.prepare(&cx.record, cx.reporter).await
    }
}

/// Every machine starts at once: workers wait for the API by themselves.
pub(super) struct Machines;

#[async_trait(?Send)]
impl Step for Machines {
    fn title(&self) -> String {
        "Starting the machines".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.in_state(NodeState::Wanted).next().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let wanted = cx.record.in_state(NodeState::Wanted);
        let requests: Vec<_> = wanted
            .map(|n| request(&cx.record, n))
            .collect::<Result<_>>()?;
        cx.provider.start_machines(&cx.record, &requests).await
    }
    async fn undo(&self, cx: &mut Context<'_>) -> Result<()> {
        let new: Vec<NodeName> = cx
            .record
            .in_state(NodeState::Wanted)
            .map(|n| n.name.clone())
            .collect();
        cx.provider.remove_machines(&cx.record, &new).await?;
        // A cluster that is taken back whole needs no farewell from its own API.
        if cx.record.phase == Phase::Ready {
            let guest = Guest::of(&cx.record).await?;
            for node in &new {
                guest.delete_node(node).await?;
            }
        }
        Ok(())
    }
}

/// The first control plane ever is the one that makes the cluster; all others join it.
fn request(record: &Record, node: &NodeRecord) -> Result<MachineRequest> {
    let token = record
        .bootstrap_token
        .as_ref()
        .ok_or_else(|| Failure::internal("machines before their token"))?;
    let first = record.nodes.iter().find(|n| n.role == Role::ControlPlane);
    let founder = first.is_some_and(|n| n.name == node.name) && record.founding();
    let user_data = match founder {
        true => userdata::init(record, node, token)?,
        false => userdata::join(record, node, token)?,
    };
    Ok(MachineRequest {
        node: node.clone(),
        user_data,
    })
}

/// Nodes are up: what only booting needed is worthless from here on.
pub(super) struct Seal;

#[async_trait(?Send)]
impl Step for Seal {
    fn title(&self) -> String {
        "Removing boot secrets".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.bootstrap_token.is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let ready: Vec<NodeName> = cx
            .record
            .in_state(NodeState::Ready)
            .map(|n| n.name.clone())
            .collect();
        cx.provider.seal(&cx.record, &ready).await?;
        if let Some(token) = cx.record.bootstrap_token.clone() {
            Guest::of(&cx.record).await?.revoke(&token).await?;
        }
        cx.record.bootstrap_token = None;
        cx.save().await
    }
}
