//! What a cluster should be: inert, fully resolved, and compared as a whole when `create` is run
//! again. Flags and files are turned into it elsewhere.

use super::name::ClusterName;
use super::quantity::Quantity;
use super::version::Version;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One cluster, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterSpec {
    pub(crate) name: ClusterName,
    pub(crate) kubernetes_version: Version,
    pub(crate) network: NetworkSpec,
    pub(crate) control_plane: MachineSpec,
    pub(crate) worker: MachineSpec,
    pub(crate) provider: ProviderSpec,
}

/// The cluster's ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkSpec {
    pub(crate) pod_cidr: Ipv4Net,
    pub(crate) service_cidr: Ipv4Net,
}

/// How many machines of one role there are, and of what size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MachineSpec {
    pub(crate) count: u32,
    pub(crate) cpu_cores: u32,
    pub(crate) memory: Quantity,
    pub(crate) rootfs_size: Quantity,
    /// A reference in knest's store.
    pub(crate) kernel_image: String,
    pub(crate) rootfs_image: String,
}

/// Where the machines live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum ProviderSpec {
    /// On this machine.
    #[serde(rename_all = "camelCase")]
    Local {
        vmm: VmmKind,
        /// The nodes' own range, inside the cluster's network namespace.
        node_cidr: Ipv4Net,
    },
}

/// The program that runs the virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VmmKind {
    /// Cloud Hypervisor, with KVM.
    CloudHypervisor,
    /// QEMU: with KVM where that works, else software emulation.
    Qemu,
}

/// What a node is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    ControlPlane,
    Worker,
}

impl ClusterSpec {
    pub(crate) fn machine(&self, role: Role) -> &MachineSpec {
        match role {
            Role::ControlPlane => &self.control_plane,
            Role::Worker => &self.worker,
        }
    }
    pub(crate) fn machine_mut(&mut self, role: Role) -> &mut MachineSpec {
        match role {
            Role::ControlPlane => &mut self.control_plane,
            Role::Worker => &mut self.worker,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        })
    }
}

impl fmt::Display for VmmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Qemu => "qemu",
        })
    }
}
