//! What is asked of the host for a disk, and what its answers mean.

use super::*;
use crate::cluster::fixture;
use crate::cluster::spec::{AccessMode, Expose, HostCni, ProviderSpec};
use serde_json::{Value, json};

fn cluster(volume_mode: VolumeMode) -> (Record, VirtinkSpec, PersistentSpec, OwnerReference) {
    let mut record = fixture::record(1, 0);
    let persistent = PersistentSpec {
        host_cni: HostCni::Calico,
        addresses: "172.30.0.10-172.30.0.20".parse().unwrap(),
        storage_class: Some("fast".into()),
        access_mode: AccessMode::ReadWriteOnce,
        volume_mode,
    };
    let virtink = VirtinkSpec {
        namespace: "clusters".into(),
        expose: Expose::Auto,
        node_selector: BTreeMap::from([("disk".into(), "fast".into())]),
        persistent: Some(persistent.clone()),
    };
    record.spec.provider = ProviderSpec::Virtink(virtink.clone());
    let owner = crate::provider::virtink::objects::owner(&record.spec.name, "the-uid");
    (record, virtink, persistent, owner)
}

#[test]
fn a_claim_and_its_job() {
    let (record, virtink, persistent, owner) = cluster(VolumeMode::Filesystem);
    let node = fixture::first(&record, Role::ControlPlane);
    let claim = claim(&record, &virtink, &persistent, node, &owner);
    let job = fill(&record, &virtink, &persistent, node, &owner);
    let yaml = [
        serde_yaml_ng::to_string(&claim).unwrap(),
        serde_yaml_ng::to_string(&job).unwrap(),
    ];
    insta::assert_snapshot!("claim_and_job", yaml.join("---\n"));
}

#[test]
fn a_device_is_filled_as_a_whole() {
    let (record, virtink, persistent, owner) = cluster(VolumeMode::Block);
    let node = fixture::first(&record, Role::ControlPlane);
    let claim = claim(&record, &virtink, &persistent, node, &owner)
        .spec
        .unwrap();
    assert_eq!(claim.volume_mode.as_deref(), Some("Block"));
    assert_eq!(
        claim.resources.unwrap().requests.unwrap()["storage"].0,
        "10Gi"
    );
    let job = fill(&record, &virtink, &persistent, node, &owner);
    let pod = job.spec.unwrap().template.spec.unwrap();
    let container = &pod.containers[0];
    let device = &container.volume_devices.as_ref().unwrap()[0].device_path;
    assert_eq!(&container.args.as_ref().unwrap()[0], device);
    assert_eq!(container.volume_mounts, None);
}

/// The API's Service finds machines by their labels; a pod that fills a disk must not be found.
#[test]
fn what_fills_a_disk_is_no_machine() {
    let (record, virtink, persistent, owner) = cluster(VolumeMode::Filesystem);
    let node = fixture::first(&record, Role::ControlPlane);
    let job = fill(&record, &virtink, &persistent, node, &owner);
    let labels = job.spec.unwrap().template.metadata.unwrap().labels.unwrap();
    assert!(!labels.contains_key(crate::provider::virtink::objects::ROLE));
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn a_claim(phase: &str, filled: bool) -> PersistentVolumeClaim {
    let annotations = match filled {
        true => json!({FILLED: "node"}),
        false => json!({}),
    };
    object(json!({
        "metadata": {"name": "demo-worker-1-root", "uid": "claim", "annotations": annotations,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": "n", "uid": "the-uid"}]},
        "status": {"phase": phase},
    }))
}

fn a_job(condition: Option<&str>) -> Job {
    let conditions = condition.map(
        |kind| json!([{"type": kind, "status": "True", "message": "it has reached its limit"}]),
    );
    object(json!({"metadata": {"name": "j"}, "status": {"conditions": conditions}}))
}

#[test]
fn how_far_a_disk_is() {
    let owner = cluster(VolumeMode::Block).3;
    let (pending, bound, whole) = (
        a_claim("Pending", false),
        a_claim("Bound", false),
        a_claim("Bound", true),
    );
    let mut foreign = pending.clone();
    foreign.metadata.owner_references = None;
    let (fresh, complete, failed) = (a_job(None), a_job(Some("Complete")), a_job(Some("Failed")));
    let pod = |status| object::<Pod>(json!({"metadata": {"uid": "pod"}, "status": status}));
    let terminated = json!({"phase": "Failed", "containerStatuses": [
        {"name": "fill", "image": "", "imageID": "", "ready": false, "restartCount": 0,
         "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "no space left"}}},
    ]});
    let (starts, runs, ended) = (
        pod(json!({"phase": "Pending"})),
        pod(json!({"phase": "Running"})),
        pod(terminated),
    );
    let event = |about: &str, kind: &str, reason: &str, message: &str| {
        object::<Event>(json!({"metadata": {}, "type": kind, "reason": reason,
            "message": message, "involvedObject": {"uid": about}}))
    };
    let refused = event(
        "claim",
        "Warning",
        "ProvisioningFailed",
        "no such access mode\n",
    );
    let unbound = event(
        "claim",
        "Normal",
        "FailedBinding",
        "no persistent volumes available",
    );
    let waits = event(
        "claim",
        "Normal",
        "WaitForFirstConsumer",
        "waiting for a pod",
    );
    let other = event("another", "Warning", "FailedMount", "x");
    let mount = event("pod", "Warning", "FailedMount", "still attached elsewhere");
    let say = |claim, job, pods: &[&'static str], events: &[&Event]| {
        let pods = pods.iter().map(|which| match *which {
            "starts" => &starts,
            "runs" => &runs,
            _ => &ended,
        });
        let sight = Sight {
            claim,
            job,
            pods: pods.collect(),
            events: events.to_vec(),
        };
        format!("{:?}", sight.progress(&owner))
    };
    insta::assert_snapshot!([
        say(None, None, &[], &[]),
        say(Some(&foreign), None, &[], &[]),
        say(Some(&pending), Some(&fresh), &["starts"], &[&waits, &other]),
        say(Some(&pending), Some(&fresh), &["starts"], &[&refused, &waits]),
        say(Some(&pending), Some(&fresh), &[], &[&unbound]),
        say(Some(&bound), Some(&fresh), &["starts"], &[&refused, &mount]),
        say(Some(&bound), Some(&fresh), &["runs"], &[&mount]),
        say(Some(&bound), Some(&fresh), &["ended"], &[]),
        say(Some(&bound), Some(&failed), &["ended"], &[]),
        say(Some(&bound), Some(&failed), &[], &[]),
        say(Some(&bound), Some(&complete), &[], &[]),
        say(Some(&whole), None, &[], &[]),
    ].join("\n"), @r#"
    Waits("no claim yet")
    Waits("the disk of an earlier cluster is being removed")
    Waits("its pod is about to start")
    Troubled("ProvisioningFailed: no such access mode")
    Troubled("FailedBinding: no persistent volumes available")
    Troubled("FailedMount: still attached elsewhere")
    Waits("it is being filled")
    Troubled("container fill: Error: no space left")
    Failed("container fill: Error: no space left")
    Failed("it has reached its limit")
    Whole
    Whole
    "#);
}
