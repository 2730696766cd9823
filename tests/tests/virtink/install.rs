//! Virtink's installation from manifests, on a host that lacks it, has half of it, or has a newer one.
//! The manifests are small ones with what matters in the releases' own: definitions, an object that
//! cert-manager must be there for, a Deployment, a DaemonSet.

use std::path::{Path, PathBuf};

use fs_err as fs;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use knest_tests::hosted::{begin, errors, interrupt, user};
use knest_tests::player::{Nothing, Player};
use knest_tests::{Env, Hollow, Host, Steps, alone, need, wait};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::time::Duration;

const DEFINITION: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../cli/src/provider/virtink/virtualmachines.crd.yaml"
);

const CERT_MANAGER: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: cert-manager-webhook, namespace: cert-manager}
spec:
  selector: {matchLabels: {app: webhook}}
  template:
    metadata: {labels: {app: webhook}}
    spec: {containers: [{name: webhook, image: 'registry.example/cert-manager-webhook:v1.21.1'}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: cert-manager}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificates.cert-manager.io}
spec:
  group: cert-manager.io
  names: {kind: Certificate, listKind: CertificateList, plural: certificates, singular: certificate}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

const VIRTINK: &str = r"
---
apiVersion: v1
kind: Namespace
metadata: {name: virtink-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: virt-controller, namespace: virtink-system}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: virt-controller-cert, namespace: virtink-system}
spec: {secretName: virt-controller-cert}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: virt-controller, namespace: virtink-system}
spec:
  selector: {matchLabels: {name: virt-controller}}
  template:
    metadata: {labels: {name: virt-controller}}
    spec:
      serviceAccountName: virt-controller
      containers: [{name: virt-controller, image: 'registry.example/virt-controller:v0.17.0'}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: virt-daemon, namespace: virtink-system}
spec:
  selector: {matchLabels: {name: virt-daemon}}
  template:
    metadata: {labels: {name: virt-daemon}}
    spec: {containers: [{name: virt-daemon, image: 'registry.example/virt-daemon:v0.17.0'}]}
";

const NAMESPACE: &str = "virtink-system";

#[tokio::test]
async fn virtink_is_installed_where_the_user_says_so() {
    need!(Host);
    let host = Host::start().await;
    let env = user(&host.kubeconfig()).with_variable("KNEST_PROVIDER", "virtink");
    let client = host.client().await;
    let manifests = manifests(&env);
    let player = Player::start(&host, false, Nothing::default());

    nothing_by_itself(&env, &client).await;
    let said = install(&env, &manifests);
    assert!(
        said.contains("Virtink v0.17.0 works; it was missing."),
        "{said}"
    );
    what_works_is_left_alone(&env, &client, &manifests).await;
    what_is_incomplete_is_repaired(&env, &client, &manifests).await;
    what_is_newer_is_left_alone(&env, &client, &manifests).await;
    drop(player);
}

/// What was published, word for word, on a host that lacks Virtink and on one that has it; what is made
/// right after lands in the same place.
#[tokio::test]
async fn the_published_commands() {
    need!(Host, Hollow);
    let _turn = alone();
    let steps = Steps::of("virtink, the published commands");
    let host = Host::start().await;
    let env = user(&host.kubeconfig());
    let client = host.client().await;
    let manifests = manifests(&env);
    let player = Player::start(&host, false, Hollow::new());
    let default = ["config", "set-default", "provider", "virtink"];
    drop(succeeds(&env, &default));

    let create = [
        "create",
        "demo",
        "--pod-network-cidr",
        "10.245.0.0/16",
        "--service-cidr",
        "10.112.0.0/12",
    ];
    let manifests = manifests.iter().map(String::as_str);
    let install: Vec<&str> = create
        .into_iter()
        .chain(["--install"])
        .chain(manifests)
        .collect();
    let said = steps.step("create --install", || succeeds(&env, &install));
    assert!(
        said.contains("Virtink v0.17.0 works; it was missing."),
        "{said}"
    );
    let scale = ["scale", "demo", "--worker-machine-count", "1"];
    let said = steps.step("scale", || succeeds(&env, &scale));
    assert!(said.contains("Cluster demo has 2 nodes."), "{said}");
    drop(succeeds(&env, &["delete", "demo"]));

    // The current context was the cluster's, and went with it.
    fs::copy(host.kubeconfig(), env.kubeconfig()).expect("the kubeconfig");
    let said = steps.step("create", || succeeds(&env, &create));
    assert!(
        said.starts_with("virtink: knest config; context host\n"),
        "{said}"
    );
    let mut knest = begin(&env, &["create", "second"]);
    running(&client, &mut knest, "second-control-plane-1").await;
    let said = errors(&interrupt(knest).await);
    let line = "virtink: knest config; context host, the host of knest-demo\n";
    assert!(said.starts_with(line), "{said}");
    drop(succeeds(&env, &["delete", "demo"]));
    drop(player);
}

/// Runs `knest`; returns what it said.
fn succeeds(env: &Env, arguments: &[&str]) -> String {
    let output = env.knest(arguments).output().expect("knest starts");
    let said = errors(&output);
    assert!(output.status.success(), "knest {arguments:?}: {said}");
    said
}

async fn running(client: &Client, knest: &mut std::process::Child, machine: &str) {
    let kind = knest_tests::host::virtink::virtual_machine();
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &kind);
    let (limit, interval) = (Duration::from_secs(90), Duration::from_millis(100));
    wait::until_async("a running machine", limit, interval, async || {
        if let Ok(Some(status)) = knest.try_wait() {
            panic!("knest ended: {status}");
        }
        match api.get(machine).await {
            Ok(machine) if machine.data["status"]["phase"] == "Running" => Ok(()),
            Ok(machine) => Err(machine.data["status"].to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

fn manifests(env: &Env) -> [String; 4] {
    let definition = fs::read_to_string(DEFINITION).expect("Virtink's definition");
    let write = |name: &str, text: &str| -> PathBuf {
        let path = env.root().join(name);
        fs::write(&path, text).expect("a file of the test's");
        path
    };
    let virtink = write("virtink.yaml", &format!("{definition}{VIRTINK}"));
    let certificates = write("cert-manager.yaml", CERT_MANAGER);
    let word = |path: &Path| path.display().to_string();
    [
        "--virtink-manifest".into(),
        word(&virtink),
        "--cert-manager-manifest".into(),
        word(&certificates),
    ]
}

/// Runs `knest install` with the manifests; returns what it said.
fn install(env: &Env, manifests: &[String]) -> String {
    let install = ["install", "--timeout", "2m"].into_iter();
    let words: Vec<&str> = install
        .chain(manifests.iter().map(String::as_str))
        .collect();
    succeeds(env, &words)
}

async fn definitions(client: &Client) -> Vec<String> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let all = api.list(&ListParams::default()).await.expect("definitions");
    all.iter().map(ResourceExt::name_any).collect()
}

async fn nothing_by_itself(env: &Env, client: &Client) {
    let output = env
        .knest(["create", "demo"])
        .output()
        .expect("knest starts");
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.starts_with("virtink: KNEST_PROVIDER; context host\n"),
        "{said}"
    );
    assert!(
        said.contains("error: context host has no Virtink"),
        "{said}"
    );
    assert!(said.contains("hint: --install installs it"), "{said}");
    assert_eq!(definitions(client).await, Vec::<String>::new());
}

async fn what_works_is_left_alone(env: &Env, client: &Client, manifests: &[String]) {
    let controllers: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let controller = async || controllers.get("virt-controller").await.expect("it");
    let before = controller().await;
    let said = install(env, manifests);
    assert!(
        said.contains("cert-manager v1.21.1 works; it was there already."),
        "{said}"
    );
    assert!(
        said.contains("Virtink v0.17.0 works; it was there already."),
        "{said}"
    );
    assert_eq!(controller().await.metadata, before.metadata);
}

/// The controller's object of a kind.
async fn delete<K>(api: &Api<K>)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let deleted = api
        .delete("virt-controller", &DeleteParams::default())
        .await;
    drop(deleted.expect("deletion"));
}

async fn what_is_incomplete_is_repaired(env: &Env, client: &Client, manifests: &[String]) {
    let controllers: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    delete(&controllers).await;
    delete(&accounts).await;
    let said = install(env, manifests);
    assert!(
        said.contains("Virtink v0.17.0 works; it was incomplete."),
        "{said}"
    );
    let there = controllers.get("virt-controller").await.expect("it");
    let available = there.status.and_then(|status| status.available_replicas);
    assert_eq!(available, Some(1));
    drop(accounts.get("virt-controller").await.expect("it"));
}

async fn what_is_newer_is_left_alone(env: &Env, client: &Client, manifests: &[String]) {
    let controllers: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let image = "registry.example/virt-controller:v0.18.0";
    let newer = json!({"spec": {"template": {"spec": {
        "serviceAccountName": "default",
        "containers": [{"name": "virt-controller", "image": image}],
    }}}});
    let patched = controllers
        .patch(
            "virt-controller",
            &PatchParams::default(),
            &Patch::Strategic(newer),
        )
        .await;
    drop(patched.expect("a patch"));
    delete(&accounts).await;
    let said = install(env, manifests);
    assert!(
        said.contains("Virtink v0.18.0 works; it was incomplete."),
        "{said}"
    );
    assert!(
        accounts
            .get_opt("virt-controller")
            .await
            .expect("an answer")
            .is_none()
    );
    let there = controllers.get("virt-controller").await.expect("it");
    let containers = there.spec.template.spec.map(|spec| spec.containers);
    assert_eq!(
        containers.expect("containers")[0].image.as_deref(),
        Some(image)
    );
}
