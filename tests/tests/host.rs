//! The test control planes themselves: what the provider's tests stand on.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use knest_tests::player::{Nothing, Player};
use knest_tests::{Host, host, need, wait};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
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
    assert_eq!(spec.init_containers.expect("containers").len(), 3);
    machines
        .delete("one", &DeleteParams::default())
        .await
        .expect("deletion");
    let player = Player::start(&host, true, Nothing::default());
    wait::until_async("an end", LIMIT, INTERVAL, async || {
        let left = pods
            .list(&ListParams::default())
            .await
            .expect("pods")
            .items
            .len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    lives_and_ends(&host, player).await;
}

/// The same with all of Virtink played: the pod waits for its Secret, runs, is left to end by the
/// power button, and goes with the machine.
#[tokio::test]
async fn a_machine_lives_and_ends_without_virtink() {
    need!(Host);
    let mut host = Host::start().await;
    host.define_virtink().await;
    lives_and_ends(&host, Player::start(&host, false, Nothing::default())).await;
}

/// What must be the same whether virt-controller is played or real.
async fn lives_and_ends(host: &Host, player: Player) {
    let client = host.client().await;
    let api: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &host::virtink::virtual_machine());
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &machine("one", 1))
        .await
        .expect("a machine");

    let events: Api<Event> = Api::default_namespaced(client);
    wait::until_async("a pod that lacks its Secret", LIMIT, INTERVAL, async || {
        let list = events
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let message = |event: &Event| event.message.clone().unwrap_or_default();
        let said = list
            .items
            .iter()
            .any(|event| message(event).contains("\"one\" not found"));
        said.then_some(())
            .ok_or_else(|| list.items.iter().map(message).collect::<String>())
    })
    .await;
    let secret = json!({"metadata": {"name": "one"}, "stringData": {"value": "#!/bin/sh"}});
    let secret = serde_json::from_value(secret).expect("a Secret");
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .expect("a Secret");
    phase(&api, "Running").await;
    let list = pods.list(&ListParams::default()).await.expect("pods");
    let status = list.items[0].status.clone().expect("its status");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(
        status
            .pod_ip
            .is_some_and(|address| address.starts_with("10.244."))
    );

    let shutdown = Patch::Merge(json!({"status": {"powerAction": "Shutdown"}}));
    api.patch_status("one", &PatchParams::default(), &shutdown)
        .await
        .expect("an action");
    phase(&api, "Succeeded").await;
    api.delete("one", &DeleteParams::default())
        .await
        .expect("deletion");
    wait::until_async("nothing left", LIMIT, INTERVAL, async || {
        let machines = api
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let pods = pods
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        match (machines.items.len(), pods.items.len()) {
            (0, 0) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    drop(player);
}

async fn phase(api: &Api<DynamicObject>, phase: &str) {
    wait::until_async(phase, LIMIT, INTERVAL, async || {
        let machine = api.get("one").await.map_err(|error| error.to_string())?;
        let status = &machine.data["status"];
        if status["phase"] == phase {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
}

const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

/// With a kernel, and so many root volumes of the same name.
fn machine(name: &str, volumes: usize) -> DynamicObject {
    let volume = json!({"name": "root", "containerRootfs": {"image": "node", "size": "8Gi"}});
    let mut volumes: Vec<Value> = vec![volume; volumes];
    volumes.push(json!({"name": "seed", "cloudInit": {"userDataSecretName": name}}));
    let machine = json!({
        "apiVersion": "virt.virtink.smartx.com/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {
            "instance": {
                "memory": {"size": "1Gi"},
                "kernel": {"image": "kernel", "cmdline": "console=ttyS0"},
                "disks": [{"name": "root"}, {"name": "seed"}],
                "interfaces": [{"name": "pod"}],
            },
            "volumes": volumes,
            "networks": [{"name": "pod", "pod": {}}],
        },
    });
    serde_json::from_value(machine).expect("a machine")
}
