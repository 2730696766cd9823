//! One worker as its cluster's API sees it. It does not know whom it speaks to: no certificate of
//! the server's is looked at.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Config, ResourceExt};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use super::join::Join;
use crate::host::nodes::ready;

/// How long until the next try, and the next look for a certificate.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it says that it lives, for 40 s each time.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Joins, and lives until it is dropped. Whatever fails is tried again.
pub(super) async fn live(join: Join, address: Ipv4Addr) {
    let client = again(async || bootstrap(&join).await).await;
    again(async || register(&client, &join.name, address).await).await;
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    loop {
        again(async || beat(&leases, &join.name).await).await;
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// A client with a certificate that the bootstrap token got.
async fn bootstrap(join: &Join) -> kube::Result<Client> {
    let client = client(&join.server, json!({"token": join.token}))?;
    let key = KeyPair::generate().map_err(other)?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    let name = format!("system:node:{}", join.name);
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params
        .serialize_request(&key)
        .and_then(|request| request.pem());
    let request = json!({
        "metadata": {"generateName": "node-csr-"},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
            "request": BASE64_STANDARD.encode(request.map_err(other)?),
        },
    });
    let request: CertificateSigningRequest = serde_json::from_value(request).map_err(other)?;
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let name = api
        .create(&PostParams::default(), &request)
        .await?
        .name_any();
    let certificate = loop {
        let status = api.get(&name).await?.status;
        if let Some(certificate) = status.and_then(|status| status.certificate) {
            break certificate.0;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let identity = json!({
        "client-certificate-data": BASE64_STANDARD.encode(certificate),
        "client-key-data": BASE64_STANDARD.encode(key.serialize_pem()),
    });
    self::client(&join.server, identity)
}

/// One that is there already is its own, of an earlier try. What could run anywhere stays away: there is
/// nobody to run it.
async fn register(client: &Client, name: &str, address: Ipv4Addr) -> kube::Result<()> {
    let resources = json!({"cpu": "2", "memory": "4Gi", "ephemeral-storage": "8Gi", "pods": "110"});
    let node = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        }},
        "spec": {"taints": [{"key": "knest.dev/played", "effect": "NoSchedule"}]},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [
                {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name},
            ],
            "conditions": [ready(true)],
        },
    });
    let node: Node = serde_json::from_value(node).map_err(other)?;
    let api: Api<Node> = Api::all(client.clone());
    match api.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        created => created.map(drop),
    }
}

async fn beat(leases: &Api<Lease>, name: &str) -> kube::Result<()> {
    let now = k8s_openapi::jiff::Timestamp::now();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "spec": {
            "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}"),
        },
    });
    let manner = PatchParams::apply("kubelet").force();
    leases
        .patch(name, &manner, &Patch::Apply(lease))
        .await
        .map(drop)
}

fn client(server: &str, identity: Value) -> kube::Result<Client> {
    let mut config = Config::new(format!("https://{server}").parse().map_err(other)?);
    config.auth_info = serde_json::from_value(identity).map_err(other)?;
    config.accept_invalid_certs = true;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> kube::Error {
    kube::Error::Service(error.into())
}

/// Until it succeeds.
async fn again<T>(mut call: impl AsyncFnMut() -> kube::Result<T>) -> T {
    loop {
        if let Ok(done) = call().await {
            return done;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
