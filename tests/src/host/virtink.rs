//! Virtink on the host: its resource definitions, and where the machine has it, its own
//! controller with its admission webhooks.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fs_err as fs;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Host;
use super::pki::Authority;
use super::process::command;
use crate::env::program;

/// The group of Virtink's API.
pub const GROUP: &str = "virt.virtink.smartx.com";
/// Where `virt-controller` is installed, as its release's manifest has it.
pub const NAMESPACE: &str = "virtink-system";
/// Virtink's own definitions, beside this repository where its maintainers have them.
const DEFINITIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../shared/data/virtink-v0.17.0-crds.yaml"
);
/// What knest takes Virtink's VirtualMachine to be.
const OWN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../cli/src/provider/virtink/virtualmachines.crd.yaml"
);
/// The port that controller-runtime gives webhooks.
const PORT: u16 = 9443;

/// The type of a virtual machine.
#[must_use]
pub fn virtual_machine() -> ApiResource {
    let kind = GroupVersionKind::gvk(GROUP, "v1alpha1", "VirtualMachine");
    ApiResource::from_gvk(&kind)
}

impl Host {
    /// Defines Virtink's resources, and nothing else.
    pub async fn define_virtink(&mut self) {
        let client = self.client().await;
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
        });
        apply(&client, namespace).await;
        for definition in definitions() {
            apply(&client, definition).await;
        }
        self.wait("Virtink's API", async |client: &Client| {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &virtual_machine());
            api.list(&Default::default()).await
        })
        .await;
    }

    /// Defines Virtink's resources and, where `virt-controller` is on `PATH`, starts it with its
    /// webhooks; says whether it did. What a virtual machine does is the player's in either case.
    pub async fn install_virtink(&mut self) -> bool {
        self.define_virtink().await;
        let Some(controller) = program("virt-controller") else {
            return false;
        };
        self.start_controller(&controller);
        self.wait("virt-controller", async |_: &Client| {
            tokio::net::TcpStream::connect(("127.0.0.1", PORT))
                .await
                .map_err(|error| kube::Error::Service(error.into()))
        })
        .await;
        let client = self.client().await;
        for webhook in webhooks(self.authority()) {
            apply(&client, webhook).await;
        }
        true
    }

    /// Its certificate lies where controller-runtime looks by default, below `TMPDIR`.
    fn start_controller(&mut self, controller: &Path) {
        let temporary = self.directory().join("virt-controller");
        let certificates = temporary.join("k8s-webhook-server/serving-certs");
        fs::create_dir_all(&certificates).expect("a directory of the test's");
        let identity = self.authority().server(&[[127, 0, 0, 1].into()]);
        for (name, content) in [("tls.crt", identity.certificate), ("tls.key", identity.key)] {
            fs::write(certificates.join(name), content).expect("a file of the test's");
        }
        let mut command = command(controller);
        command
            .args(["--leader-elect=false", "--metrics-bind-address=0"])
            .env("TMPDIR", temporary)
            .env("KUBECONFIG", self.kubeconfig())
            .env("PRERUNNER_IMAGE", "virt-prerunner:v0.17.0");
        self.run("virt-controller", command);
    }
}

/// The documents of [`DEFINITIONS`]; else [`OWN`], and a migration that may be anything, without
/// which `virt-controller` does not start.
fn definitions() -> Vec<Value> {
    let documents = |text: &str| -> Vec<Value> {
        serde_yaml_ng::Deserializer::from_str(text)
            .map(|document| Value::deserialize(document).expect("Virtink's definitions"))
            .filter(|document| !document.is_null())
            .collect()
    };
    match fs::read_to_string(DEFINITIONS) {
        Ok(text) => documents(&text),
        Err(_) => {
            let own = fs::read_to_string(OWN).expect("knest's definition");
            let mut both = documents(&own);
            both.push(anything("VirtualMachineMigration", "vmm"));
            both
        }
    }
}

fn anything(kind: &str, short: &str) -> Value {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"),
                "plural": plural, "singular": singular, "shortNames": [short],
            },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object", "properties": {"spec": open, "status": open},
                }},
            }],
        },
    })
}

/// What the release's manifest registers, but at the address where the controller listens here.
fn webhooks(authority: &Authority) -> [Value; 2] {
    let webhook = |verb: &str, kind: &str, resource: &str| {
        json!({
            "name": format!("{verb}.{kind}.v1alpha1.{GROUP}"),
            "admissionReviewVersions": ["v1", "v1beta1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "clientConfig": {
                "url": format!("https://127.0.0.1:{PORT}/{verb}-v1alpha1-{kind}"),
                "caBundle": BASE64_STANDARD.encode(authority.certificate()),
            },
            "rules": [{
                "apiGroups": [GROUP], "apiVersions": ["v1alpha1"], "resources": [resource],
                "operations": ["CREATE", "UPDATE"],
            }],
        })
    };
    let machine = |verb| webhook(verb, "virtualmachine", "virtualmachines");
    let migration = |verb| webhook(verb, "virtualmachinemigration", "virtualmachinemigrations");
    let configuration = |kind: &str, name: &str, webhooks: &[Value]| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "webhooks": webhooks,
        })
    };
    [
        configuration(
            "MutatingWebhookConfiguration",
            "virtink-mutating-webhook-configuration",
            &[machine("mutate")],
        ),
        configuration(
            "ValidatingWebhookConfiguration",
            "virtink-validating-webhook-configuration",
            &[machine("validate"), migration("validate")],
        ),
    ]
}

/// Applies an object that is in no namespace.
pub(super) async fn apply(client: &Client, object: Value) {
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    let types = object.types.as_ref().expect("its kind");
    let kind = GroupVersionKind::try_from(types).expect("its kind");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    let name = object.metadata.name.as_deref().expect("its name");
    let manner = PatchParams::apply("knest-tests").force();
    let applied = api.patch(name, &manner, &Patch::Apply(&object)).await;
    drop(applied.unwrap_or_else(|error| panic!("{name}: {error}")));
}
