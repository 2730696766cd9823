//! A cluster's record: what knest knows of a cluster that it made or is making. It is written
//! before each change that it describes; the provider says where it is kept. Holds secrets.
//!
//! ```text
//!            create                     delete
//! (absent) ─────────► Creating ─► Ready ───────► Deleting ─► (absent)
//!                        │   ▲      │ ▲    ▲        ▲
//!                        └───┘      └─┘    └► Stopped
//!                 create again     scale,     stop, start
//!                                  upgrade
//!
//! node:  Wanted ─► Ready ─► Leaving ─► (absent)
//!                    └────► Lost ─────────┘
//! ```

use super::name::{NameError, NodeName};
use super::pki::Pki;
use super::spec::{ClusterSpec, Role};
use super::version::Version;
use crate::failure::{Context, Failure, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use time::OffsetDateTime;

/// The layout's version; a newer one is refused rather than misread.
pub(crate) const RECORD_VERSION: u32 = 1;

/// All that is known of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) spec: ClusterSpec,
    pub(crate) phase: Phase,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
    /// Fixed before the first machine exists, so that it is in the certificates.
    pub(crate) endpoint: Option<Endpoint>,
    /// Secret.
    pub(crate) pki: Option<Pki>,
    /// Secret while it lives: at most an hour.
    pub(crate) bootstrap_token: Option<BootstrapToken>,
    pub(crate) nodes: Vec<NodeRecord>,
    /// The number that the next node of a role gets. Only ever counts up, so that no name is used
    /// twice.
    pub(crate) next_number: BTreeMap<Role, u32>,
    /// The kubeconfig that holds this cluster's context, once there is one.
    pub(crate) kubeconfig: Option<std::path::PathBuf>,
}

/// Where the cluster's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Creating,
    Ready,
    /// Its machines are off, or are being stopped or started: they keep disks and addresses.
    Stopped,
    Deleting,
}

/// How the API is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    /// `HOST:PORT` as nodes reach it: kubeadm's controlPlaneEndpoint.
    pub(crate) inside: String,
    /// `HOST:PORT` as knest and its user reach it.
    pub(crate) outside: String,
    /// Names and addresses for the API server's certificate, beside those that kubeadm adds.
    pub(crate) cert_sans: Vec<String>,
}

/// A kubeadm bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootstrapToken {
    pub(crate) value: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) expires: OffsetDateTime,
}

impl std::fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BootstrapToken(…, expires {})", self.expires)
    }
}

/// One node: wanted, there, or on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRecord {
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    pub(crate) state: NodeState,
    /// What it runs; another than the cluster's while an upgrade is under way.
    pub(crate) version: Version,
    /// Given out by knest on `local`.
    pub(crate) address: Option<Ipv4Addr>,
    /// Colon-separated, lower case, locally administered.
    pub(crate) mac: String,
}

/// Where a node's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NodeState {
    /// To be made, or being made.
    Wanted,
    /// Was seen Ready.
    Ready,
    /// To be removed, or being removed.
    Leaving,
    /// Its machine went and took the disk along: what the cluster still knows of it is to be
    /// removed.
    Lost,
}

impl NodeRecord {
    /// Whether it is a node that is there, or is to come, for good.
    pub(crate) fn stays(&self) -> bool {
        matches!(self.state, NodeState::Wanted | NodeState::Ready)
    }
}

impl Record {
    /// A record as it was kept at `place`.
    pub(crate) fn read(value: serde_json::Value, place: impl std::fmt::Display) -> Result<Self> {
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(RECORD_VERSION.into()) {
            let found = version.map_or_else(|| "no".to_owned(), |v| v.to_string());
            return Err(Failure::host(format!(
                "{place} has version {found}; this knest knows {RECORD_VERSION}"
            ))
            .hint("use the knest that made this cluster"));
        }
        serde_json::from_value(value).host(format!("reading {place}"))
    }

    /// A new cluster's record, before anything of it exists.
    pub(crate) fn new(spec: ClusterSpec, created: OffsetDateTime) -> Self {
        Self {
            version: RECORD_VERSION,
            spec,
            phase: Phase::Creating,
            created,
            endpoint: None,
            pki: None,
            bootstrap_token: None,
            nodes: vec![],
            next_number: BTreeMap::new(),
            kubeconfig: None,
        }
    }

    /// Nodes of a role that stay or are to come.
    pub(crate) fn staying(&self, role: Role) -> impl Iterator<Item = &NodeRecord> {
        self.nodes
            .iter()
            .filter(move |n| n.role == role && n.stays())
    }

    /// Nodes in a state.
    pub(crate) fn in_state(&self, state: NodeState) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.iter().filter(move |n| n.state == state)
    }

    /// Whether there are nodes that run another version than the cluster is to run.
    pub(crate) fn upgrading(&self) -> bool {
        let version = self.spec.kubernetes_version;
        self.nodes.iter().any(|n| n.version != version)
    }

    /// A name for a node that is yet to be, never given out again.
    pub(crate) fn next_name(&mut self, role: Role) -> Result<NodeName, NameError> {
        let number = self.next_number.entry(role).or_insert(1);
        let name = format!("{}-{role}-{number}", self.spec.name).parse()?;
        *number += 1;
        Ok(name)
    }

    /// Whether the node that makes the cluster is still to be Ready.
    pub(crate) fn founding(&self) -> bool {
        !self
            .nodes
            .iter()
            .any(|n| n.role == Role::ControlPlane && n.state != NodeState::Wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn names_are_never_given_twice() {
        let mut record = fixture::record(1, 1);
        record.nodes.retain(|n| n.role == Role::ControlPlane);
        let name = record.next_name(Role::Worker).map(|n| n.to_string());
        assert_eq!(name, Ok("demo-worker-2".into()));
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let record = fixture::record(1, 1);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn one_node_founds_the_cluster() {
        let mut record = fixture::record(1, 1);
        assert!(record.founding());
        record.nodes[0].state = NodeState::Ready;
        assert!(!record.founding());
    }
}
