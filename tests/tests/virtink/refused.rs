//! What is found before anything is made: names that others have, quotas, ranges, room, rights. And
//! that the role for users is all that they need.

use fs_err as fs;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, ResourceQuota};
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use knest_tests::host::virtink::GROUP;
use knest_tests::hosted::{begin, errors, interrupt, user};
use knest_tests::player::Nothing;
use knest_tests::{Hosted, need, wait};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);
const ROLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/virtink-rbac.yaml");

#[tokio::test]
async fn what_a_host_cannot_give_is_refused_before_anything_is_made() {
    need!(Host);
    let scene = Hosted::start(Nothing::default()).await;
    names_that_are_taken(&scene).await;
    ranges_and_room(&scene).await;
    quotas(&scene).await;
    namespaces(&scene).await;
    rights(&scene).await;
    for space in ["default", "small", "team"] {
        scene.nothing_left(space).await;
    }
}

async fn made<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let object = serde_json::from_value(object).expect("an object");
    let made = api.create(&PostParams::default(), &object).await;
    made.expect("an object")
}

/// An object of somebody else's by a name that knest would take is left alone.
async fn names_that_are_taken(scene: &Hosted) {
    let machine = json!({"instance": {"interfaces": [], "disks": []}});
    for (group, version, kind, name, mut foreign) in [
        ("", "v1", "Secret", "knest-demo", json!({})),
        (
            "coordination.k8s.io",
            "v1",
            "Lease",
            "knest-demo",
            json!({}),
        ),
        (
            "",
            "v1",
            "Service",
            "knest-demo",
            json!({"spec": {"ports": [{"port": 80}]}}),
        ),
        (
            "",
            "v1",
            "Secret",
            "demo-control-plane-1-user-data",
            json!({}),
        ),
        (
            GROUP,
            "v1alpha1",
            "VirtualMachine",
            "demo-control-plane-1",
            json!({"spec": machine}),
        ),
    ] {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(scene.client.clone(), "default", &kind);
        foreign["metadata"] = json!({"name": name});
        foreign["apiVersion"] = json!(kind.api_version);
        foreign["kind"] = json!(kind.kind);
        let foreign = made(&api, foreign).await;
        let said = scene.ends(2, &["create", "demo"]);
        let kind = kind.kind;
        let named = format!("{kind} {name} in namespace default is not knest's");
        assert!(said.contains(&named), "{named}: {said}");
        let there = api.get(name).await.expect("the object");
        assert_eq!(there.uid(), foreign.uid());
        assert_eq!(there.labels(), foreign.labels());
        assert_eq!(there.data["spec"], foreign.data["spec"]);
        drop(
            api.delete(name, &DeleteParams::default())
                .await
                .expect("deletion"),
        );
        let gone = async || match api.get_opt(name).await {
            Ok(None) => Ok(()),
            found => Err(format!("{found:?}")),
        };
        wait::until_async("deletion", LIMIT, INTERVAL, gone).await;
    }
}

async fn ranges_and_room(scene: &Hosted) {
    for (code, flags, named) in [
        (
            2,
            ["--pod-network-cidr", "10.244.0.0/16"],
            "which is the host's pods",
        ),
        (
            2,
            ["--pod-network-cidr", "172.31.0.0/16"],
            "which is a node's of the host",
        ),
        (
            2,
            ["--service-cidr", "10.96.0.0/12"],
            "which is the host's Services",
        ),
        (
            3,
            ["--control-plane-machine-memory-size", "2Ti"],
            "room for 0 of 1 machines",
        ),
        (3, ["--node-selector", "disk=fast"], "3 can't: not selected"),
    ] {
        let said = scene.ends(code, &[&["create", "demo"], &flags[..]].concat());
        assert!(said.contains(named), "{said}");
    }
}

async fn quotas(scene: &Hosted) {
    scene.namespace("small").await;
    let quota = json!({
        "metadata": {"name": "team"},
        "spec": {"hard": {"pods": "2", "requests.memory": "4Gi", "limits.cpu": "8"}},
    });
    drop(made(&scene.api::<ResourceQuota>("small"), quota).await);
    let create = [
        "create",
        "demo",
        "-n",
        "small",
        "--worker-machine-count",
        "2",
    ];
    let said = scene.ends(3, &create);
    for named in [
        "pods of quota team: 0 of 2 are used, 3 more are asked for",
        "requests.memory of quota team",
        "quota team is for limits.cpu",
    ] {
        assert!(said.contains(named), "{named}: {said}");
    }
}

async fn namespaces(scene: &Hosted) {
    let said = scene.ends(2, &["create", "demo", "-n", "nowhere"]);
    assert!(said.contains("there is no namespace nowhere"), "{said}");

    scene.namespace("ending").await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    let held = made(&scene.api::<ConfigMap>("ending"), held).await;
    let all: Api<Namespace> = Api::all(scene.client.clone());
    let deleted = all.delete("ending", &DeleteParams::default()).await;
    drop(deleted.expect("deletion"));
    let said = scene.ends(2, &["create", "demo", "-n", "ending"]);
    assert!(said.contains("namespace ending is being deleted"), "{said}");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let freed = scene.api::<ConfigMap>("ending");
    let freed = freed
        .patch(&held.name_any(), &PatchParams::default(), &free)
        .await;
    drop(freed.expect("a patch"));
}

/// Without rights all that is missing is named at once; with the role that the documentation gives,
/// and no more, a cluster is made and deleted. What such a user can't see beforehand is told by the
/// machines: no node takes them.
async fn rights(scene: &Hosted) {
    scene.namespace("team").await;
    let eve = user(&scene.host.kubeconfig_of("eve"));
    let create = ["create", "demo", "--provider", "virtink", "-n", "team"];
    let output = eve.knest(create).output().expect("knest starts");
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for missing in [
        "create secrets",
        "patch services",
        "get pods/log",
        "update leases",
        "watch virtualmachines",
    ] {
        assert!(said.contains(missing), "{missing}: {said}");
    }

    let text = fs::read_to_string(ROLES).expect("the roles");
    let roles: Api<ClusterRole> = Api::all(scene.client.clone());
    for role in serde_yaml_ng::Deserializer::from_str(&text) {
        let role = Value::deserialize(role).expect("a role");
        drop(made(&roles, role).await);
    }
    bind(scene, "knest-user").await;
    let nodes: Api<Node> = Api::all(scene.client.clone());
    for number in 1..=3 {
        let cordoned = nodes.cordon(&format!("host-{number}")).await;
        drop(cordoned.expect("a cordoned node"));
    }
    let late = [&create[..], &["--timeout", "10s"]].concat();
    let output = eve.knest(late).output().expect("knest starts");
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("0/3 nodes are available"), "{said}");
    for number in 1..=3 {
        let uncordoned = nodes.uncordon(&format!("host-{number}")).await;
        drop(uncordoned.expect("a node"));
    }
    let mut knest = begin(&eve, &create);
    scene.running("team", 1, &mut knest).await;
    let said = errors(&interrupt(knest).await);
    assert!(!said.contains("forbidden"), "{said}");
}

async fn bind(scene: &Hosted, role: &str) {
    let binding = json!({
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve",
        }],
    });
    drop(made(&scene.api::<RoleBinding>("team"), binding).await);
}
