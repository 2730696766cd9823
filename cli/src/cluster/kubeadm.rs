//! What kubeadm is told: its v1beta4 documents, with those of kubelet and kube-proxy, for a node's
//! first boot. Pure rendering; knows no provider beyond the addresses in the record.
//!
//! ```text
//! first control plane   InitConfiguration + ClusterConfiguration
//!                       + KubeletConfiguration + KubeProxyConfiguration
//! every other node      JoinConfiguration (the rest it fetches from the cluster)
//! ```

pub(super) mod patches;

use super::record::{BootstrapToken, Endpoint, NodeRecord, Record};
use super::spec::{ProviderSpec, Role, VmmKind};
use crate::failure::{Failure, Result};
use serde::Serialize;
use std::net::Ipv4Addr;

const KUBEADM: &str = "kubeadm.k8s.io/v1beta4";
const CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// Leases of the controller manager's and the scheduler's leaders. Leaders are elected even where
/// there is one control plane: it may get company, and then two must not act at once. But where a
/// lease's upkeep comes late, both restart for ever, and a software-emulated machine is often late:
/// so nobody is hurried there, nor where nobody waits to take over.
fn leases(record: &Record) -> Vec<Arg> {
    if !emulated(record) && record.spec.control_plane.count > 1 {
        return vec![];
    }
    vec![
        arg("leader-elect-lease-duration", "60s"),
        arg("leader-elect-renew-deadline", "45s"),
        arg("leader-elect-retry-period", "5s"),
    ]
}

/// etcd's own election, ten times slower than its defaults where the machines may be emulated: a
/// heartbeat that is late by a second is no reason to elect anew.
fn etcd(record: &Record) -> Option<Etcd> {
    emulated(record).then(|| Etcd {
        local: LocalEtcd {
            extra_args: vec![
                arg("heartbeat-interval", "1000"),
                arg("election-timeout", "10000"),
            ],
        },
    })
}

/// Whether the machines may be emulated in software.
fn emulated(record: &Record) -> bool {
    match record.spec.provider {
        ProviderSpec::Local { vmm, .. } => vmm == VmmKind::Qemu,
        ProviderSpec::Virtink(_) => false,
    }
}

/// The documents for the first control plane.
pub(crate) fn init_documents(
    record: &Record,
    node: &NodeRecord,
    token: &BootstrapToken,
) -> Result<String> {
    let endpoint = endpoint(record)?;
    let init = InitConfiguration {
        api_version: KUBEADM,
        kind: "InitConfiguration",
        bootstrap_tokens: vec![InitToken {
            token: &token.value,
            description: "knest: for machines that become nodes",
            ttl: "1h",
            usages: ["signing", "authentication"],
            groups: ["system:bootstrappers:kubeadm:default-node-token"],
        }],
        local_api_endpoint: local_endpoint(node),
        node_registration: registration(record, node),
        patches: PATCHES,
        timeouts: TIMEOUTS,
    };
    let leases = leases(record);
    let cluster = ClusterConfiguration {
        api_version: KUBEADM,
        kind: "ClusterConfiguration",
        cluster_name: record.spec.name.as_str(),
        kubernetes_version: record.spec.kubernetes_version.to_string(),
        control_plane_endpoint: &endpoint.inside,
        encryption_algorithm: "ECDSA-P256",
        networking: Networking {
            pod_subnet: record.spec.network.pod_cidr.to_string(),
            service_subnet: record.spec.network.service_cidr.to_string(),
            dns_domain: "cluster.local",
        },
        api_server: ApiServer {
            cert_sans: &endpoint.cert_sans,
        },
        controller_manager: Component {
            extra_args: leases.clone(),
        },
        scheduler: Component { extra_args: leases },
        etcd: etcd(record),
    };
    let documents = [
        yaml(&init)?,
        yaml(&cluster)?,
        yaml(&KUBELET)?,
        yaml(&KUBE_PROXY)?,
    ];
    Ok(documents.join("---\n"))
}

/// The documents for every other node; a control plane finds the authorities in its files.
pub(crate) fn join_documents(
    record: &Record,
    node: &NodeRecord,
    token: &BootstrapToken,
) -> Result<String> {
    let endpoint = endpoint(record)?;
    let pki = record.pki.as_ref().ok_or_else(|| incomplete("keys"))?;
    yaml(&JoinConfiguration {
        api_version: KUBEADM,
        kind: "JoinConfiguration",
        discovery: Discovery {
            bootstrap_token: DiscoveryToken {
                api_server_endpoint: &endpoint.inside,
                token: &token.value,
                ca_cert_hashes: [pki.ca_hash()?],
            },
        },
        control_plane: (node.role == Role::ControlPlane).then(|| JoinControlPlane {
            local_api_endpoint: local_endpoint(node),
        }),
        node_registration: registration(record, node),
        patches: (node.role == Role::ControlPlane).then_some(PATCHES),
        timeouts: TIMEOUTS,
    })
}

/// The record lacks what is decided before any node is rendered.
pub(super) fn incomplete(what: &str) -> Failure {
    Failure::internal(format!("the record has no {what} yet"))
}

fn endpoint(record: &Record) -> Result<&Endpoint> {
    record
        .endpoint
        .as_ref()
        .ok_or_else(|| incomplete("endpoint"))
}

fn yaml(document: &impl Serialize) -> Result<String> {
    serde_yaml_ng::to_string(document)
        .map_err(|e| Failure::internal("rendering kubeadm's documents").because(e))
}

fn local_endpoint(node: &NodeRecord) -> Option<ApiEndpoint> {
    node.address
        .map(|advertise_address| ApiEndpoint { advertise_address })
}

fn registration<'a>(record: &Record, node: &'a NodeRecord) -> NodeRegistration<'a> {
    // A control plane without workers takes ordinary pods; else kubeadm's own taint stands.
    let alone = node.role == Role::ControlPlane && record.spec.worker.count == 0;
    NodeRegistration {
        name: node.name.as_str(),
        cri_socket: CRI_SOCKET,
        taints: alone.then_some([]),
        kubelet_extra_args: node
            .address
            .map(|address| vec![arg("node-ip", address.to_string())])
            .unwrap_or_default(),
        // The machine's size is what its owner asked for.
        ignore_preflight_errors: ["NumCPU", "Mem"],
    }
}

/// Long enough for software emulation: the bound that counts is that of the command that waits.
/// `controlPlaneComponentHealthCheck` also becomes the API server's startup probe, and too short a
/// one has a slow machine restart it for ever.
const TIMEOUTS: Timeouts = Timeouts {
    control_plane_component_health_check: "30m",
    kubelet_health_check: "20m",
    kubernetes_api_call: "10m",
    etcd_api_call: "10m",
    tls_bootstrap: "30m",
    discovery: "30m",
};

const PATCHES: Patches = Patches {
    directory: patches::DIRECTORY,
};

const KUBELET: KubeletConfiguration = KubeletConfiguration {
    api_version: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    cgroup_driver: "systemd",
    container_runtime_endpoint: CRI_SOCKET,
    rotate_certificates: true,
    // Images that came with the node can't always be had again: they are not cleared away to keep
    // a small disk below a percentage.
    image_gc_high_threshold_percent: 100,
    eviction_hard: EvictionHard {
        memory_available: "100Mi",
        nodefs_available: "5%",
        nodefs_inodes_free: "5%",
        imagefs_available: "5%",
    },
};

const KUBE_PROXY: KubeProxyConfiguration = KubeProxyConfiguration {
    api_version: "kubeproxy.config.k8s.io/v1alpha1",
    kind: "KubeProxyConfiguration",
    mode: "nftables",
    // The guest's kernel sizes its own table by its memory.
    conntrack: Conntrack { max_per_core: 0 },
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitConfiguration<'a> {
    api_version: &'a str,
    kind: &'a str,
    bootstrap_tokens: Vec<InitToken<'a>>,
    #[serde(rename = "localAPIEndpoint", skip_serializing_if = "Option::is_none")]
    local_api_endpoint: Option<ApiEndpoint>,
    node_registration: NodeRegistration<'a>,
    patches: Patches,
    timeouts: Timeouts,
}

#[derive(Serialize)]
struct Patches {
    directory: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InitToken<'a> {
    token: &'a str,
    description: &'a str,
    ttl: &'a str,
    usages: [&'a str; 2],
    groups: [&'a str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiEndpoint {
    advertise_address: Ipv4Addr,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRegistration<'a> {
    name: &'a str,
    cri_socket: &'a str,
    /// None: kubeadm's default. Empty: none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    taints: Option<[(); 0]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubelet_extra_args: Vec<Arg>,
    ignore_preflight_errors: [&'a str; 2],
}

#[derive(Clone, Serialize)]
struct Arg {
    name: &'static str,
    value: String,
}

fn arg(name: &'static str, value: impl Into<String>) -> Arg {
    Arg {
        name,
        value: value.into(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Timeouts {
    control_plane_component_health_check: &'static str,
    kubelet_health_check: &'static str,
    #[serde(rename = "kubernetesAPICall")]
    kubernetes_api_call: &'static str,
    #[serde(rename = "etcdAPICall")]
    etcd_api_call: &'static str,
    tls_bootstrap: &'static str,
    discovery: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterConfiguration<'a> {
    api_version: &'a str,
    kind: &'a str,
    cluster_name: &'a str,
    kubernetes_version: String,
    control_plane_endpoint: &'a str,
    encryption_algorithm: &'a str,
    networking: Networking<'a>,
    api_server: ApiServer<'a>,
    controller_manager: Component,
    scheduler: Component,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<Etcd>,
}

#[derive(Serialize)]
struct Etcd {
    local: LocalEtcd,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LocalEtcd {
    extra_args: Vec<Arg>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Networking<'a> {
    pod_subnet: String,
    service_subnet: String,
    dns_domain: &'a str,
}

#[derive(Serialize)]
struct ApiServer<'a> {
    #[serde(rename = "certSANs")]
    cert_sans: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extra_args: Vec<Arg>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JoinConfiguration<'a> {
    api_version: &'a str,
    kind: &'a str,
    discovery: Discovery<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane: Option<JoinControlPlane>,
    node_registration: NodeRegistration<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patches: Option<Patches>,
    timeouts: Timeouts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Discovery<'a> {
    bootstrap_token: DiscoveryToken<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DiscoveryToken<'a> {
    api_server_endpoint: &'a str,
    token: &'a str,
    ca_cert_hashes: [String; 1],
}

#[derive(Serialize)]
struct JoinControlPlane {
    #[serde(rename = "localAPIEndpoint", skip_serializing_if = "Option::is_none")]
    local_api_endpoint: Option<ApiEndpoint>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KubeletConfiguration {
    api_version: &'static str,
    kind: &'static str,
    cgroup_driver: &'static str,
    container_runtime_endpoint: &'static str,
    rotate_certificates: bool,
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: u8,
    eviction_hard: EvictionHard,
}

#[derive(Serialize)]
struct EvictionHard {
    #[serde(rename = "memory.available")]
    memory_available: &'static str,
    #[serde(rename = "nodefs.available")]
    nodefs_available: &'static str,
    #[serde(rename = "nodefs.inodesFree")]
    nodefs_inodes_free: &'static str,
    #[serde(rename = "imagefs.available")]
    imagefs_available: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KubeProxyConfiguration {
    api_version: &'static str,
    kind: &'static str,
    mode: &'static str,
    conntrack: Conntrack,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Conntrack {
    max_per_core: u32,
}

#[cfg(test)]
mod tests;
