//! What a cluster should be: inert, fully resolved, and compared as a whole when `create` is run
//! again. Flags and files are turned into it elsewhere.

use super::address;
use super::name::ClusterName;
use super::pool::Pool;
use super::quantity::Quantity;
use super::root::Root;
use super::version::Version;
use crate::failure::{Failure, Result};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// On a Kubernetes cluster with Virtink.
    Virtink(VirtinkSpec),
}

/// What only machines on a host cluster have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VirtinkSpec {
    /// Where all of the cluster's objects are.
    pub(crate) namespace: String,
    pub(crate) expose: Expose,
    /// Labels of the host's nodes that may run machines.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) node_selector: BTreeMap<String, String>,
    /// Whether disks and addresses outlive the machines' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) persistent: Option<PersistentSpec>,
}

/// What only persistent machines have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PersistentSpec {
    pub(crate) host_cni: HostCni,
    /// Where the nodes' addresses are from.
    pub(crate) addresses: Pool,
    /// `None` where the host chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) storage_class: Option<String>,
    pub(crate) access_mode: AccessMode,
    pub(crate) volume_mode: VolumeMode,
}

/// The host's network, which gives machines the addresses that knest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HostCni {
    Calico,
    KubeOvn,
}

/// From how many of the host's nodes a disk can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum AccessMode {
    /// One at a time.
    ReadWriteOnce,
    /// Several.
    ReadWriteMany,
}

/// What a volume holds a disk as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum VolumeMode {
    /// A file.
    Filesystem,
    /// Itself.
    Block,
}

/// How the API is reached from outside the host cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expose {
    /// What can be reached from here.
    Auto,
    /// A load balancer of the host's.
    #[value(name = "loadbalancer")]
    LoadBalancer,
    /// A port of every node of the host's.
    #[value(name = "nodeport")]
    NodePort,
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

impl ProviderSpec {
    /// The nodes' own range, where knest gives it out.
    pub(crate) fn node_cidr(&self) -> Option<Ipv4Net> {
        match self {
            Self::Local { node_cidr, .. } => Some(*node_cidr),
            Self::Virtink(_) => None,
        }
    }

    /// What only persistent machines on a host cluster have.
    pub(crate) fn persistent(&self) -> Option<&PersistentSpec> {
        match self {
            Self::Local { .. } => None,
            Self::Virtink(virtink) => virtink.persistent.as_ref(),
        }
    }
}

impl PersistentSpec {
    /// Checks that there is an address for each of `nodes`, and for one that takes another's place.
    fn check(&self, nodes: u32) -> Result<()> {
        let (there, wanted) = (self.addresses.len(), u64::from(nodes) + 1);
        match there >= wanted {
            true => Ok(()),
            false => Err(Failure::usage(format!(
                "{there} machine addresses are too few: {nodes} nodes need {wanted}"
            ))
            .hint(
                "one more than there are nodes lets a node be replaced before the old one leaves",
            )),
        }
    }
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
    /// The images that its machines are made of: kernels and roots, in no order and with repetitions.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        let machines = [&self.control_plane, &self.worker].into_iter();
        let machines = machines.filter(|machine| machine.count > 0);
        machines.flat_map(|machine| {
            let root = &*machine.rootfs_image;
            let image = matches!(Root::parse(root), Ok(Root::Image(_)));
            [Some(&*machine.kernel_image), image.then_some(root)]
                .into_iter()
                .flatten()
        })
    }
}

/// More nodes than one cluster of knest's has been made with.
const MOST_NODES: u32 = 1000;

/// What kubeadm's preflight asks for.
const LEAST_MEMORY: Quantity = Quantity::mib(1700);
const LEAST_DISK: Quantity = Quantity::gib(2);

impl ClusterSpec {
    /// Checks what can be known without looking at any host: counts, sizes, ranges.
    pub(crate) fn check(&self) -> Result<()> {
        let (control_planes, workers) = (self.control_plane.count, self.worker.count);
        if control_planes == 0 || control_planes.is_multiple_of(2) {
            return Err(
                Failure::usage(format!("{control_planes} control-plane nodes"))
                    .hint("etcd needs an odd number of members: 1, 3 or 5"),
            );
        }
        let nodes = control_planes.saturating_add(workers);
        if nodes > MOST_NODES {
            return Err(Failure::usage(format!(
                "{nodes} nodes are more than {MOST_NODES}"
            )));
        }
        for role in [Role::ControlPlane, Role::Worker] {
            self.check_machine(role)?;
        }
        let NetworkSpec {
            pod_cidr,
            service_cidr,
        } = self.network;
        let mut ranges = vec![("pod network", pod_cidr), ("service", service_cidr)];
        address::check_sizes(pod_cidr, service_cidr, nodes)?;
        if let Some(node_cidr) = self.provider.node_cidr() {
            address::check_node_range(node_cidr, nodes)?;
            ranges.push(("node", node_cidr));
        }
        if let Some(persistent) = self.provider.persistent() {
            persistent.check(nodes)?;
            let nets = persistent.addresses.nets();
            ranges.extend(nets.map(|net| ("machine address", net)));
        }
        address::disjoint(&ranges)
    }

    fn check_machine(&self, role: Role) -> Result<()> {
        let machine = self.machine(role);
        if !(1..=256).contains(&machine.cpu_cores) {
            return Err(Failure::usage(format!(
                "a {role} machine with {} CPU cores",
                machine.cpu_cores
            ))
            .hint("between 1 and 256 are possible"));
        }
        for (what, has, least) in [
            ("memory", machine.memory, LEAST_MEMORY),
            ("root disk", machine.rootfs_size, LEAST_DISK),
        ] {
            if has < least {
                return Err(Failure::usage(format!(
                    "a {role} machine's {what} of {has} is less than the {least} that a node needs"
                )));
            }
        }
        // Disks are opened past the page cache, in blocks; memory is given in pages.
        for (what, has) in [
            ("memory", machine.memory),
            ("root disk", machine.rootfs_size),
        ] {
            if !has.bytes().is_multiple_of(4096) {
                return Err(Failure::usage(format!(
                    "a {role} machine's {what} of {has} is not a multiple of 4096 bytes"
                )));
            }
        }
        check_reference(&machine.kernel_image)?;
        match (Root::parse(&machine.rootfs_image)?, &self.provider) {
            (Root::File { .. }, ProviderSpec::Virtink(_)) => Err(Failure::usage(format!(
                "a {role} machine's root {} is a file on this machine, and machines on a host \
                 cluster are made of images",
                machine.rootfs_image
            ))),
            _ => Ok(()),
        }
    }
}

/// The characters of an image reference; whether there is such an image is the provider's to say.
pub(crate) fn check_reference(image: &str) -> Result<()> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    let starts = image
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    match starts && image.len() <= 512 && image.bytes().all(legal) {
        true => Ok(()),
        false => Err(
            Failure::usage(format!("{image:?} is not an image reference"))
                .hint("it looks like knest.dev/node:v1.37.2"),
        ),
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

impl fmt::Display for HostCni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Calico => "calico",
            Self::KubeOvn => "kube-ovn",
        })
    }
}

impl fmt::Display for AccessMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteMany => "ReadWriteMany",
        })
    }
}

impl fmt::Display for VolumeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Filesystem => "Filesystem",
            Self::Block => "Block",
        })
    }
}
