//! The host's nodes as the API shows them: large, and fit for Virtink. No machine is behind them;
//! what a kubelet would do is the [`player`](crate::player)'s.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// The nodes of a host: `host-1` to `host-3`, each in a zone of its own.
pub const NODES: u8 = 3;

/// The name of the node of a number, from 1.
#[must_use]
pub fn name(number: u8) -> String {
    format!("host-{number}")
}

/// The address of the node of a number, from 1; all are the host's.
#[must_use]
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 0, number)
}

/// The share of the pods' range that a node says is its own; whose an address is nobody looks at.
fn pods(number: u8) -> String {
    format!("10.244.{}.0/18", (number - 1) * 64)
}

/// What is there without a registry, as if it had been loaded on each node.
const IMAGES: [&str; 2] = [
    "knest.dev/kernel:latest",
    "knest.dev/node:v1.37.2-container-rootfs",
];

/// Makes a node, Ready from the start.
///
/// # Errors
///
/// The API's.
pub(super) async fn create(client: &Client, number: u8) -> kube::Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let name = name(number);
    let node = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("zone-{number}"),
        }},
        "spec": {"podCIDR": pods(number), "podCIDRs": [pods(number)]},
    });
    let node = serde_json::from_value(node).expect("a Node");
    api.create(&PostParams::default(), &node).await?;
    let status = json!({"status": status(&name, address(number))});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

fn status(name: &str, address: Ipv4Addr) -> Value {
    let resources = json!({
        "cpu": "256", "memory": "1Ti", "ephemeral-storage": "10Ti", "pods": "1000",
        "devices.virtink.io/kvm": "1000", "devices.virtink.io/tun": "1000",
    });
    json!({
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            {"type": "InternalIP", "address": address},
            {"type": "Hostname", "address": name},
        ],
        "conditions": [ready(true)],
        "images": IMAGES.map(|name| json!({"names": [name], "sizeBytes": 1 << 20})),
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.37.2",
            "kubeProxyVersion": "", "containerRuntimeVersion": "none://1", "osImage": "none",
            "kernelVersion": "6.1.0", "bootID": name, "machineID": name, "systemUUID": name,
        },
    })
}

/// A node's Ready condition.
pub(crate) fn ready(ready: bool) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now();
    json!({
        "type": "Ready",
        "status": if ready { "True" } else { "False" },
        "reason": if ready { "KubeletReady" } else { "KubeletNotReady" },
        "message": "",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    })
}
