//! The API that a cluster itself serves, as far as knest needs it: is it healthy, which nodes are
//! Ready, is CoreDNS available; tokens for nodes to come, drain and farewell for nodes that leave.
//! Knows neither machines nor providers.

use super::kubeconfig;
use super::name::NodeName;
use super::record::{BootstrapToken, Record};
use crate::failure::{Context, Failure, Result, innermost};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{Api, AttachParams, DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::{Client, Config};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How long one call may take. The API of a node that is still booting may accept a connection and
/// then not answer.
const CALL: Duration = Duration::from_secs(15);

/// How long a program in a pod may take, and how much it may say.
const EXEC: Duration = Duration::from_secs(60);
const OUTPUT_MAX: u64 = 1 << 20;

/// The cluster's API, as its administrator.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(super) client: Client,
}

/// A node as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSeen {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// Why it is not Ready, in the kubelet's words.
    pub(crate) message: String,
}

impl Guest {
    /// A client for the cluster of `record`, whose endpoint and keys must be there. Makes no
    /// connection yet.
    pub(crate) async fn of(record: &Record) -> Result<Self> {
        Self::by_way_of(record, None).await
    }

    /// The same of one control plane's own API server, past whatever balances them.
    pub(crate) async fn at(record: &Record, server: SocketAddr) -> Result<Self> {
        Self::by_way_of(record, Some(server)).await
    }

    async fn by_way_of(record: &Record, server: Option<SocketAddr>) -> Result<Self> {
        let text = kubeconfig::for_record(record)?;
        let parsed = kube::config::Kubeconfig::from_yaml(&text)
            .map_err(|e| Failure::internal("reading a kubeconfig of our own").because(e))?;
        let mut config = Config::from_custom_kubeconfig(parsed, &Default::default())
            .await
            .map_err(|e| Failure::internal("a client for the cluster").because(e))?;
        if let Some(server) = server {
            config.cluster_url = format!("https://{server}")
                .parse()
                .map_err(|e| Failure::internal("an API server's address").because(e))?;
        }
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(CALL);
        config.write_timeout = Some(CALL);
        config.default_retry = false;
        let client = Client::try_from(config)
            .map_err(|e| Failure::internal("a client for the cluster").because(e))?;
        Ok(Self { client })
    }

    /// Whether the API server calls itself ready; else what it said instead.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let request = http::Request::get("/readyz")
            .body(vec![])
            .map_err(|e| e.to_string())?;
        match tokio::time::timeout(CALL, self.client.request_text(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failing_checks(&innermost(&error))),
            Err(_) => Err(format!("no answer in {} s", CALL.as_secs())),
        }
    }

    /// Every node, by name.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeSeen>, String> {
        let api: Api<Node> = Api::all(self.client.clone());
        let nodes = api
            .list(&ListParams::default())
            .await
            .map_err(|e| innermost(&e))?;
        Ok(nodes.items.iter().map(seen).collect())
    }

    /// Whether the API server on a control plane calls itself ready: from then on it is published in
    /// the endpoints of Service `kubernetes`. Else what is missing.
    pub(crate) async fn serves(&self, node: &NodeName) -> Result<(), String> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let found = nodes
            .get_opt(node.as_str())
            .await
            .map_err(|e| innermost(&e))?;
        let address = found.as_ref().and_then(internal_address);
        let address = address.ok_or_else(|| format!("{node} has no address yet"))?;
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "default");
        let of_api = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
        let slices = slices.list(&of_api).await.map_err(|e| innermost(&e))?;
        match slices.iter().any(|slice| publishes(slice, address)) {
            true => Ok(()),
            false => Err(format!("the API server on {node} is not ready yet")),
        }
    }

    /// Whether CoreDNS's Deployment is Available; else how far it is.
    pub(crate) async fn coredns(&self) -> Result<(), String> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), "kube-system");
        let found = api.get_opt("coredns").await.map_err(|e| innermost(&e))?;
        let status = found
            .ok_or("no Deployment coredns yet")?
            .status
            .unwrap_or_default();
        let is = |field: &Option<String>, value| field.as_deref() == Some(value);
        let mut conditions = status.conditions.iter().flatten();
        if conditions.any(|c| is(&c.type_, "Available") && is(&c.status, "True")) {
            return Ok(());
        }
        let (available, wanted) = (status.available_replicas, status.replicas);
        Err(format!(
            "CoreDNS: {} of {} available",
            available.unwrap_or(0),
            wanted.unwrap_or(0)
        ))
    }

    /// Makes a bootstrap token known to the cluster: the Secret that kubeadm would make.
    pub(crate) async fn admit(&self, token: &BootstrapToken) -> Result<()> {
        let (id, secret) = token
            .value
            .split_once('.')
            .ok_or_else(|| Failure::internal("a bootstrap token without a dot"))?;
        let expires = token
            .expires
            .to_offset(time::UtcOffset::UTC)
            .format(&Rfc3339)
            .map_err(|e| Failure::internal("writing a time").because(e))?;
        let name = format!("bootstrap-token-{id}");
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": name, "namespace": "kube-system"},
            "stringData": {
                "token-id": id, "token-secret": secret, "expiration": expires,
                "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
            },
        });
        let api: Api<Secret> = Api::namespaced(self.client.clone(), "kube-system");
        let ours = PatchParams::apply("knest").force();
        api.patch(&name, &ours, &Patch::Apply(object))
            .await
            .guest("adding a bootstrap token")?;
        Ok(())
    }

    /// Makes a bootstrap token unknown again.
    pub(crate) async fn revoke(&self, token: &BootstrapToken) -> Result<()> {
        let id = token.value.split('.').next().unwrap_or_default();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), "kube-system");
        gone(
            api.delete(&format!("bootstrap-token-{id}"), &DeleteParams::default())
                .await,
        )
        .guest("removing the bootstrap token")
    }

    /// Cordons a node and evicts what runs on it, once. Pods that DaemonSets own stay, as do
    /// static ones. Returns the names of those that are still there: call again until none is.
    pub(crate) async fn drain(&self, node: &NodeName) -> Result<Vec<String>> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        match nodes
            .patch(node.as_str(), &PatchParams::default(), &cordon)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(vec![]),
            other => other.guest(format!("cordoning node {node}"))?,
        };
        let pods: Api<Pod> = Api::all(self.client.clone());
        let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let mut left = vec![];
        for pod in pods
            .list(&here)
            .await
            .guest(format!("listing the pods on {node}"))?
        {
            if stays(&pod) {
                continue;
            }
            let namespace = pod.metadata.namespace.unwrap_or_default();
            let name = pod.metadata.name.unwrap_or_default();
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            match api.evict(&name, &EvictParams::default()).await {
                // 429: a PodDisruptionBudget says not now.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => {}
                other => drop(other.guest(format!("evicting {namespace}/{name}"))?),
            }
            left.push(format!("{namespace}/{name}"));
        }
        Ok(left)
    }

    /// Runs a program in a container of a pod of `kube-system`; its standard output, of bounded
    /// size.
    pub(crate) async fn exec(
        &self,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> Result<String> {
        let what = || format!("running {} in pod {pod}", command.first().unwrap_or(&""));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), "kube-system");
        let how = AttachParams::default().container(container).stderr(true);
        let talk = async {
            let mut process = api.exec(pod, command.to_vec(), &how).await.guest(what())?;
            let (mut output, mut errors) = (vec![], vec![]);
            let (stdout, stderr) = (process.stdout(), process.stderr());
            let status = process.take_status();
            tokio::try_join!(read(stdout, &mut output), read(stderr, &mut errors)).guest(what())?;
            let ended = match status {
                Some(status) => status.await,
                None => None,
            };
            process.abort();
            Ok::<_, Failure>((output, errors, ended))
        };
        let (output, errors, ended) = tokio::time::timeout(EXEC, talk).await.map_err(|_| {
            Failure::guest(format!("{}: not done in {} s", what(), EXEC.as_secs()))
        })??;
        match ended {
            Some(status) if status.status.as_deref() == Some("Success") => {
                Ok(String::from_utf8_lossy(&output).into_owned())
            }
            Some(status) => {
                let message = status.message.unwrap_or_default();
                Err(Failure::guest(format!("{}: {message}", what()))
                    .evidence(String::from_utf8_lossy(&errors)))
            }
            None => Err(Failure::guest(format!("{}: it was cut off", what()))),
        }
    }

    /// Removes a Node object.
    pub(crate) async fn delete_node(&self, node: &NodeName) -> Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        gone(api.delete(node.as_str(), &DeleteParams::default()).await)
            .guest(format!("deleting node {node}"))
    }
}

/// All that a program wrote, as far as there is room.
async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> std::io::Result<()> {
    match from {
        Some(from) => from.take(OUTPUT_MAX).read_to_end(into).await.map(drop),
        None => Ok(()),
    }
}

/// An absent object is as good as a deleted one.
pub(super) fn gone<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

fn stays(pod: &Pod) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut kinds = owners.map(|o| o.kind.as_str());
    let mirror = pod
        .metadata
        .annotations
        .iter()
        .flatten()
        .any(|(k, _)| k == "kubernetes.io/config.mirror");
    let over = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    mirror || kinds.any(|k| k == "DaemonSet") || matches!(over, Some("Succeeded" | "Failed"))
}

fn seen(node: &Node) -> NodeSeen {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "Ready");
    NodeSeen {
        name: node.metadata.name.clone().unwrap_or_default(),
        ready: ready.is_some_and(|c| c.status == "True"),
        message: ready.and_then(|c| c.message.clone()).unwrap_or_default(),
    }
}

fn internal_address(node: &Node) -> Option<&str> {
    let mut addresses = node
        .status
        .iter()
        .flat_map(|s| s.addresses.iter().flatten());
    let internal = addresses.find(|a| a.type_ == "InternalIP");
    internal.map(|a| a.address.as_str())
}

fn publishes(slice: &EndpointSlice, address: &str) -> bool {
    let ready = |e: &&Endpoint| e.conditions.as_ref().and_then(|c| c.ready) != Some(false);
    let mut endpoints = slice.endpoints.iter().flatten().filter(ready);
    endpoints.any(|e| e.addresses.iter().any(|a| a == address))
}

/// `/readyz` answers with a line for each of dozens of checks; those that fail are marked `[-]`.
fn failing_checks(answer: &str) -> String {
    let failing: Vec<&str> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("[-]")?.split_whitespace().next())
        .collect();
    match failing[..] {
        [] => answer.lines().next().unwrap_or_default().to_owned(),
        _ => format!("not ready: {}", failing.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_is_found_by_its_nodes_address() {
        let node: Node = serde_json::from_value(json!({"status": {"addresses": [
            {"type": "Hostname", "address": "demo-control-plane-2"},
            {"type": "InternalIP", "address": "10.64.0.12"},
        ]}}))
        .unwrap();
        let address = internal_address(&node).unwrap();
        let slice = |endpoint: serde_json::Value| -> EndpointSlice {
            serde_json::from_value(json!({"addressType": "IPv4", "metadata": {}, "endpoints": [
                {"addresses": ["10.64.0.10"], "conditions": {"ready": true}}, endpoint,
            ]}))
            .unwrap()
        };
        for (endpoint, published) in [
            (
                json!({"addresses": ["10.64.0.12"], "conditions": {"ready": true}}),
                true,
            ),
            (json!({"addresses": ["10.64.0.12"]}), true),
            (
                json!({"addresses": ["10.64.0.12"], "conditions": {"ready": false}}),
                false,
            ),
            (json!({"addresses": ["10.64.0.1"]}), false),
        ] {
            assert_eq!(publishes(&slice(endpoint), address), published);
        }
        assert_eq!(internal_address(&Node::default()), None);
    }

    #[test]
    fn one_line_says_what_is_not_ready() {
        let answer = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\n\
            [-]poststarthook/rbac/bootstrap-roles failed: reason withheld\nreadyz check failed";
        assert_eq!(
            failing_checks(answer),
            "not ready: etcd, poststarthook/rbac/bootstrap-roles"
        );
        assert_eq!(
            failing_checks("connection refused\nmore"),
            "connection refused"
        );
    }
}
