//! knest is killed at every step of what changes a cluster, and run again: it goes on, and in the end
//! there is what was asked for and nothing else. Machines are hollow nodes.

use fs_err as fs;
use k8s_openapi::api::core::v1::{Node, Secret};
use knest_tests::hosted::kill_at;
use knest_tests::{Hollow, Hosted, Steps, host, need};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::life::ready;

const CREATE: [&str; 6] = [
    "create",
    "demo",
    "--provider",
    "virtink",
    "--worker-machine-count",
    "1",
];

/// What a scale does, in its order.
const SCALE: [&str; 12] = [
    "Checking",
    "Recording what it is to become",
    "Waiting for the API server",
    "Removing what is left of lost nodes",
    "Making the root disks",
    "Making a bootstrap token",
    "Starting the machines",
    "Joining control planes",
    "Waiting for the nodes",
    "Removing boot secrets",
    "Draining nodes that leave",
    "Removing nodes that leave",
];

#[tokio::test]
async fn whatever_is_killed_goes_on_and_nothing_leaks() {
    need!(Host, Hollow);
    let steps = Steps::of("killed");
    let scene = Hosted::start(Hollow::new()).await;
    steps.step("create, two nodes", || scene.ends(0, &CREATE));
    let (founder, worker) = ("demo-control-plane-1", "demo-worker-1");

    steps.during("scale up", scale(&scene, "2")).await;
    only(&scene, &[founder, worker, "demo-worker-2"]).await;
    steps.during("scale down", scale(&scene, "1")).await;
    only(&scene, &[founder, worker]).await;
    steps.during("delete", delete(&scene)).await;
    scene.nothing_left("default").await;
    let merged = fs::read_to_string(scene.env.kubeconfig()).expect("the kubeconfig");
    assert!(!merged.contains("knest-demo"), "{merged}");
    assert_eq!(scene.knest(&["list", "-o", "json"]).stdout, b"[]\n");
}

/// Killed at each step that begins when it is run again, and at last not killed.
async fn scale(scene: &Hosted, workers: &str) {
    let scale = ["scale", "demo", "--worker-machine-count", workers];
    for step in SCALE {
        let met = kill_at(scene.begin(&scale), step).await;
        assert!(met, "{step}");
    }
    drop(scene.ends(0, &scale));
}

async fn delete(scene: &Hosted) {
    let titles = [
        "Marking the cluster for deletion",
        "Cleaning the kubeconfig",
        "Removing the machines",
        "Removing the cluster's record",
    ];
    let mut killed = 0;
    for title in titles {
        // Killed a moment after it says where it is, it may have come to its end.
        killed += usize::from(kill_at(scene.begin(&["delete", "demo"]), title).await);
    }
    assert!(killed > 0, "it never began");
    drop(scene.ends(0, &["delete", "demo"]));
}

/// These nodes are Ready, the cluster knows no others, the host has no more than they need, and no
/// token is left with which others could join.
async fn only(scene: &Hosted, names: &[&str]) {
    assert_eq!(ready(scene).await, names);
    let client = host::client_of(&scene.env.kubeconfig(), "knest-demo").await;
    let all = ListParams::default();
    let nodes = Api::<Node>::all(client.clone()).list(&all).await;
    assert_eq!(nodes.expect("nodes").items.len(), names.len());
    let secrets = Api::<Secret>::namespaced(client, "kube-system");
    let secrets = secrets.list(&all).await.expect("Secrets");
    let tokens = secrets.iter().map(ResourceExt::name_any);
    let tokens: Vec<String> = tokens
        .filter(|n| n.starts_with("bootstrap-token"))
        .collect();
    assert!(tokens.is_empty(), "{tokens:?}");
    let left = scene.left("default").await;
    let expected = 2 + 3 * names.len();
    assert_eq!(
        left.len(),
        expected,
        "a Secret, a Service; three things a node: {left:?}"
    );
}
