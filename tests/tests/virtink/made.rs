//! What a creation makes on its host, and who may not read what of it.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use knest_tests::host::virtink::GROUP;
use knest_tests::hosted::{end, errors, interrupt, interrupt_at, kill_at, user};
use knest_tests::player::Nothing;
use knest_tests::{Hosted, need};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

/// What a creation makes on its host passes Virtink's webhooks, is labelled and owned, holds no
/// secret where it could be read, and is gone when the creation is taken back.
#[tokio::test]
async fn what_is_made_on_a_host() {
    need!(Host);
    let scene = Hosted::start(Nothing::default()).await;
    let spaces = "default";
    let create = [
        "create",
        "demo",
        "--provider",
        "virtink",
        "--worker-machine-count",
        "2",
    ];
    let mut knest = scene.begin(&create);
    scene.running(spaces, 3, &mut knest).await;

    let record = record(&scene, spaces).await;
    everything_is_owned(&scene, spaces).await;
    machines_are_accounted_for(&scene, spaces).await;
    let secrets = secrets(&scene, spaces, &record).await;
    nothing_secret_is_told(&scene, spaces, &secrets).await;
    the_address_is_the_services(&scene, spaces, &record).await;
    another_knest_is_refused(&scene);

    let output = interrupt(knest).await;
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    for secret in &secrets {
        assert!(!said.contains(secret.as_str()), "{said}");
    }
    assert!(
        said.starts_with("virtink: --provider; context host\n"),
        "{said}"
    );
    scene.nothing_left(spaces).await;
    assert_eq!(scene.knest(&["list", "-o", "json"]).stdout, b"[]\n");
}

/// Killed at any step, it is taken up where it stopped; kept, it is deleted from another machine,
/// which knows nothing but the host.
#[tokio::test]
async fn a_creation_goes_on_and_is_deleted_from_elsewhere() {
    need!(Host);
    let scene = Hosted::start(Nothing::default()).await;
    let space = "clusters";
    scene.namespace(space).await;
    let create = ["create", "demo", "-n", space, "--retain"];
    for step in [
        "Checking",
        "Writing the cluster's record",
        "Fixing the API's address",
        "Making the cluster's keys",
        "Making the root disks",
        "Making a bootstrap token",
        "Starting the machines",
        "Waiting for the API server",
    ] {
        assert!(kill_at(scene.begin(&create), step).await, "{step}");
    }
    let machine = async || {
        let machine = scene.machines(space).get("demo-control-plane-1").await;
        machine.expect("the machine").uid()
    };
    let before = machine().await;
    let list = scene.knest(&["list"]);
    let listed = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(listed.contains("host/clusters"), "{listed}");

    let other = ["create", "demo", "-n", space, "--worker-machine-count", "1"];
    let said = scene.ends(2, &other);
    assert!(said.contains("worker.count was 0, now 1"), "{said}");
    // The machine runs already: only what it says shows that this knest has come so far.
    let said = interrupt_at(scene.begin(&create), "Waiting for the API server").await;
    assert!(said.contains("go on where it stopped"), "{said}");
    assert_eq!(machine().await, before, "the machine is the same one");

    let elsewhere = user(&scene.host.kubeconfig());
    let everywhere = elsewhere
        .knest(["list", "-A"])
        .output()
        .expect("knest starts");
    let listed = String::from_utf8_lossy(&everywhere.stdout).into_owned();
    assert!(listed.contains("host/clusters"), "{listed}");
    let delete = elsewhere.knest(["delete", "demo", "-n", space]).spawn();
    let output = end(delete.expect("knest starts")).await;
    assert!(output.status.success());
    scene.nothing_left(space).await;
    drop(scene.ends(0, &["delete", "demo"]));
    let list = scene.knest(&["list", "-o", "json"]);
    assert_eq!(String::from_utf8_lossy(&list.stdout).trim(), "[]");
}

async fn record(scene: &Hosted, namespace: &str) -> Value {
    let secret = scene.api::<Secret>(namespace).get("knest-demo").await;
    let secret = secret.expect("the record");
    assert_eq!(secret.type_.as_deref(), Some("knest.dev/record"));
    let data = secret.data.unwrap_or_default();
    serde_json::from_slice(&data["record"].0).expect("a record")
}

/// So that the record's end is that of everything.
async fn everything_is_owned(scene: &Hosted, namespace: &str) {
    let owner = scene.api::<Secret>(namespace).get("knest-demo").await;
    let owner = owner.expect("the record").uid().expect("its UID");
    let label = ListParams::default().labels("knest.dev/cluster=demo");
    let owned = |object: &DynamicObject| object.owner_references().iter().any(|o| o.uid == owner);
    let mut found = BTreeSet::new();
    for (group, version, kind) in [
        ("", "v1", "Secret"),
        ("", "v1", "Service"),
        (GROUP, "v1alpha1", "VirtualMachine"),
    ] {
        for object in scene.list(namespace, group, version, kind, &label).await {
            let name = object.name_any();
            let is_record = kind == "Secret" && name == "knest-demo";
            assert!(is_record || owned(&object), "{kind} {name}");
            found.insert(format!("{kind} {name}"));
        }
    }
    let expected = [
        "Secret demo-control-plane-1-user-data",
        "Secret demo-worker-1-user-data",
        "Secret demo-worker-2-user-data",
        "Secret knest-demo",
        "Service knest-demo",
        "VirtualMachine demo-control-plane-1",
        "VirtualMachine demo-worker-1",
        "VirtualMachine demo-worker-2",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
}

/// The host's scheduler sees what a machine takes, and puts its pods on hosts of their own.
async fn machines_are_accounted_for(scene: &Hosted, namespace: &str) {
    let workers = ListParams::default().labels("knest.dev/role=worker");
    let pods = scene.api::<Pod>(namespace).list(&workers).await;
    let pods = pods.expect("pods").items;
    let mut nodes = BTreeSet::new();
    for pod in &pods {
        let spec = pod.spec.as_ref().expect("its spec");
        nodes.extend(spec.node_name.clone());
        let vmm = &spec.containers[0];
        let resources = vmm.resources.clone().unwrap_or_default();
        let requests = resources.requests.unwrap_or_default();
        for (resource, amount) in [
            ("cpu", "1"),
            ("memory", "2324Mi"),
            ("ephemeral-storage", "8Gi"),
        ] {
            assert_eq!(requests[resource].0, amount, "{resource}");
        }
        assert_eq!(resources.limits.unwrap_or_default()["memory"].0, "2324Mi");
        let init = spec.init_containers.iter().flatten();
        let images: Vec<&str> = init.filter_map(|c| c.image.as_deref()).collect();
        for image in [
            "knest.dev/kernel:latest",
            "knest.dev/node:v1.37.2-container-rootfs",
        ] {
            assert!(images.contains(&image), "{images:?}");
        }
    }
    assert_eq!((pods.len(), nodes.len()), (2, 2), "{nodes:?}");
}

/// What must not be read by those who may read machines, pods or logs.
async fn secrets(scene: &Hosted, namespace: &str, record: &Value) -> BTreeSet<String> {
    let token = record["bootstrapToken"]["value"].as_str();
    let mut secrets = BTreeSet::from([token.expect("a token").to_owned()]);
    let name = "demo-control-plane-1-user-data";
    let secret = scene.api::<Secret>(namespace).get(name).await;
    let data = secret.expect("the user-data").data.unwrap_or_default();
    let script = String::from_utf8_lossy(&data["value"].0).into_owned();
    let mut inside = false;
    for line in script.lines() {
        match line {
            _ if line.contains("PRIVATE KEY") => inside = line.contains("BEGIN"),
            _ if inside => drop(secrets.insert(line.to_owned())),
            _ => {}
        }
    }
    assert!(
        secrets.len() > 4,
        "the token and the keys of four authorities"
    );
    secrets
}

async fn nothing_secret_is_told(scene: &Hosted, namespace: &str, secrets: &BTreeSet<String>) {
    let all = ListParams::default();
    let pods = scene.api::<Pod>(namespace).list(&all).await;
    let machines = scene.machines(namespace).list(&all).await;
    let leases = scene.api::<Lease>(namespace).list(&all).await;
    let told = [
        serde_json::to_string(&pods.expect("pods").items),
        serde_json::to_string(&machines.expect("machines").items),
        serde_json::to_string(&leases.expect("leases").items),
    ];
    for told in told {
        let told = told.expect("JSON");
        assert!(told.contains("demo"), "{told}");
        for secret in secrets {
            let coded = BASE64_STANDARD.encode(secret);
            assert!(!told.contains(secret.as_str()) && !told.contains(&coded));
        }
        assert!(!told.contains("PRIVATE KEY"), "{told}");
    }
}

async fn the_address_is_the_services(scene: &Hosted, namespace: &str, record: &Value) {
    let service = scene.api::<Service>(namespace).get("knest-demo").await;
    let spec = service.expect("the Service").spec.unwrap_or_default();
    let address = spec.cluster_ip.expect("its address");
    let port = spec.ports.unwrap_or_default()[0].node_port;
    let endpoint = &record["endpoint"];
    assert_eq!(endpoint["inside"], format!("{address}:6443"));
    let outside = format!("172.31.0.1:{}", port.expect("a node port"));
    assert_eq!(endpoint["outside"], outside);
    let names = endpoint["certSans"].as_array().expect("names");
    for name in [
        address.as_str(),
        "172.31.0.1",
        "127.0.0.1",
        "knest-demo.default.svc",
    ] {
        assert!(names.contains(&json!(name)), "{name}: {endpoint}");
    }
}

fn another_knest_is_refused(scene: &Hosted) {
    let said = scene.ends(3, &["delete", "demo"]);
    assert!(said.contains("is being worked on"), "{said}");
    assert!(said.contains("knest create demo"), "{said}");
}
