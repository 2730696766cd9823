//! Virtink's VirtualMachine, v1alpha1, as v0.15 to v0.17 serve it: every field, so that the schema
//! that follows from these types is Virtink's own. Knows no cluster of knest's.

use k8s_openapi::api::core::v1::{Affinity, Probe, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The API group whose presence makes a Kubernetes cluster a host.
pub(crate) const GROUP: &str = "virt.virtink.smartx.com";

/// What a VirtualMachine should be. Of it only `runPolicy`, `volumes` and `instance.disks` may be
/// changed later.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "virt.virtink.smartx.com",
    version = "v1alpha1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    shortname = "vm",
    namespaced,
    status = "VirtualMachineStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".status.nodeName"}"#
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VirtualMachineSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run_policy: Option<RunPolicy>,
    /// Of the pod. Not filled in: without them it is a BestEffort one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<ResourceRequirements>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) affinity: Option<Affinity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node_selector: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tolerations: Option<Vec<Toleration>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) liveness_probe: Option<Probe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) readiness_probe: Option<Probe>,
    pub(crate) instance: Instance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) volumes: Option<Vec<Volume>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) networks: Option<Vec<Network>>,
}

/// When a machine whose pod ended gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum RunPolicy {
    Always,
    RerunOnFailure,
    Once,
    Manual,
    Halted,
}

/// The machine itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Instance {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<Cpu>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<Kernel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disks: Option<Vec<Disk>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file_systems: Option<Vec<FileSystem>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interfaces: Option<Vec<Interface>>,
}

/// Virtual CPUs: sockets times cores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cpu {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sockets: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cores_per_socket: Option<i32>,
    #[serde(
        default,
        rename = "dedicatedCPUPlacement",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) dedicated_cpu_placement: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<Quantity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hugepages: Option<Hugepages>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hugepages {
    #[serde(default)]
    pub(crate) page_size: PageSize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum PageSize {
    #[serde(rename = "2Mi")]
    Small,
    #[default]
    #[serde(rename = "1Gi")]
    Large,
}

/// A kernel out of an image whose entrypoint copies it to its first argument.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kernel {
    pub(crate) image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image_pull_policy: Option<String>,
    pub(crate) cmdline: String,
}

/// A volume that the machine sees as a disk, in this order from `/dev/vda` on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Disk {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read_only: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FileSystem {
    pub(crate) name: String,
}

/// One of bridge, masquerade, sriov, vdpa and vhostUser.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bridge: Option<Empty>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) masquerade: Option<Masquerade>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sriov: Option<Empty>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vdpa: Option<Vdpa>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vhost_user: Option<Empty>,
}

/// `{}`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Masquerade {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cidr: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Vdpa {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) num_queues: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) iommu: Option<bool>,
}

/// One of the sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) container_disk: Option<ContainerDisk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) container_rootfs: Option<ContainerRootfs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cloud_init: Option<CloudInit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) persistent_volume_claim: Option<PersistentVolumeClaim>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_volume: Option<DataVolume>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerDisk {
    pub(crate) image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image_pull_policy: Option<String>,
}

/// A root file system out of an image whose entrypoint writes a disk of the second argument's
/// bytes to its first argument: gone with the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRootfs {
    pub(crate) image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image_pull_policy: Option<String>,
    pub(crate) size: Quantity,
}

/// The seed volume. What is given inline ends as a container's arguments; the key in a user-data
/// Secret is `value`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CloudInit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_data_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_data_secret_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network_data_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network_data_secret_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PersistentVolumeClaim {
    pub(crate) claim_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hotpluggable: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DataVolume {
    pub(crate) volume_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hotpluggable: Option<bool>,
}

/// `pod` or `multus`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Network {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Empty>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) multus: Option<Multus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Multus {
    pub(crate) network_name: String,
}

/// What Virtink's controllers found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VirtualMachineStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<Phase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vm_pod_name: Option<String>,
    #[serde(default, rename = "vmPodUID", skip_serializing_if = "Option::is_none")]
    pub(crate) vm_pod_uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node_name: Option<String>,
    /// Written by whoever wants something done, on the status subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) power_action: Option<PowerAction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) conditions: Option<Vec<Condition>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) volume_status: Option<Vec<VolumeStatus>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) migration: Option<Migration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Phase {
    Pending,
    Scheduling,
    Scheduled,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum PowerAction {
    PowerOn,
    PowerOff,
    Shutdown,
    Reset,
    Reboot,
    Pause,
    Resume,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeStatus {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hotplug_volume: Option<HotplugVolume>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HotplugVolume {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) volume_pod_name: Option<String>,
    #[serde(
        default,
        rename = "volumePodUID",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) volume_pod_uid: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Migration {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<MigrationPhase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target_node_name: Option<String>,
    #[serde(
        default,
        rename = "targetNodeIP",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) target_node_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target_node_port: Option<i64>,
    #[serde(
        default,
        rename = "targetVMPodName",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) target_vm_pod_name: Option<String>,
    #[serde(
        default,
        rename = "targetVMPodUID",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) target_vm_pod_uid: Option<String>,
    #[serde(
        default,
        rename = "targetVolumePodUID",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) target_volume_pod_uid: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum MigrationPhase {
    Pending,
    Scheduling,
    Scheduled,
    TargetReady,
    Running,
    Sent,
    Succeeded,
    Failed,
}

#[cfg(test)]
mod tests;
