//! A persistent machine's disk and the Job that fills it, rendered out of the record; and how far
//! they are, in words. Pure.
//!
//! ```text
//! PersistentVolumeClaim NODE-root   the disk; owned by the record, like everything; when the
//!                                   annotation says so it is whole, and never written to again
//! Job NODE-fill                     runs the root image's own program on it; gone once it is whole
//! ```

use super::api::{PersistentVolumeClaim as Claimed, VirtualMachine, Volume};
use super::objects::{CLUSTER, apart, meta, resources};
use super::watch::trouble_of;
use crate::cluster::name::{ClusterName, NodeName};
use crate::cluster::quantity::Quantity;
use crate::cluster::record::{NodeRecord, Record};
use crate::cluster::spec::{PersistentSpec, Role, VirtinkSpec, VolumeMode};
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Container, Event, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimVolumeSource, Pod, PodSpec, PodTemplateSpec, ResourceRequirements,
    Volume as PodVolume, VolumeDevice, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// On a claim: what filled it, once it is whole.
pub(super) const FILLED: &str = "knest.dev/filled";
/// On a claim that outlived its cluster: the cluster's name.
pub(super) const KEPT: &str = "knest.dev/kept-from";
/// On a pod that fills a disk: the role of the machine that the disk is for. Not the label of
/// machines, by which the API's Service finds them.
const FILLS: &str = "knest.dev/fills";

/// The container that does it.
const FILL: &str = "fill";
const VOLUME: &str = "disk";
/// Where the disk is in the Job's pod; Virtink finds the same file, or the same device.
const DIRECTORY: &str = "/mnt";
const FILE: &str = "/mnt/disk.img";
const DEVICE: &str = "/dev/disk";
/// How often a Job tries where its pods end for no reason that is known.
const TRIES: i32 = 3;
/// The volume's own file system, beside the disk's bytes: one part in so many, and at least so much.
const PART: u64 = 16;
const LEAST: u64 = 64 << 20;
/// What virt-daemon hands out to machines.
const DEVICES: [&str; 2] = ["devices.virtink.io/kvm", "devices.virtink.io/tun"];

/// The name of a node's claim.
pub(super) fn claim_name(node: &NodeName) -> String {
    format!("{node}-root")
}

/// The name of the Job that fills it.
pub(super) fn job_name(node: &NodeName) -> String {
    format!("{node}-fill")
}

/// How large the volume of such a node's disk is at least.
pub(super) fn size(record: &Record, persistent: &PersistentSpec, role: Role) -> Quantity {
    let bytes = record.spec.machine(role).rootfs_size.bytes();
    let bytes = match persistent.volume_mode {
        VolumeMode::Block => bytes,
        VolumeMode::Filesystem => bytes + (bytes / PART).max(LEAST),
    };
    Quantity::mib(bytes.div_ceil(1 << 20))
}

/// A node's claim.
pub(super) fn claim(
    record: &Record,
    virtink: &VirtinkSpec,
    persistent: &PersistentSpec,
    node: &NodeRecord,
    owner: &OwnerReference,
) -> PersistentVolumeClaim {
    let cluster = &record.spec.name;
    let size = size(record, persistent, node.role);
    let name = claim_name(&node.name);
    PersistentVolumeClaim {
        metadata: meta(name, &virtink.namespace, cluster, None, Some(owner)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![persistent.access_mode.to_string()]),
            storage_class_name: persistent.storage_class.clone(),
            volume_mode: Some(persistent.volume_mode.to_string()),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".into(),
                    Amount(size.to_string()),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// What makes a claim its node's disk no more but its user's.
pub(super) fn kept(cluster: &ClusterName) -> serde_json::Value {
    serde_json::json!({"metadata": {
        "ownerReferences": null,
        "labels": {CLUSTER: null, KEPT: cluster},
    }})
}

/// The Job that fills a node's disk. A volume may be made where its first pod runs and stay there,
/// so this one asks for all that the machine will need, and keeps as far from its like.
pub(super) fn fill(
    record: &Record,
    virtink: &VirtinkSpec,
    persistent: &PersistentSpec,
    node: &NodeRecord,
    owner: &OwnerReference,
) -> Job {
    let cluster = &record.spec.name;
    let spec = record.spec.machine(node.role);
    let bytes = spec.rootfs_size.bytes().to_string();
    let path = match persistent.volume_mode {
        VolumeMode::Filesystem => FILE,
        VolumeMode::Block => DEVICE,
    };
    let block = persistent.volume_mode == VolumeMode::Block;
    let mut container = Container {
        name: FILL.into(),
        image: Some(spec.rootfs_image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(vec![path.into(), bytes]),
        resources: Some(with_devices(resources(spec, true))),
        // Why it failed is then in the pod's status.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    };
    if block {
        container.volume_devices = Some(vec![VolumeDevice {
            name: VOLUME.into(),
            device_path: DEVICE.into(),
        }]);
    } else {
        container.volume_mounts = Some(vec![VolumeMount {
            name: VOLUME.into(),
            mount_path: DIRECTORY.into(),
            ..VolumeMount::default()
        }]);
    }
    let selector = &virtink.node_selector;
    let pod = PodSpec {
        restart_policy: Some("Never".into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        node_selector: (!selector.is_empty()).then(|| selector.clone()),
        affinity: Some(apart(&labels(cluster, node.role))),
        containers: vec![container],
        volumes: Some(vec![PodVolume {
            name: VOLUME.into(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(&node.name),
                read_only: None,
            }),
            ..PodVolume::default()
        }]),
        ..PodSpec::default()
    };
    let name = job_name(&node.name);
    let labels = labels(cluster, node.role);
    Job {
        metadata: meta(name, &virtink.namespace, cluster, None, Some(owner)),
        spec: Some(JobSpec {
            backoff_limit: Some(TRIES),
            pod_failure_policy: Some(failures()),
            // Never two that write.
            pod_replacement_policy: Some("Failed".into()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// A pod that its host has taken away is no failure. A program that says no will say so again: that
/// is told at once, not after ever longer pauses.
fn failures() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".into(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".into(),
                    status: Some("True".into()),
                }]),
                on_exit_codes: None,
            },
            PodFailurePolicyRule {
                action: "FailJob".into(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(FILL.into()),
                    operator: "NotIn".into(),
                    values: vec![0],
                }),
                on_pod_conditions: None,
            },
        ],
    }
}

/// The disk as the machine's root volume.
pub(super) fn volume(node: &NodeName) -> Volume {
    Volume {
        persistent_volume_claim: Some(Claimed {
            claim_name: claim_name(node),
            hotpluggable: None,
        }),
        ..Volume::default()
    }
}

/// Whether a machine that is off has its disk still: one that is being deleted is given up.
pub(super) fn stays(vm: &VirtualMachine) -> bool {
    let mut volumes = vm.spec.volumes.iter().flatten();
    let claimed = volumes.any(|volume| volume.persistent_volume_claim.is_some());
    claimed && vm.metadata.deletion_timestamp.is_none()
}

fn labels(cluster: &ClusterName, role: Role) -> BTreeMap<String, String> {
    BTreeMap::from([
        (CLUSTER.to_owned(), cluster.to_string()),
        (FILLS.to_owned(), role.to_string()),
    ])
}

fn with_devices(mut resources: ResourceRequirements) -> ResourceRequirements {
    for list in [&mut resources.requests, &mut resources.limits] {
        let list = list.get_or_insert_default();
        list.extend(DEVICES.map(|device| (device.to_owned(), Amount("1".into()))));
    }
    resources
}

/// How far a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All of it is there.
    Whole,
    /// On its way, and for what it waits.
    Waits(String),
    /// The same, but something is wrong that may pass by itself or not.
    Troubled(String),
    /// The Job gave up, and why.
    Failed(String),
}

/// What a host shows of one disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight<'a> {
    pub(super) claim: Option<&'a PersistentVolumeClaim>,
    pub(super) job: Option<&'a Job>,
    pub(super) pods: Vec<&'a Pod>,
    /// What was complained of the claim or its pods, oldest first.
    pub(super) events: Vec<&'a Event>,
}

impl Sight<'_> {
    /// How far the disk of `owner`'s cluster is.
    pub(super) fn progress(&self, owner: &OwnerReference) -> Progress {
        let Some(claim) = self.claim else {
            return Progress::Waits("no claim yet".into());
        };
        if !ours(claim, owner) {
            return Progress::Waits("the disk of an earlier cluster is being removed".into());
        }
        if claim.annotations().contains_key(FILLED) || self.job("Complete").is_some() {
            return Progress::Whole;
        }
        let pods = self.pods.iter();
        let pod = pods.max_by_key(|p| p.metadata.creation_timestamp.clone());
        let trouble = pod.and_then(|pod| trouble_of(pod));
        if let Some(said) = self.job("Failed") {
            return Progress::Failed(trouble.unwrap_or(said));
        }
        let phase = |status: Option<&String>, wanted: &str| status.is_some_and(|p| p == wanted);
        let unbound = phase(
            claim.status.as_ref().and_then(|s| s.phase.as_ref()),
            "Pending",
        );
        let pod_phase = pod.and_then(|p| p.status.as_ref()?.phase.as_ref());
        if phase(pod_phase, "Running") {
            return Progress::Waits("it is being filled".into());
        }
        if let Some(said) = self.said(unbound.then_some(claim), pod.copied()) {
            return Progress::Troubled(said);
        }
        match (trouble, pod) {
            (Some(trouble), _) => Progress::Troubled(trouble),
            (None, Some(_)) => Progress::Waits("its pod is about to start".into()),
            (None, None) => Progress::Waits("no pod yet".into()),
        }
    }

    /// The message of a condition of the Job that holds.
    fn job(&self, kind: &str) -> Option<String> {
        let conditions = self.job?.status.as_ref()?.conditions.as_ref()?;
        let holds = conditions
            .iter()
            .find(|c| c.type_ == kind && c.status == "True")?;
        Some(holds.message.clone().unwrap_or_default())
    }

    /// The latest complaint of the claim or the pod.
    fn said(&self, claim: Option<&PersistentVolumeClaim>, pod: Option<&Pod>) -> Option<String> {
        let uids = [claim.and_then(|c| c.uid()), pod.and_then(|p| p.uid())];
        let about = |event: &&&Event| {
            let uid = event.involved_object.uid.as_ref();
            uid.is_some_and(|uid| uids.iter().flatten().any(|u| u == uid)) && complains(event)
        };
        let event = self.events.iter().rev().find(about)?;
        let reason = event.reason.as_deref().unwrap_or("a warning");
        let message = event.message.as_deref().unwrap_or_default();
        Some(format!("{reason}: {}", message.trim()))
    }
}

/// Whether a claim is this record's, not one that goes with a record that is gone.
pub(super) fn ours(claim: &PersistentVolumeClaim, owner: &OwnerReference) -> bool {
    let owners = claim.owner_references();
    claim.metadata.deletion_timestamp.is_none() && owners.iter().any(|o| o.uid == owner.uid)
}

/// That nothing binds a claim is no warning to Kubernetes.
fn complains(event: &Event) -> bool {
    event.type_.as_deref() == Some("Warning") || event.reason.as_deref() == Some("FailedBinding")
}

#[cfg(test)]
mod tests;
