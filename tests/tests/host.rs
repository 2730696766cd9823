//! The test control planes themselves: what the provider's tests stand on.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use knest_tests::{Host, host, need, wait};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};

/// A virtual machine becomes the pod that Virtink itself makes of it, on a node with its devices,
/// and what its webhooks refuse is refused.
#[tokio::test]
async fn virtinks_own_controller_takes_a_machine() {
    need!(Host, Virtink);
    let mut host = Host::start().await;
    assert!(host.install_virtink().await);
    let client = host.client().await;
    let machines: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &host::virtink::virtual_machine());
    let pods: Api<Pod> = Api::default_namespaced(client);

    let refused = machines
        .create(&PostParams::default(), &machine("twice", 2))
        .await;
    let refused = refused.expect_err("two volumes of one name").to_string();
    assert!(refused.contains("Duplicate value"), "{refused}");

    machines
        .create(&PostParams::default(), &machine("one", 1))
        .await
        .expect("a machine");
    let label = ListParams::default().labels("virtink.io/vm.name=one");
    let pod = wait::until_async("a pod on a node", LIMIT, INTERVAL, async || {
        let pods = pods.list(&label).await.map_err(|error| error.to_string())?;
        let placed = pods.items.into_iter().find(|pod| {
            pod.spec
                .as_ref()
                .is_some_and(|spec| spec.node_name.is_some())
        });
        placed.ok_or_else(|| "none".to_owned())
    })
    .await;
    let spec = pod.spec.expect("its spec");
    assert_eq!(spec.init_containers.expect("containers").len(), 2);
}

const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

/// With a kernel, and so many root volumes of the same name.
fn machine(name: &str, volumes: usize) -> DynamicObject {
    let volume = json!({"name": "root", "containerRootfs": {"image": "node", "size": "8Gi"}});
    let volumes: Vec<Value> = vec![volume; volumes];
    let machine = json!({
        "apiVersion": "virt.virtink.smartx.com/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {
            "instance": {
                "memory": {"size": "1Gi"},
                "kernel": {"image": "kernel", "cmdline": "console=ttyS0"},
                "disks": [{"name": "root"}],
                "interfaces": [{"name": "pod"}],
            },
            "volumes": volumes,
            "networks": [{"name": "pod", "pod": {}}],
        },
    });
    serde_json::from_value(machine).expect("a machine")
}
