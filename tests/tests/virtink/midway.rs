//! What changes on a host while a cluster is being made there: an API without a leader, webhooks that do
//! not answer, quotas that are met, machines that wait, namespaces and hosts that go, credentials that
//! expire, another knest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Node, ResourceQuota, Secret};
use knest_tests::faulty::{Fault, Faulty};
use knest_tests::host::nodes;
use knest_tests::host::virtink::GROUP;
use knest_tests::hosted::{begin, end, errors, interrupt, user};
use knest_tests::player::Nothing;
use knest_tests::{Env, Hosted, need, wait};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);
/// The name of what a test makes one of.
const OURS: &str = "midway";

/// The making of a control plane and two workers.
fn create(space: &str) -> [&str; 8] {
    [
        "create",
        "demo",
        "--provider",
        "virtink",
        "--worker-machine-count",
        "2",
        "-n",
        space,
    ]
}

/// What passes is waited for, and nothing is lost by it. Who comes second is told so.
#[tokio::test]
async fn what_passes_is_waited_for() {
    need!(Host);
    let scene = Hosted::start(Nothing::default()).await;
    let faulty = Faulty::start(&scene.host);
    let env = user(&faulty.kubeconfig());
    the_leader_changes(&scene, &faulty, &env).await;
    a_webhook_comes_late(&scene, &faulty, &env).await;
}

/// From the first machine on the API has none for a while.
async fn the_leader_changes(scene: &Hosted, faulty: &Faulty, env: &Env) {
    let mut since: Option<Instant> = None;
    faulty.set(move |_, uri| {
        let machine = uri.path().contains("/virtualmachines/");
        match since {
            None if machine => since = Some(Instant::now()),
            _ => {}
        }
        match since.is_some_and(|since| since.elapsed() < Duration::from_secs(4)) {
            true => Fault::Status(500),
            false => Fault::None,
        }
    });
    let mut knest = begin(env, &create("default"));
    scene.running("default", 3, &mut knest).await;
    let output = interrupt(knest).await;
    assert_eq!(output.status.code(), Some(130), "{}", errors(&output));
    scene.nothing_left("default").await;
}

async fn a_webhook_comes_late(scene: &Hosted, faulty: &Faulty, env: &Env) {
    a_webhook_is_down(scene).await;
    let refused = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&refused);
    faulty.set(move |_, uri| {
        let machine = uri.path().contains("/virtualmachines/");
        seen.fetch_or(machine, Ordering::Relaxed);
        Fault::None
    });
    let mut knest = begin(env, &create("default"));
    let asked = async || refused.load(Ordering::Relaxed).then_some(()).ok_or("none");
    wait::until_async("a machine that is refused", LIMIT, INTERVAL, asked).await;
    let said = scene.ends(3, &create("default"));
    assert!(said.contains("is being worked on"), "{said}");
    assert!(said.contains("knest create demo"), "{said}");

    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(scene.client.clone());
    let gone = hooks.delete(OURS, &DeleteParams::default()).await;
    drop(gone.expect("deletion"));
    scene.running("default", 3, &mut knest).await;
    drop(interrupt(knest).await);
    scene.nothing_left("default").await;
}

/// As Virtink's is while its controller is: nobody listens where it should be.
async fn a_webhook_is_down(scene: &Hosted) {
    let hook = json!({
        "metadata": {"name": OURS},
        "webhooks": [{
            "name": format!("{OURS}.{GROUP}"),
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "clientConfig": {"url": "https://127.0.0.1:1/validate"},
            "rules": [{
                "apiGroups": [GROUP], "apiVersions": ["v1alpha1"],
                "resources": ["virtualmachines"], "operations": ["CREATE"],
            }],
        }],
    });
    let hook = serde_json::from_value(hook).expect("a webhook");
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(scene.client.clone());
    drop(
        hooks
            .create(&PostParams::default(), &hook)
            .await
            .expect("a webhook"),
    );
    // The API takes note of it a moment later.
    let probe = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "VirtualMachine",
        "metadata": {"name": OURS}, "spec": {"instance": {"interfaces": [], "disks": []}},
    });
    let machines = scene.machines("default");
    let manner = PatchParams::apply("test").dry_run();
    let probe = Patch::Apply(probe);
    let known = async || match machines.patch(OURS, &manner, &probe).await {
        Err(error) if error.to_string().contains("failed calling webhook") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait::until_async("a webhook", LIMIT, INTERVAL, known).await;
}

/// What does not pass ends it, with what it was and what to do; what was made is taken back.
#[tokio::test]
async fn what_stays_is_named() {
    need!(Host);
    let mut scene = Hosted::start(Nothing::default()).await;
    let faulty = Faulty::start(&scene.host);
    let env = user(&faulty.kubeconfig());
    for space in ["secrets", "pods", "mounts", "going"] {
        scene.namespace(space).await;
    }
    a_quota_is_met(&scene, &faulty, &env).await;
    a_quota_keeps_pods_away(&scene, &faulty, &env).await;
    a_volume_can_not_be_mounted(&mut scene).await;
    the_namespace_goes(&scene).await;
    for space in ["secrets", "pods", "mounts"] {
        scene.nothing_left(space).await;
    }
}

/// Runs a creation that meets a quota which was not there when it began.
async fn meets(
    scene: &Hosted,
    (faulty, env): (&Faulty, &Env),
    space: &str,
    resource: &str,
    most: &str,
) -> (Option<i32>, String) {
    let (begun, there) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (seen, set) = (Arc::clone(&begun), Arc::clone(&there));
    // The first thing after all checks.
    faulty.set(move |method, uri| {
        let address = method == "PATCH" && uri.path().contains("/services/");
        seen.fetch_or(address, Ordering::Relaxed);
        match address && !set.load(Ordering::Relaxed) {
            true => Fault::Status(500),
            false => Fault::None,
        }
    });
    let knest = begin(env, &[&create(space)[..], &["--timeout", "25s"]].concat());
    let begun = async || begun.load(Ordering::Relaxed).then_some(()).ok_or("not yet");
    wait::until_async("the end of all checks", LIMIT, INTERVAL, begun).await;
    let quota = json!({"metadata": {"name": OURS}, "spec": {"hard": {resource: most}}});
    let quota = serde_json::from_value(quota).expect("a quota");
    let quotas = scene.api::<ResourceQuota>(space);
    drop(
        quotas
            .create(&PostParams::default(), &quota)
            .await
            .expect("a quota"),
    );
    let counted = async || {
        let quota = quotas.get(OURS).await.map_err(|error| error.to_string())?;
        let used = quota.status.clone().and_then(|status| status.used);
        used.filter(|used| used.contains_key(resource))
            .ok_or_else(|| format!("{quota:?}"))
    };
    wait::until_async("a quota that counts", LIMIT, INTERVAL, counted).await;
    there.store(true, Ordering::Relaxed);
    let output = end(knest).await;
    (output.status.code(), errors(&output))
}

/// The record and one machine's user-data are all that it lets be.
async fn a_quota_is_met(scene: &Hosted, faulty: &Faulty, env: &Env) {
    let (code, said) = meets(scene, (faulty, env), "secrets", "secrets", "2").await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("exceeded quota: midway"), "{said}");
    assert!(
        said.contains("a larger quota of namespace secrets"),
        "{said}"
    );
    scene.nothing_left("secrets").await;
}

/// Machines can be made, but Virtink makes no pods of them.
async fn a_quota_keeps_pods_away(scene: &Hosted, faulty: &Faulty, env: &Env) {
    let (code, said) = meets(scene, (faulty, env), "pods", "pods", "0").await;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("FailedReconcile"), "{said}");
    assert!(said.contains("exceeded quota: midway"), "{said}");
}

/// Its pod has a node, whose kubelet waits for what is not there.
async fn a_volume_can_not_be_mounted(scene: &mut Hosted) {
    let all = || (1..=nodes::NODES).map(nodes::name);
    all().for_each(|node| scene.player().lose(&node));
    let knest = scene.begin(&[&create("mounts")[..], &["--timeout", "25s"]].concat());
    let machines = scene.machines("mounts");
    let scheduled = async || {
        let found = machines.list(&ListParams::default()).await;
        let found = found.map_err(|error| error.to_string())?.items;
        let placed = |name: &str| {
            let mut all = found.iter();
            all.any(|m| {
                m.metadata.name.as_deref() == Some(name) && !m.data["status"]["nodeName"].is_null()
            })
        };
        match placed("demo-worker-1") {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    };
    wait::until_async("a machine with a node", LIMIT, INTERVAL, scheduled).await;
    let secrets = scene.api::<Secret>("mounts");
    for name in ["demo-control-plane-1-user-data", "demo-worker-1-user-data"] {
        let gone = secrets.delete(name, &DeleteParams::default()).await;
        drop(gone.expect("deletion"));
    }
    all().for_each(|node| scene.player().regain(&node));
    let output = end(knest).await;
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("FailedMount"), "{said}");
    let missing = "secret \"demo-control-plane-1-user-data\" not found";
    assert!(said.contains(missing), "{said}");
}

/// With all that is in it.
async fn the_namespace_goes(scene: &Hosted) {
    let mut knest = scene.begin(&create("going"));
    scene.running("going", 3, &mut knest).await;
    let all: Api<Namespace> = Api::all(scene.client.clone());
    drop(
        all.delete("going", &DeleteParams::default())
            .await
            .expect("deletion"),
    );
    let output = end(knest).await;
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("namespace going is being deleted"), "{said}");
    assert!(!said.contains("failed too"), "{said}");
    let gone = async || match all.get_opt("going").await {
        Ok(None) => Ok(()),
        found => Err(format!("{found:?}")),
    };
    wait::until_async("the end of the namespace", LIMIT, INTERVAL, gone).await;
    let list = scene.knest(&["list", "-A", "-o", "json"]);
    assert_eq!(String::from_utf8_lossy(&list.stdout).trim(), "[]");
}

/// Both take their time: a webhook is given some, and so are credentials.
#[tokio::test]
async fn what_stays_away_is_given_up() {
    need!(Host, Full);
    let scene = Hosted::start(Nothing::default()).await;
    let faulty = Faulty::start(&scene.host);
    let env = user(&faulty.kubeconfig());
    credentials_expire(&scene, &faulty, &env).await;

    a_webhook_is_down(&scene).await;
    let said = scene.ends(3, &create("default"));
    assert!(said.contains("failed calling webhook"), "{said}");
    assert!(
        said.contains("Virtink's controller does not answer"),
        "{said}"
    );
    scene.nothing_left("default").await;
}

/// What was made by then is deleted once they are renewed.
async fn credentials_expire(scene: &Hosted, faulty: &Faulty, env: &Env) {
    let mut knest = begin(env, &create("default"));
    scene.running("default", 3, &mut knest).await;
    faulty.set(|_, _| Fault::Status(401));
    let output = end(knest).await;
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the lock on cluster demo was lost"), "{said}");
    assert!(said.contains("401"), "{said}");
    assert!(said.contains("knest delete demo"), "{said}");
    faulty.set(|_, _| Fault::None);
    drop(env.succeed(&["delete", "demo"]));
    scene.nothing_left("default").await;
}

/// Its machines are lost: that is told at once. They can't be taken back before it is known that they
/// are off: until the host's administrator removes it.
#[tokio::test]
async fn a_host_dies() {
    need!(Host, Full);
    let scene = Hosted::start(Nothing::default()).await;
    let mut knest = scene.begin(&create("default"));
    scene.running("default", 3, &mut knest).await;
    let machine = scene.machines("default").get("demo-worker-1").await;
    let node = machine.expect("a machine").data["status"]["nodeName"].clone();
    let node = node.as_str().expect("its node");
    scene.player().lose(node);
    let hosts: Api<Node> = Api::all(scene.client.clone());
    let taint = json!({"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"});
    let taint = Patch::Merge(json!({"spec": {"taints": [taint]}}));
    let tainted = hosts.patch(node, &PatchParams::default(), &taint).await;
    drop(tainted.expect("a taint"));

    let waited = tokio::task::spawn_blocking(move || knest.wait_with_output());
    let held = async || {
        let machine = scene.machines("default").get("demo-worker-1").await;
        let machine = machine.map_err(|error| error.to_string())?;
        let going = machine.metadata.deletion_timestamp.is_some();
        going
            .then_some(())
            .ok_or_else(|| "not being deleted".to_owned())
    };
    wait::until_async("the taking back", LIMIT, INTERVAL, held).await;
    let removed = hosts.delete(node, &DeleteParams::default()).await;
    drop(removed.expect("deletion"));
    let output = waited.await.expect("a thread").expect("an end");
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    let told = format!("ended: its pod is taken off {node}");
    assert!(said.contains(&told), "{said}");
    scene.nothing_left("default").await;
}
