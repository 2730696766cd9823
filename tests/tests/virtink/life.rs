//! A cluster's whole life on the host, its machines hollow nodes: what makes them nodes is real.

use std::time::Duration;

use fs_err as fs;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use knest_tests::{Hollow, Hosted, Snapshot, Steps, alone, host, need, wait};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

const CREATE: [&str; 6] = [
    "create",
    "demo",
    "--provider",
    "virtink",
    "--worker-machine-count",
    "2",
];

/// For what a killed machine takes to go.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_cluster_from_create_to_delete() {
    need!(Host, Hollow);
    let _turn = alone();
    let steps = Steps::of("virtink");
    let scene = Hosted::start(Hollow::new()).await;
    let snapshot = Snapshot::take(&[scene.host.directory()]);
    let before = fs::read_to_string(scene.env.kubeconfig()).expect("the kubeconfig");

    steps.step("create, three nodes", || scene.ends(0, &CREATE));
    assert_eq!(
        ready(&scene).await,
        ["demo-control-plane-1", "demo-worker-1", "demo-worker-2"]
    );
    boot_secrets_are_gone(&scene).await;
    list_shows_it(&scene);
    let again = scene.ends(2, &CREATE);
    assert!(again.contains("exists already"), "{again}");

    let scale = |count| ["scale", "demo", "--worker-machine-count", count];
    steps.step("scale to three workers", || scene.ends(0, &scale("3")));
    assert_eq!(ready(&scene).await.len(), 4);
    steps.step("scale to one worker", || scene.ends(0, &scale("1")));
    assert_eq!(
        ready(&scene).await,
        ["demo-control-plane-1", "demo-worker-1"]
    );
    let left = scene.left("default").await;
    assert_eq!(
        left.len(),
        2 + 2 * 3,
        "a Secret, a Service; three things a node: {left:?}"
    );

    let pods = scene.api::<Pod>("default");
    let label = ListParams::default().labels("virtink.io/vm.name=demo-worker-1");
    let lost = pods.list(&label).await.expect("pods").items;
    let (name, now) = (lost[0].name_any(), DeleteParams::default());
    drop(pods.delete(&name, &now).await.expect("deletion"));
    scene.phase("default", "demo-worker-1", "Failed").await;
    let said = scene.ends(2, &["stop", "demo"]);
    assert!(said.contains("that is off has lost its disk"), "{said}");
    steps.step("scale replaces a lost worker", || {
        scene.ends(0, &["scale", "demo"])
    });
    assert_eq!(
        ready(&scene).await,
        ["demo-control-plane-1", "demo-worker-4"]
    );

    steps.step("delete", || scene.ends(0, &["delete", "demo"]));
    scene.nothing_left("default").await;
    let after = fs::read_to_string(scene.env.kubeconfig()).expect("the kubeconfig");
    assert!(
        !after.contains("knest-demo") && after.contains("host"),
        "{before}{after}"
    );
    // The machines' processes, mounts and links; the host's own files are the test's.
    snapshot.assert_nothing_left(SOON, &[scene.host.directory()]);
}

/// The same, with control planes that join one by one.
#[tokio::test]
async fn a_large_cluster_from_create_to_delete() {
    need!(Host, Hollow, Full);
    let _turn = alone();
    let steps = Steps::of("virtink, three control planes");
    let scene = Hosted::start(Hollow::new()).await;
    let snapshot = Snapshot::take(&[scene.host.directory()]);
    let create = [
        "create",
        "demo",
        "--provider",
        "virtink",
        "--control-plane-machine-count",
        "3",
        "--worker-machine-count",
        "10",
    ];
    steps.step("create with ten workers", || scene.ends(0, &create));
    assert_eq!(ready(&scene).await.len(), 13);
    for workers in [20, 10] {
        let count = workers.to_string();
        let scale = ["scale", "demo", "--worker-machine-count", &count];
        let step = format!("scale to {count} workers");
        steps.step(&step, || scene.ends(0, &scale));
        assert_eq!(ready(&scene).await.len(), 3 + workers);
        let machines = scene.machines("default").list(&ListParams::default()).await;
        assert_eq!(machines.expect("machines").items.len(), 3 + workers);
    }
    steps.step("delete", || scene.ends(0, &["delete", "demo"]));
    scene.nothing_left("default").await;
    snapshot.assert_nothing_left(SOON, &[scene.host.directory()]);
}

/// The names of the nodes that are Ready, asked of the cluster through what `create` merged.
pub(super) async fn ready(scene: &Hosted) -> Vec<String> {
    let client = host::client_of(&scene.env.kubeconfig(), "knest-demo").await;
    let nodes: Api<Node> = Api::all(client);
    // A control plane that is busy may be out of its Service for a moment.
    let all = ListParams::default();
    let nodes = wait::until_async("nodes", LIMIT, INTERVAL, async || nodes.list(&all).await).await;
    let ready = nodes.iter().filter(|node| {
        let conditions = node
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    });
    let mut names: Vec<String> = ready.map(ResourceExt::name_any).collect();
    names.sort();
    names
}

/// What made nodes of machines is worth nothing any more, and no longer there.
async fn boot_secrets_are_gone(scene: &Hosted) {
    let label = ListParams::default().labels("knest.dev/role");
    let secrets = scene.api::<Secret>("default").list(&label).await;
    let secrets = secrets.expect("Secrets").items;
    assert_eq!(secrets.len(), 3);
    for secret in secrets {
        let data = secret.data.unwrap_or_default();
        let script = String::from_utf8_lossy(&data["value"].0).into_owned();
        assert!(
            script.contains("is a node already") && script.len() < 100,
            "{script}"
        );
    }
    let record = scene.api::<Secret>("default").get("knest-demo").await;
    let data = record.expect("the record").data.unwrap_or_default();
    let record: Value = serde_json::from_slice(&data["record"].0).expect("a record");
    assert_eq!(record["phase"], "Ready");
    assert!(record["bootstrapToken"].is_null(), "the token is revoked");
}

fn list_shows_it(scene: &Hosted) {
    let output = scene.knest(&["list", "-o", "json"]);
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list[0]["place"], "host/default", "{list}");
    let nodes = list[0]["nodes"].as_array().expect("nodes");
    let well = nodes
        .iter()
        .filter(|node| node["ready"] == true && node["machine"] == "running");
    assert_eq!(well.count(), 3, "{list}");
}
