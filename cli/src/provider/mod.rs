//! Where machines live. A provider makes machines, finds them and deletes them, keeps the
//! cluster's record, and says how the API is reached; it knows nothing of steps, kubeadm or the
//! terminal. Everything here is idempotent: a step that was interrupted is simply run again.

#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod local;
pub(crate) mod virtink;

use crate::cluster::name::{ClusterName, NodeName};
use crate::cluster::record::{Endpoint, NodeRecord, Record};
use crate::cluster::spec::Role;
use crate::failure::{Failure, Result};
use crate::ui::Reporter;
use async_trait::async_trait;
use std::net::Ipv4Addr;

/// A place where nodes can live.
#[async_trait]
pub(crate) trait Provider: Send + Sync {
    /// Where that is, in words that follow "a cluster": `on this machine`.
    fn place(&self) -> String;

    /// What a user should know before a cluster is made, though it stops nothing.
    fn notes(&self, record: &Record) -> Vec<String>;

    /// Whether there is anything of this name, a cluster or what is left of one.
    async fn exists(&self, name: &ClusterName) -> Result<bool>;

    /// Checks, before anything is made, that this place can hold the record's `Wanted` nodes
    /// beside what runs already: programs, devices, permissions, memory, disk, ranges that are
    /// taken, images (present, for this platform, with what their role needs inside). Changes
    /// nothing; the record may not have been saved yet.
    async fn preflight(&self, record: &Record) -> Result<()>;

    /// Takes the cluster's lock for as long as the guard lives. Another holder is an error that
    /// names it, not a wait.
    async fn lock(&self, name: &ClusterName) -> Result<Box<dyn Lock>>;

    /// The record of a cluster, `None` if there is no such cluster.
    async fn load(&self, name: &ClusterName) -> Result<Option<Record>>;

    /// Writes the record: atomically, durably, readable by its owner alone.
    async fn save(&self, record: &Record) -> Result<()>;

    /// Removes the record and whatever else still bears the cluster's name; the last act.
    async fn forget(&self, name: &ClusterName) -> Result<()>;

    /// Every cluster kept here, sorted.
    async fn names(&self) -> Result<Vec<ClusterName>>;

    /// Chooses and holds the API's addresses.
    async fn reserve_endpoint(&self, record: &Record) -> Result<Endpoint>;

    /// An address for a node yet to be made, unused by any node of the record; its MAC address
    /// follows from it. Pure.
    fn reserve_address(&self, record: &Record, role: Role) -> Result<NodeAddress>;

    /// Gives every node of the record that lacks one an address that no other cluster here has, and
    /// saves the record; it is returned as it was saved. Nothing to do where [`Self::reserve_address`]
    /// gave them all.
    async fn claim_addresses(&self, record: &Record) -> Result<Record> {
        Ok(record.clone())
    }

    /// Makes what machines are made from: base disks out of images. Reports progress.
    async fn prepare(&self, record: &Record, reporter: &dyn Reporter) -> Result<()>;

    /// Makes and starts machines, all at once; returns when every one of them runs, or is seen by
    /// [`Self::machines`] on its way there. A machine that is there already is left alone.
    async fn start_machines(&self, record: &Record, machines: &[MachineRequest]) -> Result<()>;

    /// What became of the machines.
    async fn machines(&self, name: &ClusterName) -> Result<Vec<MachineStatus>>;

    /// Why machines can't be stopped and started again, where they can't: one that is off loses its
    /// disk.
    fn can_stop(&self, _record: &Record) -> Result<()> {
        Ok(())
    }

    /// Shuts machines down, each by its own will where it has one; disks and addresses stay theirs.
    /// Returns when all are off; one that is off already is no error. Not asked for where
    /// [`Self::can_stop`] refuses.
    async fn stop_machines(&self, record: &Record, reporter: &dyn Reporter) -> Result<()>;

    /// Starts machines that are there and off: the same disks, the same addresses. Returns when
    /// every machine of the record's `Ready` nodes runs.
    async fn resume_machines(&self, record: &Record) -> Result<()>;

    /// Stops machines and removes all that they had. An absent one is no error.
    async fn remove_machines(&self, record: &Record, nodes: &[NodeName]) -> Result<()>;

    /// Empties the seeds of these nodes of what is secret: they have booted for good.
    async fn seal(&self, record: &Record, nodes: &[NodeName]) -> Result<()>;

    /// Takes the nodes' disks out of the cluster, so that its end is not theirs, and says what they
    /// are called. Refused where disks are nothing without their cluster.
    async fn keep_disks(&self, record: &Record) -> Result<Vec<String>> {
        Err(Failure::usage(format!(
            "the disks of cluster {} can't be kept",
            record.spec.name
        ))
        .hint("only persistent clusters, of create --persistent, have disks that can"))
    }

    /// Removes every machine and all that they shared; only the record is left. Works from
    /// whatever an interruption left.
    async fn teardown(&self, name: &ClusterName, reporter: &dyn Reporter) -> Result<()>;
}

/// A held lock; dropping it frees it.
pub(crate) trait Lock: Send + Sync {}

/// Where a node is in its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    /// `None`, and an empty MAC address, where the provider's network gives them.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) mac: String,
}

/// A machine to be made.
#[derive(Clone, Debug)]
pub(crate) struct MachineRequest {
    pub(crate) node: NodeRecord,
    /// The script that makes it a node. Secret.
    pub(crate) user_data: String,
}

/// A machine as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineStatus {
    pub(crate) name: NodeName,
    pub(crate) state: MachineState,
    /// How often its guest began anew since the machine was started, where that matters: before its
    /// node was Ready.
    pub(crate) reboots: u64,
    /// The last lines of its serial console, of bounded size, made printable.
    pub(crate) console_tail: String,
}

/// Whether a machine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MachineState {
    /// It runs.
    Running,
    /// It does not; `reason` says how it ended (exit status or signal, and the VMM's last words).
    /// Its disk is there.
    Stopped { reason: String },
    /// It ended, and its disk is gone with it. So is a machine that is not in the list at all.
    Lost { reason: String },
}
