//! The objects that a cluster consists of on its host, rendered out of the record. Pure.
//!
//! ```text
//! Secret knest-NAME             the record; owner of everything below, so that its end is theirs
//! Service knest-NAME            the API's address
//! PersistentVolumeClaim, Job    a persistent node's disk: see `disk`
//! Secret NODE-user-data         a node's script
//! VirtualMachine NODE           a node
//! Lease knest-NAME              held while a command works on the cluster
//! ```

use super::api::{
    CloudInit, ContainerRootfs, Cpu, Disk, Empty, Instance, Interface, Kernel, Memory, Network,
    RunPolicy, VirtualMachine, VirtualMachineSpec, Volume,
};
use super::{cni, disk};
use crate::cluster::name::{ClusterName, NodeName};
use crate::cluster::quantity::Quantity;
use crate::cluster::record::{NodeRecord, Record};
use crate::cluster::spec::{Expose, MachineSpec, Role, VirtinkSpec};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    Affinity, HTTPGetAction, PodAffinityTerm, PodAntiAffinity, Probe, ResourceRequirements, Secret,
    Service, ServicePort, ServiceSpec, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// On everything that belongs to a cluster: its name.
pub(super) const CLUSTER: &str = "knest.dev/cluster";
/// On machines and their Secrets: `control-plane` or `worker`.
pub(super) const ROLE: &str = "knest.dev/role";
/// A record's Secret is of this type, by which all of them are found.
pub(super) const RECORD_TYPE: &str = "knest.dev/record";
/// The record's key in its Secret.
pub(super) const RECORD_KEY: &str = "record";
/// On a record's Secret: the addresses that its nodes have, comma-separated, for other clusters to
/// see without reading the record.
pub(super) const ADDRESSES: &str = "knest.dev/addresses";
/// The one key that Virtink reads in a user-data Secret.
pub(super) const USER_DATA_KEY: &str = "value";
/// The API's port, on the machines and on the Service.
pub(super) const API_PORT: u16 = 6443;
/// What is left of a script once its node has booted for good.
const SEALED: &str = "#!/bin/sh\n# This machine is a node already.\n";

/// Beside a machine's memory: the VMM and its helpers, and for each processor and each byte what
/// the VMM and the kernel keep about them.
const OVERHEAD: u64 = 256 << 20;
const OVERHEAD_PER_CPU: u64 = 8 << 20;
const MEMORY_PER_OVERHEAD: u64 = 512;

/// What a virtual processor asks of a host's, which it shares.
const MILLICPU_PER_CPU: u32 = 500;

const ROOT: &str = "root";
const SEED: &str = "seed";
const POD: &str = "pod";
const CMDLINE: &str = "console=ttyS0 root=/dev/vda rw quiet";

/// The name of what a cluster has one of.
pub(super) fn name_of(cluster: &ClusterName) -> String {
    format!("knest-{cluster}")
}

/// The name of a node's user-data Secret.
pub(super) fn user_data_name(node: &NodeName) -> String {
    format!("{node}-user-data")
}

/// Finds all that belongs to a cluster.
pub(super) fn selector(cluster: &ClusterName) -> String {
    format!("{CLUSTER}={cluster}")
}

fn labels(cluster: &ClusterName, role: Option<Role>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (CLUSTER.to_owned(), cluster.to_string()),
        (
            "app.kubernetes.io/managed-by".to_owned(),
            "knest".to_owned(),
        ),
    ]);
    if let Some(role) = role {
        labels.insert(ROLE.to_owned(), role.to_string());
    }
    labels
}

/// Metadata of an object of a cluster.
pub(super) fn meta(
    name: String,
    namespace: &str,
    cluster: &ClusterName,
    role: Option<Role>,
    owner: Option<&OwnerReference>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels(cluster, role)),
        owner_references: owner.map(|o| vec![o.clone()]),
        ..ObjectMeta::default()
    }
}

/// A reference to the record's Secret, of this UID, as the owner of all else.
pub(super) fn owner(cluster: &ClusterName, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Secret".into(),
        name: name_of(cluster),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

/// The record's Secret. Secret.
pub(super) fn record_secret(record: &Record, namespace: &str, text: Vec<u8>) -> Secret {
    let cluster = &record.spec.name;
    let taken = record.nodes.iter().filter_map(|n| n.address);
    let taken: Vec<String> = taken.map(|a| a.to_string()).collect();
    Secret {
        metadata: ObjectMeta {
            annotations: (!taken.is_empty())
                .then(|| BTreeMap::from([(ADDRESSES.into(), taken.join(","))])),
            ..meta(name_of(cluster), namespace, cluster, None, None)
        },
        type_: Some(RECORD_TYPE.into()),
        data: Some(BTreeMap::from([(RECORD_KEY.into(), ByteString(text))])),
        ..Secret::default()
    }
}

/// A node's script, or what is left of it. Secret.
pub(super) fn user_data(
    record: &Record,
    namespace: &str,
    node: &NodeRecord,
    script: Option<&str>,
    owner: &OwnerReference,
) -> Secret {
    let name = user_data_name(&node.name);
    let cluster = &record.spec.name;
    let text = script.unwrap_or(SEALED).as_bytes().to_vec();
    Secret {
        metadata: meta(name, namespace, cluster, Some(node.role), Some(owner)),
        data: Some(BTreeMap::from([(USER_DATA_KEY.into(), ByteString(text))])),
        ..Secret::default()
    }
}

/// The API's Service: its cluster address is what nodes use.
pub(super) fn endpoint(
    cluster: &ClusterName,
    namespace: &str,
    expose: Expose,
    owner: &OwnerReference,
) -> Service {
    let kind = match expose {
        Expose::LoadBalancer => "LoadBalancer",
        Expose::Auto | Expose::NodePort => "NodePort",
    };
    let port = i32::from(API_PORT);
    Service {
        metadata: meta(name_of(cluster), namespace, cluster, None, Some(owner)),
        spec: Some(ServiceSpec {
            type_: Some(kind.into()),
            selector: Some(machine_labels(cluster, Role::ControlPlane)),
            ports: Some(vec![ServicePort {
                name: Some("api".into()),
                port,
                target_port: Some(IntOrString::Int(port)),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The labels by which machines of a role are told from others; Virtink gives them to their pods.
fn machine_labels(cluster: &ClusterName, role: Role) -> BTreeMap<String, String> {
    BTreeMap::from([
        (CLUSTER.to_owned(), cluster.to_string()),
        (ROLE.to_owned(), role.to_string()),
    ])
}

/// A node's machine. An ephemeral one runs once, since its disk is gone with its pod, and what its
/// user-data holds is worth nothing by then; a persistent one runs again wherever its pod ends.
pub(super) fn machine(
    record: &Record,
    virtink: &VirtinkSpec,
    node: &NodeRecord,
    owner: &OwnerReference,
) -> VirtualMachine {
    let cluster = &record.spec.name;
    let spec = record.spec.machine(node.role);
    let pull = Some("IfNotPresent".to_owned());
    let volume = |name: &str| Volume {
        name: name.into(),
        ..Volume::default()
    };
    let disk = |name: &str| Disk {
        name: name.into(),
        read_only: None,
    };
    let selector = &virtink.node_selector;
    let persistent = virtink.persistent.as_ref();
    let (run_policy, root) = match persistent {
        Some(_) => (RunPolicy::Always, disk::volume(&node.name)),
        None => {
            let rootfs = ContainerRootfs {
                image: spec.rootfs_image.clone(),
                image_pull_policy: pull.clone(),
                size: Amount(spec.rootfs_size.to_string()),
            };
            let volume = Volume {
                container_rootfs: Some(rootfs),
                ..Volume::default()
            };
            (RunPolicy::Once, volume)
        }
    };
    let annotations = persistent
        .zip(node.address)
        .map(|(p, address)| cni::of(p.host_cni).annotations(address, &node.mac));
    VirtualMachine {
        metadata: ObjectMeta {
            annotations,
            ..meta(
                node.name.to_string(),
                &virtink.namespace,
                cluster,
                Some(node.role),
                Some(owner),
            )
        },
        spec: VirtualMachineSpec {
            run_policy: Some(run_policy),
            resources: Some(resources(spec, persistent.is_some())),
            affinity: Some(apart(&machine_labels(cluster, node.role))),
            node_selector: (!selector.is_empty()).then(|| selector.clone()),
            readiness_probe: (node.role == Role::ControlPlane).then(serving),
            instance: Instance {
                cpu: Some(Cpu {
                    sockets: Some(1),
                    cores_per_socket: Some(i32::try_from(spec.cpu_cores).unwrap_or(i32::MAX)),
                    dedicated_cpu_placement: None,
                }),
                memory: Some(Memory {
                    size: Some(Amount(spec.memory.to_string())),
                    hugepages: None,
                }),
                kernel: Some(Kernel {
                    image: spec.kernel_image.clone(),
                    image_pull_policy: pull.clone(),
                    cmdline: CMDLINE.into(),
                }),
                disks: Some(vec![disk(ROOT), disk(SEED)]),
                interfaces: Some(vec![Interface {
                    name: POD.into(),
                    bridge: Some(Empty {}),
                    ..Interface::default()
                }]),
                ..Instance::default()
            },
            volumes: Some(vec![
                Volume {
                    name: ROOT.into(),
                    ..root
                },
                Volume {
                    cloud_init: Some(CloudInit {
                        user_data_secret_name: Some(user_data_name(&node.name)),
                        ..CloudInit::default()
                    }),
                    ..volume(SEED)
                },
            ]),
            networks: Some(vec![Network {
                name: POD.into(),
                pod: Some(Empty {}),
                multus: None,
            }]),
            ..VirtualMachineSpec::default()
        },
        status: None,
    }
}

/// What a machine asks of its host, and is held to. A persistent one's disk is not the host's.
pub(super) fn resources(spec: &MachineSpec, persistent: bool) -> ResourceRequirements {
    let memory = Amount(Quantity::mib(memory(spec).div_ceil(1 << 20)).to_string());
    let cpu = Amount(format!("{}m", millicpu(spec)));
    let mut requests = BTreeMap::from([("cpu".into(), cpu), ("memory".into(), memory.clone())]);
    if !persistent {
        let disk = Amount(spec.rootfs_size.to_string());
        requests.insert("ephemeral-storage".into(), disk);
    }
    ResourceRequirements {
        requests: Some(requests),
        limits: Some(BTreeMap::from([("memory".into(), memory)])),
        ..ResourceRequirements::default()
    }
}

/// Bytes of a machine's pod.
pub(super) fn memory(spec: &MachineSpec) -> u64 {
    let bytes = spec.memory.bytes();
    bytes + OVERHEAD + OVERHEAD_PER_CPU * u64::from(spec.cpu_cores) + bytes / MEMORY_PER_OVERHEAD
}

/// Thousandths of a processor that a machine's pod asks for.
pub(super) fn millicpu(spec: &MachineSpec) -> u32 {
    spec.cpu_cores * MILLICPU_PER_CPU
}

/// On hosts of their own where that can be, in zones of their own before that is given up.
pub(super) fn apart(labels: &BTreeMap<String, String>) -> Affinity {
    let term = |weight, key: &str| WeightedPodAffinityTerm {
        weight,
        pod_affinity_term: PodAffinityTerm {
            topology_key: key.into(),
            label_selector: Some(LabelSelector {
                match_labels: Some(labels.clone()),
                ..LabelSelector::default()
            }),
            ..PodAffinityTerm::default()
        },
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                term(100, "kubernetes.io/hostname"),
                term(50, "topology.kubernetes.io/zone"),
            ]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// The Service leaves out a control plane whose API does not call itself ready. No liveness probe:
/// it would end a machine, and its disk with it, for being slow.
fn serving() -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/readyz".into()),
            port: IntOrString::Int(i32::from(API_PORT)),
            scheme: Some("HTTPS".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(3),
        timeout_seconds: Some(5),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;
    use crate::cluster::pool::{Pool, release};
    use crate::cluster::spec::{AccessMode, HostCni, PersistentSpec, ProviderSpec, VolumeMode};
    use std::collections::BTreeSet;

    fn cluster() -> (Record, VirtinkSpec, OwnerReference) {
        let mut record = fixture::record(1, 1);
        let virtink = VirtinkSpec {
            namespace: "clusters".into(),
            expose: Expose::Auto,
            node_selector: BTreeMap::from([("disk".into(), "fast".into())]),
            persistent: None,
        };
        record.nodes.iter_mut().for_each(release);
        record.spec.provider = ProviderSpec::Virtink(virtink.clone());
        let owner = owner(&record.spec.name, "11111111-2222-3333-4444-555555555555");
        (record, virtink, owner)
    }

    #[test]
    fn machines() {
        let (record, virtink, owner) = cluster();
        for role in [Role::ControlPlane, Role::Worker] {
            let node = fixture::first(&record, role);
            let yaml = serde_yaml_ng::to_string(&machine(&record, &virtink, node, &owner)).unwrap();
            insta::assert_snapshot!(format!("machine_{role}"), yaml);
        }
    }

    #[test]
    fn a_persistent_machine_has_its_own_disk_and_address() {
        let (mut record, mut virtink, owner) = cluster();
        virtink.persistent = Some(PersistentSpec {
            host_cni: HostCni::Calico,
            addresses: "172.30.0.10-172.30.0.20".parse().unwrap(),
            storage_class: None,
            access_mode: AccessMode::ReadWriteOnce,
            volume_mode: VolumeMode::Filesystem,
        });
        let pool: Pool = "172.30.0.10-172.30.0.20".parse().unwrap();
        pool.assign(&mut record.nodes, &BTreeSet::new()).unwrap();
        let node = fixture::first(&record, Role::Worker);
        let machine = machine(&record, &virtink, node, &owner);
        let secret = record_secret(&record, &virtink.namespace, vec![]);
        let yaml = [
            serde_yaml_ng::to_string(&machine.metadata.annotations).unwrap(),
            serde_yaml_ng::to_string(&machine.spec.volumes).unwrap(),
            serde_yaml_ng::to_string(&secret.metadata.annotations).unwrap(),
        ];
        insta::assert_snapshot!("persistent", yaml.join("---\n"));
        assert_eq!(machine.spec.run_policy, Some(RunPolicy::Always));
        let requests = machine.spec.resources.unwrap().requests.unwrap();
        assert!(!requests.contains_key("ephemeral-storage"));
    }

    #[test]
    fn the_rest() {
        let (record, virtink, owner) = cluster();
        let name = &record.spec.name;
        let node = fixture::first(&record, Role::Worker);
        let yaml = |object: &dyn erased::Yaml| object.yaml();
        let service = endpoint(name, &virtink.namespace, virtink.expose, &owner);
        let secret = record_secret(&record, &virtink.namespace, b"{}".to_vec());
        let script = user_data(&record, &virtink.namespace, node, Some("true\n"), &owner);
        insta::assert_snapshot!(
            "the_rest",
            [yaml(&service), yaml(&secret), yaml(&script)].join("---\n")
        );
    }

    mod erased {
        /// Objects of several types as one text.
        pub(super) trait Yaml {
            fn yaml(&self) -> String;
        }
        impl<T: serde::Serialize> Yaml for T {
            fn yaml(&self) -> String {
                serde_yaml_ng::to_string(self).unwrap()
            }
        }
    }

    #[test]
    fn a_sealed_script_does_nothing_and_tells_nothing() {
        let (record, virtink, owner) = cluster();
        let node = fixture::first(&record, Role::Worker);
        let sealed = user_data(&record, &virtink.namespace, node, None, &owner);
        let data = sealed.data.unwrap();
        assert_eq!(data[USER_DATA_KEY].0, SEALED.as_bytes());
    }

    #[test]
    fn nothing_secret_is_in_a_machine() {
        let (record, virtink, owner) = cluster();
        let node = fixture::first(&record, Role::ControlPlane);
        let text = serde_json::to_string(&machine(&record, &virtink, node, &owner)).unwrap();
        let token = record.bootstrap_token.unwrap().value;
        assert!(!text.contains(&token) && !text.contains("PRIVATE KEY"));
    }
}
