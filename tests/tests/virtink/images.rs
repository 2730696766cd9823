//! Images that the host's nodes can't have are named before anything is made; those that they have
//! already are asked of nobody.

use std::path::Path;

use fs_err as fs;
use k8s_openapi::api::core::v1::Node;
use knest_tests::host::nodes;
use knest_tests::hosted::{errors, interrupt};
use knest_tests::player::Nothing;
use knest_tests::registry::Guard;
use knest_tests::{Env, Hosted, Registry, images, need};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

#[tokio::test]
async fn an_image_that_nodes_can_not_have_is_named() {
    need!(Host);
    let scene = Hosted::start(Nothing::default()).await;
    let forgotten = |number| forget(&scene, number);
    for number in 2..=nodes::NODES {
        forgotten(number).await;
    }
    // There is one node that has it.
    let mut knest = scene.begin(&["create", "demo"]);
    scene.running("default", 1, &mut knest).await;
    let said = errors(&interrupt(knest).await);
    let note =
        "1 of 3 nodes of the host have image knest.dev/kernel:latest, the others can't get it";
    assert!(said.contains(note), "{said}");
    scene.nothing_left("default").await;

    forgotten(1).await;
    let said = scene.ends(2, &["create", "demo"]);
    for words in [
        "no node of the host has image knest.dev/",
        "make images PUSH=REPOSITORY",
        "ctr --namespace k8s.io images import",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    scene.nothing_left("default").await;

    // Who can't be asked from here may well answer the nodes.
    let away = ["create", "demo", "--image-repository", "127.0.0.1:1/knest"];
    let mut knest = scene.begin(&away);
    scene.running("default", 1, &mut knest).await;
    let said = errors(&interrupt(knest).await);
    assert!(
        said.contains("its registry can't be asked from here"),
        "{said}"
    );
    scene.nothing_left("default").await;
}

#[tokio::test]
async fn a_registry_is_asked_for_images() {
    need!(Host, Registry);
    let scene = Hosted::start(Nothing::default()).await;
    let registry = Registry::start(scene.host.directory(), Guard::Open);
    let repository = format!("{}/knest", registry.address);
    trust(&scene.env, &registry.address);
    let kernel = image(
        &scene.env,
        scene.host.directory(),
        "kernel:latest",
        &repository,
    );
    let create = ["create", "demo", "--image-repository", &repository];
    let said = scene.ends(2, &create);
    let missing =
        format!("no node of the host has image {repository}/node:v1.37.2-container-rootfs");
    assert!(said.contains(&missing), "{said}");
    assert!(!said.contains(&format!("image {kernel}")), "{said}");
    scene.nothing_left("default").await;

    let name = "node:v1.37.2-container-rootfs";
    drop(image(&scene.env, scene.host.directory(), name, &repository));
    let mut knest = scene.begin(&create);
    scene.running("default", 1, &mut knest).await;
    let said = errors(&interrupt(knest).await);
    assert!(!said.contains("image"), "{said}");
    scene.nothing_left("default").await;
}

/// A node of the host has no images any more.
async fn forget(scene: &Hosted, number: u8) {
    let hosts: Api<Node> = Api::all(scene.client.clone());
    let none = Patch::Merge(json!({"status": {"images": []}}));
    let manner = PatchParams::default();
    let name = nodes::name(number);
    let patched = hosts.patch_status(&name, &manner, &none);
    drop(patched.await.expect("a node"));
}

/// It speaks plain HTTP.
fn trust(env: &Env, address: &str) {
    let directory = env.home().join(".config/knest");
    fs::create_dir_all(&directory).expect("a directory");
    let text = format!("plainHttp: ['{address}']\n");
    fs::write(directory.join("registries.yaml"), text).expect("a file");
}

/// Pushes an image, whatever is in it.
fn image(env: &Env, directory: &Path, name: &str, repository: &str) -> String {
    let place = directory.join(name.replace(':', "-"));
    fs::create_dir_all(&place).expect("a directory");
    let archive = images::shell(&place, "test/image:v1", "#!/bin/sh\n");
    let archive = archive.display().to_string();
    drop(env.succeed(&["image", "load", "--name", "test/image:v1", &archive]));
    let full = format!("{repository}/{name}");
    drop(env.succeed(&["image", "push", "test/image:v1", &full]));
    full
}
