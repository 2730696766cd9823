//! The pod of a virtual machine, as virt-controller makes it: the kernel and each volume by an init
//! container, user-data from its Secret, the devices, and whatever the machine's own specification
//! says of its pod. Pure.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::kubelet::MACHINE;

const PRERUNNER: &str = "virt-prerunner:v0.17.0";

/// The pod of this name.
pub(super) fn pod_of(machine: &DynamicObject, name: &str) -> Pod {
    let spec = &machine.data["spec"];
    let mut volumes = vec![empty("virtink"), empty("hotplug-volumes")];
    let mut init = Vec::new();
    let kernel = &spec["instance"]["kernel"];
    if !kernel.is_null() {
        volumes.push(empty("virtink-kernel"));
        init.push(json!({
            "name": "init-kernel", "image": kernel["image"],
            "imagePullPolicy": kernel["imagePullPolicy"], "resources": spec["resources"],
            "args": ["/mnt/virtink-kernel/vmlinux"],
            "volumeMounts": [mount("virtink-kernel")],
        }));
    }
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        add_volume(machine, volume, &mut volumes, &mut init);
    }
    let mut labels = json!(machine.labels());
    labels[MACHINE] = json!(machine.name_any());
    let pod = json!({
        "metadata": {
            "name": name,
            "namespace": machine.namespace(),
            "labels": labels,
            "annotations": machine.annotations(),
            "ownerReferences": [{
                "apiVersion": machine.types.as_ref().map(|types| &types.api_version),
                "kind": "VirtualMachine", "name": machine.name_any(), "uid": machine.uid(),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": spec["nodeSelector"],
            "tolerations": spec["tolerations"],
            "affinity": spec["affinity"],
            "initContainers": init,
            "containers": [{
                "name": "cloud-hypervisor", "image": PRERUNNER,
                "resources": with_devices(&spec["resources"]),
                "livenessProbe": spec["livenessProbe"],
                "readinessProbe": spec["readinessProbe"],
            }],
            "volumes": volumes,
        },
    });
    serde_json::from_value(pod).expect("a Pod")
}

fn add_volume(
    machine: &DynamicObject,
    volume: &Value,
    volumes: &mut Vec<Value>,
    init: &mut Vec<Value>,
) {
    let name = volume["name"].as_str().unwrap_or_default();
    let resources = &machine.data["spec"]["resources"];
    let (rootfs, seed, claim) = (
        &volume["containerRootfs"],
        &volume["cloudInit"],
        &volume["persistentVolumeClaim"],
    );
    if !rootfs.is_null() {
        volumes.push(empty(name));
        init.push(json!({
            "name": format!("init-volume-{name}"), "image": rootfs["image"],
            "imagePullPolicy": rootfs["imagePullPolicy"], "resources": resources,
            "args": [format!("/mnt/{name}/rootfs.raw"), rootfs["size"]],
            "volumeMounts": [mount(name)],
        }));
    } else if !seed.is_null() {
        let secret = "virtink-cloud-init-user-data";
        volumes.push(empty(name));
        let mut mounts = vec![mount(name)];
        if let Some(source) = seed["userDataSecretName"].as_str() {
            volumes.push(json!({"name": secret, "secret": {"secretName": source}}));
            mounts.push(mount(secret));
        }
        init.push(json!({
            "name": format!("init-volume-{name}"), "image": PRERUNNER, "resources": resources,
            "command": ["virt-init-volume"], "args": ["cloud-init", format!("/mnt/{secret}/value")],
            "volumeMounts": mounts,
        }));
    } else if !claim.is_null() {
        let claim = json!({"claimName": claim["claimName"]});
        volumes.push(json!({"name": name, "persistentVolumeClaim": claim}));
    }
}

fn empty(name: &str) -> Value {
    json!({"name": name, "emptyDir": {}})
}

fn mount(name: &str) -> Value {
    json!({"name": name, "mountPath": format!("/mnt/{name}")})
}

/// One of each of the devices that virt-daemon hands out, asked for and limited to.
fn with_devices(resources: &Value) -> Value {
    let with = |list: &Value| {
        let mut list = list.as_object().cloned().unwrap_or_else(Map::new);
        for device in ["devices.virtink.io/kvm", "devices.virtink.io/tun"] {
            list.insert(device.to_owned(), json!("1"));
        }
        list
    };
    json!({"requests": with(&resources["requests"]), "limits": with(&resources["limits"])})
}
