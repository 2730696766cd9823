//! What Calico and Kube-OVN show of themselves on a host's API: definitions with the fields that
//! knest reads, and objects of a test's choice. No network is behind them; that pods get the
//! addresses which they ask for by annotation is the [`player`](crate::player)'s, and the API server
//! takes no other one for them.

use std::net::Ipv4Addr;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::Host;
use super::virtink::apply;

const CALICO: &str = "crd.projectcalico.org";
const KUBE_OVN: &str = "kubeovn.io";
/// By what a pod asks for an address, and how it is written there.
const CALICO_ASKS: (&str, [&str; 2]) = ("cni.projectcalico.org/ipAddrs", ["[\\\"", "\\\"]"]);
const KUBE_OVN_ASKS: (&str, [&str; 2]) = ("ovn.kubernetes.io/ip_address", ["", ""]);

impl Host {
    /// Calico with one pool, and those addresses of its first 64 in use.
    pub async fn define_calico(&mut self, pool: &str, used: &[usize]) {
        let kinds = [("IPPool", "ippools"), ("IPAMBlock", "ipamblocks")];
        self.define(CALICO, &kinds).await;
        let client = self.client().await;
        enforce(&client, CALICO_ASKS).await;
        let first = pool.split('/').next().expect("an address");
        let allocations: Vec<Value> = (0..64)
            .map(|place| used.contains(&place).then_some(0).into())
            .collect();
        for (kind, name, spec) in [
            ("IPPool", "default-ipv4-ippool", json!({"cidr": pool})),
            (
                "IPAMBlock",
                "block",
                json!({"cidr": format!("{first}/26"), "allocations": allocations}),
            ),
        ] {
            apply(&client, object(CALICO, kind, name, &spec)).await;
        }
    }

    /// Kube-OVN with a default subnet, and those addresses in use.
    pub async fn define_kube_ovn(&mut self, subnet: &str, gateway: &str, used: &[Ipv4Addr]) {
        let kinds = [("Subnet", "subnets"), ("IP", "ips")];
        self.define(KUBE_OVN, &kinds).await;
        let client = self.client().await;
        enforce(&client, KUBE_OVN_ASKS).await;
        let spec = json!({"cidrBlock": subnet, "gateway": gateway, "default": true});
        apply(&client, object(KUBE_OVN, "Subnet", "ovn-default", &spec)).await;
        for (number, address) in used.iter().enumerate() {
            let spec = json!({"v4IpAddress": address, "subnet": "ovn-default"});
            let name = format!("pod-{number}");
            apply(&client, object(KUBE_OVN, "IP", &name, &spec)).await;
        }
    }

    async fn define(&mut self, group: &str, kinds: &[(&str, &str)]) {
        let client = self.client().await;
        for (kind, plural) in kinds {
            apply(&client, definition(group, kind, plural)).await;
            let kind = GroupVersionKind::gvk(group, "v1", kind);
            let resource = ApiResource::from_gvk_with_plural(&kind, plural);
            self.wait("the network's API", async |client: &Client| {
                let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
                api.list(&Default::default()).await
            })
            .await;
        }
    }
}

/// A pod that asks for an address has that one or none.
async fn enforce(client: &Client, (asks, [before, after]): (&str, [&str; 2])) {
    let is = |kind: &str, spec: &Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": "addresses"}, "spec": spec,
        })
    };
    let asked = format!("object.metadata.annotations['{asks}']");
    let given = format!("\"{before}\" + object.status.podIP + \"{after}\"");
    let policy = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/status"],
            "operations": ["UPDATE"],
        }]},
        "matchConditions": [
            {"name": "has-one", "expression": "has(object.status.podIP)"},
            {"name": "asks", "expression": format!(
                "has(object.metadata.annotations) && '{asks}' in object.metadata.annotations"
            )},
        ],
        "validations": [{
            "expression": format!("{asked} == {given}"),
            "messageExpression": format!("\"it asks for \" + {asked} + \", not \" + {given}"),
        }],
    });
    let binding = json!({"policyName": "addresses", "validationActions": ["Deny"]});
    apply(client, is("ValidatingAdmissionPolicy", &policy)).await;
    apply(client, is("ValidatingAdmissionPolicyBinding", &binding)).await;
}

fn object(group: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    })
}

/// Of a kind that is in no namespace, with anything below `spec`.
fn definition(group: &str, kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"),
                "plural": plural, "singular": kind.to_lowercase(),
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    })
}
