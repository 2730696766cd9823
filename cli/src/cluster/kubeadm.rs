//! What kubeadm is told: its v1beta4 documents, with those of kubelet and kube-proxy, for a node's
//! first boot. Pure rendering; knows no provider beyond the addresses in the record.
//!
//! ```text
//! first control plane   InitConfiguration + ClusterConfiguration
//!                       + KubeletConfiguration + KubeProxyConfiguration
//! every other node      JoinConfiguration (the rest it fetches from the cluster)
//! ```

use super::record::{BootstrapToken, Endpoint, NodeRecord, Record};
use super::spec::Role;
use crate::failure::{Failure, Result};
use serde::Serialize;
use std::net::Ipv4Addr;

const KUBEADM: &str = "kubeadm.k8s.io/v1beta4";
const CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// Whether the controller manager and the scheduler elect leaders. With a single control plane
/// there is nobody to lose against, and on a slow machine the lease's upkeep alone, when it comes
/// late, restarts both for ever. With more it is what keeps two from acting at once: whoever adds
/// control planes to a cluster of one has to turn it on there first.
pub(crate) fn elects_leaders(control_planes: u32) -> bool {
    control_planes != 1
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
        timeouts: TIMEOUTS,
    };
    let election = if elects_leaders(record.spec.control_plane.count) {
        vec![]
    } else {
        vec![Arg {
            name: "leader-elect",
            value: "false".into(),
        }]
    };
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
            extra_args: election.clone(),
        },
        scheduler: Component {
            extra_args: election,
        },
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
            .map(|address| {
                vec![Arg {
                    name: "node-ip",
                    value: address.to_string(),
                }]
            })
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
    timeouts: Timeouts,
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
mod tests {
    use super::*;
    use crate::cluster::fixture;
    use serde::Deserialize;
    use serde_yaml_ng::Value;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    fn parse(text: &str) -> Vec<Value> {
        serde_yaml_ng::Deserializer::from_str(text)
            .map(|document| Value::deserialize(document).unwrap())
            .collect()
    }

    #[test]
    fn init_of_one() {
        let record = fixture::record(1, 1);
        let node = fixture::first(&record, Role::ControlPlane);
        insta::assert_snapshot!(init_documents(&record, node, &fixture::token()).unwrap());
    }

    #[test]
    fn join_of_a_worker() {
        let record = fixture::record(1, 1);
        let node = fixture::first(&record, Role::Worker);
        insta::assert_snapshot!(join_documents(&record, node, &fixture::token()).unwrap());
    }

    #[test]
    fn join_of_a_control_plane() {
        let record = fixture::record(3, 0);
        let node = record.nodes.last().unwrap();
        insta::assert_snapshot!(join_documents(&record, node, &fixture::token()).unwrap());
    }

    #[test]
    fn leaders_are_elected_where_there_are_several() {
        for (control_planes, elects) in [(1, false), (3, true)] {
            let record = fixture::record(control_planes, 0);
            let text = init_documents(&record, &record.nodes[0], &fixture::token()).unwrap();
            let cluster = &parse(&text)[1];
            for component in ["controllerManager", "scheduler"] {
                assert_eq!(
                    cluster[component]["extraArgs"].is_null(),
                    elects,
                    "{cluster:?}"
                );
            }
        }
    }

    #[test]
    fn only_a_control_plane_without_workers_is_not_tainted() {
        for (workers, taints) in [(0, Value::Sequence(vec![])), (1, Value::Null)] {
            let record = fixture::record(1, workers);
            let text = init_documents(&record, &record.nodes[0], &fixture::token()).unwrap();
            assert_eq!(parse(&text)[0]["nodeRegistration"]["taints"], taints);
        }
    }

    #[test]
    fn an_address_not_yet_known_is_left_to_kubeadm() {
        let mut record = fixture::record(1, 1);
        for node in &mut record.nodes {
            node.address = None;
        }
        let [control_plane, worker] = &record.nodes[..] else {
            panic!("{record:?}")
        };
        let init = init_documents(&record, control_plane, &fixture::token()).unwrap();
        let join = join_documents(&record, worker, &fixture::token()).unwrap();
        assert!(
            !init.contains("localAPIEndpoint") && !init.contains("node-ip"),
            "{init}"
        );
        assert!(!join.contains("node-ip"), "{join}");
    }

    #[test]
    fn an_incomplete_record_is_a_defect() {
        let mut record = fixture::record(1, 0);
        record.endpoint = None;
        let node = record.nodes[0].clone();
        for result in [
            init_documents(&record, &node, &fixture::token()),
            join_documents(&record, &node, &fixture::token()),
        ] {
            assert_eq!(
                result.unwrap_err().to_string(),
                "the record has no endpoint yet"
            );
        }
    }

    proptest::proptest! {
        /// YAML takes some tokens for numbers.
        #[test]
        fn a_token_stays_text(value in "[0-9e]{6}\\.[0-9e]{16}") {
            let record = fixture::record(1, 0);
            let token = BootstrapToken { value: value.clone(), ..fixture::token() };
            let text = init_documents(&record, &record.nodes[0], &token).unwrap();
            let read = &parse(&text)[0]["bootstrapTokens"][0]["token"];
            proptest::prop_assert_eq!(read.as_str(), Some(value.as_str()));
        }
    }

    /// `$KNEST_KUBEADM`, else the first on `PATH`.
    fn kubeadm() -> Option<PathBuf> {
        let named = std::env::var_os("KNEST_KUBEADM").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        named.or_else(|| {
            std::env::split_paths(&path)
                .map(|dir| dir.join("kubeadm"))
                .find(|file| file.is_file())
        })
    }

    /// `Err` with what it said.
    fn validate(kubeadm: &Path, text: &str) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeadm.yaml");
        fs_err::write(&file, text).unwrap();
        let mut command = Command::new(kubeadm);
        command.args(["config", "validate", "--config"]).arg(&file);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(said)
        }
    }

    #[test]
    fn kubeadm_itself_agrees() {
        let Some(kubeadm) = kubeadm() else {
            eprintln!("skipped: no kubeadm ($KNEST_KUBEADM or PATH)");
            return;
        };
        for (control_planes, workers) in [(1, 0), (1, 1), (3, 2)] {
            let record = fixture::record(control_planes, workers);
            let [first, others @ ..] = &record.nodes[..] else {
                panic!("{record:?}")
            };
            let init = init_documents(&record, first, &fixture::token()).unwrap();
            assert_eq!(validate(&kubeadm, &init), Ok(()));
            for node in others {
                let join = join_documents(&record, node, &fixture::token()).unwrap();
                assert_eq!(validate(&kubeadm, &join), Ok(()));
            }
            // It is strict, about the kubelet's document as well.
            let misspelt = init.replace("cgroupDriver", "cgroupDrive");
            assert!(validate(&kubeadm, &misspelt).is_err_and(|e| e.contains("cgroupDrive")));
        }
    }
}
