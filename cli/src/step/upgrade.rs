//! The steps that only an upgrade has. A node never changes what it runs: one of the new version
//! comes, and one of an older version leaves. What is done is seen from the record alone, so an
//! upgrade that was stopped anywhere goes on.
//!
//! ```text
//! kubeadm's version ─► for each control plane, then each worker that is older:
//!                      one more ─► Ready ─► CoreDNS ─► the oldest leaves
//! ```

use super::prepare::add_nodes;
use super::waiting::waiting;
use super::{Context, Step};
use crate::cluster::guest::Guest;
use crate::cluster::name::NodeName;
use crate::cluster::record::{NodeRecord, NodeState, Record};
use crate::cluster::spec::Role;
use crate::failure::Result;
use crate::provider::Provider;
use crate::wait::Seen;
use async_trait::async_trait;

/// Nodes of a role that run another version than the cluster is to run.
pub(super) fn older(record: &Record, role: Role) -> impl Iterator<Item = &NodeRecord> {
    let version = record.spec.kubernetes_version;
    record.staying(role).filter(move |n| n.version != version)
}

fn surplus(record: &Record, role: Role) -> bool {
    record.staying(role).count() > record.spec.machine(role).count as usize
}

/// Adds the first node of the new version, in memory: what it needs can be checked before anything
/// is changed. A node that an earlier run left half-way makes room for another: what a first boot did
/// not end can't be taken up again.
pub(crate) fn begin(record: &mut Record, provider: &dyn Provider) -> Result<()> {
    for node in &mut record.nodes {
        if node.state == NodeState::Wanted {
            node.state = NodeState::Leaving;
        }
    }
    for role in [Role::ControlPlane, Role::Worker] {
        if older(record, role).next().is_some() {
            return match surplus(record, role) {
                true => Ok(()),
                false => add_nodes(provider, record, role, 1),
            };
        }
    }
    Ok(())
}

/// From here on kubeadm joins nodes of the new version.
pub(super) struct KubeadmVersion;

#[async_trait(?Send)]
impl Step for KubeadmVersion {
    fn title(&self) -> String {
        "Telling kubeadm the new version".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let guest = Guest::of(&cx.record).await?;
        let version = cx.record.spec.kubernetes_version;
        guest.set_kubeadm_version(version).await
    }
}

/// Room for a successor: one node more than the cluster is to have.
pub(super) struct Grow(pub(super) Role);

#[async_trait(?Send)]
impl Step for Grow {
    fn title(&self) -> String {
        format!("Recording a new {}", self.0)
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(older(&cx.record, self.0).next().is_some() && !surplus(&cx.record, self.0))
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        add_nodes(cx.provider, &mut cx.record, self.0, 1)?;
        cx.save().await
    }
}

/// CoreDNS moves to nodes of the new version while the old ones still serve.
pub(super) struct MoveDns;

#[async_trait(?Send)]
impl Step for MoveDns {
    fn title(&self) -> String {
        "Renewing CoreDNS".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(old(&cx.record).next().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let guest = Guest::of(&cx.record).await?;
        let version = cx.record.spec.kubernetes_version;
        let new = cx.record.staying(Role::ControlPlane);
        let Some(new) = { new }.find(|n| n.version == version) else {
            return Ok(());
        };
        let old: Vec<NodeName> = old(&cx.record).map(|n| n.name.clone()).collect();
        guest.close(&old).await?;
        guest.dns_follows(&new.name).await?;
        waiting(cx, "CoreDNS is renewed", async |_| {
            Ok(match guest.dns_rolled().await {
                Ok(()) => Seen::There(()),
                Err(observation) => Seen::NotYet(observation),
            })
        })
        .await?;
        guest.open(&old).await
    }
}

fn old(record: &Record) -> impl Iterator<Item = &NodeRecord> {
    older(record, Role::ControlPlane).chain(older(record, Role::Worker))
}

/// The successor is there: the first of the older nodes may go.
pub(super) struct Shrink(pub(super) Role);

#[async_trait(?Send)]
impl Step for Shrink {
    fn title(&self) -> String {
        format!("Recording that an old {} leaves", self.0)
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(older(&cx.record, self.0).next().is_some() && surplus(&cx.record, self.0))
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let first = older(&cx.record, self.0).next().map(|n| n.name.clone());
        for node in &mut cx.record.nodes {
            if Some(&node.name) == first.as_ref() {
                node.state = NodeState::Leaving;
            }
        }
        cx.save().await
    }
}

/// All nodes are of one version again.
pub(super) struct Settle;

#[async_trait(?Send)]
impl Step for Settle {
    fn title(&self) -> String {
        "Ending the upgrade".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        Guest::of(&cx.record).await?.daemons_roll().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;
    use crate::provider::fake::Fake;

    /// A cluster of one version that is to run the next.
    fn record(control_planes: u32, workers: u32) -> Record {
        let mut record = fixture::record(control_planes, workers);
        for node in &mut record.nodes {
            node.state = NodeState::Ready;
        }
        record.spec.kubernetes_version.minor += 1;
        record
    }

    fn states(record: &Record) -> Vec<(&str, NodeState)> {
        let nodes = record.nodes.iter();
        nodes.map(|n| (n.name.as_str(), n.state)).collect()
    }

    #[test]
    fn a_control_plane_of_the_new_version_comes_first() {
        use NodeState::{Leaving, Ready, Wanted};
        let (mut record, provider) = (record(1, 1), Fake::default());
        begin(&mut record, &provider).unwrap();
        let come = ("demo-control-plane-2", Wanted);
        let before = [("demo-control-plane-1", Ready), ("demo-worker-1", Ready)];
        assert_eq!(states(&record), [&before[..], &[come]].concat());
        assert_eq!(record.spec.control_plane.count, 1, "what is asked for");

        // Stopped before it was Ready: another one instead.
        begin(&mut record, &provider).unwrap();
        let gone = ("demo-control-plane-2", Leaving);
        let come = ("demo-control-plane-3", Wanted);
        assert_eq!(states(&record), [&before[..], &[gone, come]].concat());

        // Stopped after that: it counts.
        record.nodes.retain(|n| n.state != Leaving);
        record.nodes[2].state = Ready;
        begin(&mut record, &provider).unwrap();
        assert_eq!(states(&record)[2..], [("demo-control-plane-3", Ready)]);
    }

    #[test]
    fn workers_follow_when_no_control_plane_is_older() {
        let (mut record, provider) = (record(1, 2), Fake::default());
        record.nodes[0].version = record.spec.kubernetes_version;
        record.nodes[1].version = record.spec.kubernetes_version;
        assert_eq!(older(&record, Role::ControlPlane).count(), 0);
        begin(&mut record, &provider).unwrap();
        assert_eq!(states(&record)[3..], [("demo-worker-3", NodeState::Wanted)]);
        assert_eq!(record.nodes[3].version, record.spec.kubernetes_version);
        let names: Vec<_> = old(&record).map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["demo-worker-2"]);
    }
}
