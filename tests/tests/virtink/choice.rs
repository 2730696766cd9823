//! Where a new cluster goes, and why: the first line says it. A context of knest's own making is never
//! the host.

use fs_err as fs;
use knest_tests::hosted::{errors, interrupt, user};
use knest_tests::player::Nothing;
use knest_tests::{Env, Host, Hosted, need};
use serde_json::{Value, json};

/// A creation that fails as soon as the place is chosen.
fn first_line(env: &Env, more: &[&str]) -> String {
    let fails = ["create", "demo", "--control-plane-machine-count", "2"];
    let output = env.knest([&fails[..], more].concat()).output();
    let said = errors(&output.expect("knest starts"));
    said.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_first_line_says_where_and_why() {
    need!(Host);
    let mut host = Host::start().await;
    let env = user(&host.kubeconfig());
    let none = Env::new();
    assert_eq!(
        first_line(&none, &[]),
        "local: there is no current kubeconfig context"
    );
    assert_eq!(
        first_line(&env, &[]),
        "local: context host has no Virtink; --provider virtink installs it"
    );
    host.define_virtink().await;
    assert_eq!(first_line(&env, &[]), "virtink: context host has Virtink");
    for (arguments, line) in [
        (&["--provider", "local"][..], "local: --provider"),
        (
            &["--provider", "virtink"],
            "virtink: --provider; context host",
        ),
        (&["-n", "x"], "virtink: --namespace is given; context host"),
        (
            &["--expose", "nodeport"],
            "virtink: --expose is given; context host",
        ),
    ] {
        assert_eq!(first_line(&env, arguments), line);
    }
    let set = env
        .knest(["config", "set-default", "provider", "local"])
        .status();
    assert!(set.expect("knest starts").success());
    assert_eq!(first_line(&env, &[]), "local: knest config");
    let refused = first_line(&env, &["-n", "x"]);
    assert!(
        refused.contains("--namespace is for provider virtink"),
        "{refused}"
    );
    let env = env.with_variable("KNEST_PROVIDER", "virtink");
    assert_eq!(
        first_line(&env, &[]),
        "virtink: KNEST_PROVIDER; context host"
    );
}

/// As after a creation that succeeded: the current context is the new cluster's.
#[tokio::test]
async fn two_creations_in_a_row_land_in_the_same_place() {
    need!(Host);
    let scene = Hosted::start(Nothing::default()).await;
    scene.namespace("clusters").await;
    let mut knest = scene.begin(&["create", "first", "-n", "clusters", "--retain"]);
    scene.running("clusters", 1, &mut knest).await;
    drop(interrupt(knest).await);

    let path = scene.env.kubeconfig();
    let text = fs::read_to_string(&path).expect("the kubeconfig");
    let mut merged: Value = serde_json::from_str(&text).expect("JSON");
    merged["current-context"] = json!("knest-first");
    let first = json!({"name": "knest-first", "context": {"cluster": "host", "user": "host"}});
    merged["contexts"]
        .as_array_mut()
        .expect("contexts")
        .push(first);
    fs::write(&path, merged.to_string()).expect("the kubeconfig");

    let mut knest = scene.begin(&["create", "second", "--retain"]);
    scene.running("clusters", 2, &mut knest).await;
    let said = errors(&interrupt(knest).await);
    let line = "virtink: context host, the host of knest-first has Virtink";
    assert!(said.starts_with(line), "{said}");
    let said = scene.ends(2, &["create", "third", "--host-context", "nowhere"]);
    assert!(said.contains("no context nowhere"), "{said}");

    // Another of the same name, elsewhere on the same host: which one is meant has to be said.
    let mut knest = scene.begin(&["create", "first", "-n", "default", "--retain"]);
    scene.running("default", 1, &mut knest).await;
    drop(interrupt(knest).await);
    let said = scene.ends(2, &["delete", "first"]);
    assert!(said.contains("there are 2 clusters first"), "{said}");
    for (name, space) in [
        ("first", "default"),
        ("first", "clusters"),
        ("second", "clusters"),
    ] {
        drop(scene.ends(0, &["delete", name, "-n", space]));
    }
    scene.nothing_left("clusters").await;
    scene.nothing_left("default").await;
}
