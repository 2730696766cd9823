//! The steps that make machines: base disks, the machines themselves, and the end of their
//! secrets.
//!
//! ```text
//! Machines            founder, workers: at once
//! JoinControlPlanes   the second ─► serves ─► the third ─► serves …
//! ```

use super::leave::part_with;
use super::waiting::waiting;
use super::{Context, Step};
use crate::cluster::guest::Guest;
use crate::cluster::name::NodeName;
use crate::cluster::record::{NodeRecord, NodeState, Phase, Record};
use crate::cluster::spec::Role;
use crate::cluster::userdata;
use crate::failure::{Failure, Result};
use crate::provider::MachineRequest;
use crate::wait::Seen;
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
    async fn undo(&self, cx: &mut Context<'_>) -> Result<()> {
        // Disks that are filled before their machines are made; all others are shared.
        if cx.record.spec.provider.persistent().is_none() {
            return Ok(());
        }
        let new: Vec<NodeName> = cx
            .record
            .in_state(NodeState::Wanted)
            .map(|n| n.name.clone())
            .collect();
        cx.provider.remove_machines(&cx.record, &new).await
    }
}

/// All at once: workers wait for the API by themselves. Control planes that join have a step of their
/// own.
pub(super) struct Machines;

/// Nodes whose machines start at once, in the record's order.
fn at_once(record: &Record) -> impl Iterator<Item = &NodeRecord> {
    let joins = |n: &NodeRecord| joining(record).any(|j| j.name == n.name);
    record
        .in_state(NodeState::Wanted)
        .filter(move |n| !joins(n))
}

/// Control planes to come that join an etcd which is there.
fn joining(record: &Record) -> impl Iterator<Item = &NodeRecord> {
    let wanted = record.in_state(NodeState::Wanted);
    let control_planes = wanted.filter(|n| n.role == Role::ControlPlane);
    control_planes.skip(usize::from(record.founding()))
}

#[async_trait(?Send)]
impl Step for Machines {
    fn title(&self) -> String {
        "Starting the machines".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(at_once(&cx.record).next().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let requests: Vec<_> = at_once(&cx.record)
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
        // A cluster that is taken back whole needs no farewell from its own API.
        match cx.record.phase {
            Phase::Creating => cx.provider.remove_machines(&cx.record, &new).await,
            _ => part_with(cx, &new).await,
        }
    }
}

/// One after the other, each serving the API before the next begins: etcd takes in one member at a
/// time, and has a majority throughout.
pub(super) struct JoinControlPlanes;

#[async_trait(?Send)]
impl Step for JoinControlPlanes {
    fn title(&self) -> String {
        "Joining control planes".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(joining(&cx.record).next().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let guest = Guest::of(&cx.record).await?;
        for node in joining(&cx.record) {
            let request = request(&cx.record, node)?;
            cx.provider.start_machines(&cx.record, &[request]).await?;
            let what = format!("control plane {} serves", node.name);
            waiting(cx, &what, async |record| {
                // The pods that make it Ready are of images that it may be the first to have.
                if record.upgrading()
                    && let Err(failure) = renew_daemons(&guest, node).await
                {
                    return Ok(Seen::NotYet(failure.to_string()));
                }
                Ok(match joined(&guest, node).await {
                    Ok(()) => Seen::There(()),
                    Err(observation) => Seen::NotYet(observation),
                })
            })
            .await?;
        }
        Ok(())
    }
}

async fn renew_daemons(guest: &Guest, node: &NodeRecord) -> Result<()> {
    guest.daemons_follow(&node.name).await?;
    guest.daemons_begin_anew(&node.name).await
}

/// Whether a control plane has joined: Ready as a node, which its kubelet may be long before its etcd
/// member votes and its API server serves.
async fn joined(guest: &Guest, node: &NodeRecord) -> Result<(), String> {
    let name = &node.name;
    let seen = guest.nodes().await?;
    match seen.iter().find(|s| s.name == name.as_str()) {
        Some(seen) if seen.ready => guest.serves(name).await,
        Some(seen) => Err(format!("{name}: {}", seen.message)),
        None => Err(format!("{name} has not joined yet")),
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
