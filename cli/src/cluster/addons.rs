//! What a cluster of a new version needs changed in its own API, beside new nodes: the version that
//! kubeadm joins with, and the images of kube-proxy, the CNI and CoreDNS. Which images those are, the
//! first node of the new version says itself: it brought them along, and they may be nowhere else.
//!
//! ```text
//! kubeadm-config   before the first new node, which is joined by what stands there
//! kube-proxy, CNI  as soon as that node has registered: it is Ready only with its own images. Old
//!                  nodes, which lack them, keep the pods that they have (updateStrategy OnDelete),
//!                  and those that it was given at once, of the images of before, are made anew
//! CoreDNS          when it is Ready: rolled over with the old nodes closed to new pods
//! ```

use super::guest::{Guest, gone};
use super::name::NodeName;
use super::version::Version;
use crate::failure::{Context, Failure, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

const NAMESPACE: &str = "kube-system";

/// One pod on every node: its proxy, and its network.
const DAEMONS: [&str; 2] = ["kube-proxy", "kube-router"];

/// Marks a node that was closed to new pods here, and not by its user.
const CLOSED: &str = "knest.dev/closed-for-upgrade";

impl Guest {
    /// Has kubeadm join nodes with this version from now on.
    pub(crate) async fn set_kubeadm_version(&self, version: Version) -> Result<()> {
        const KEY: &str = "ClusterConfiguration";
        let what = "changing kubeadm's configuration in the cluster";
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
        let found = api.get("kubeadm-config").await.guest(what)?;
        let text = found.data.as_ref().and_then(|d| d.get(KEY));
        let text = text.ok_or_else(|| Failure::guest(format!("{what}: it has no {KEY}")))?;
        let changed = with_version(text, version).guest(what)?;
        if changed == *text {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"data": {KEY: changed}}));
        let ours = PatchParams::default();
        api.patch("kubeadm-config", &ours, &patch)
            .await
            .guest(what)?;
        Ok(())
    }

    /// Gives the pods that every node has the images that `node` brought; nodes that have such a pod
    /// keep it. Nothing until `node` has registered.
    pub(crate) async fn daemons_follow(&self, node: &NodeName) -> Result<()> {
        let images = self.images_of(node).await?;
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        for name in DAEMONS {
            let what = format!("changing DaemonSet {name}");
            let Some(found) = api.get_opt(name).await.guest(&what)? else {
                continue;
            };
            let template = found.spec.template.spec;
            let changes = successors(template.map(|s| s.containers), &images);
            if changes.is_empty() {
                continue;
            }
            let patch = Patch::Strategic(json!({"spec": {
                "updateStrategy": {"type": "OnDelete", "rollingUpdate": null},
                "template": {"spec": {"containers": changes}},
            }}));
            let ours = PatchParams::default();
            api.patch(name, &ours, &patch).await.guest(&what)?;
        }
        Ok(())
    }

    /// Has the pods made anew that `node` got before [`Guest::daemons_follow`] knew its images: they
    /// wait for images that it does not have.
    pub(crate) async fn daemons_begin_anew(&self, node: &NodeName) -> Result<()> {
        let images = self.images_of(node).await?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let what = format!("listing the pods on {node}");
        for pod in api.list(&here).await.guest(what)? {
            if !waits_in_vain(&pod, &images) {
                continue;
            }
            let name = pod.metadata.name.unwrap_or_default();
            gone(api.delete(&name, &DeleteParams::default()).await)
                .guest(format!("deleting pod {name}"))?;
        }
        Ok(())
    }

    /// Lets the pods that every node has be replaced as usual again.
    pub(crate) async fn daemons_roll(&self) -> Result<()> {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        for name in DAEMONS {
            let what = format!("changing DaemonSet {name}");
            let Some(found) = api.get_opt(name).await.guest(&what)? else {
                continue;
            };
            let strategy = found.spec.update_strategy;
            if strategy.and_then(|s| s.type_).as_deref() == Some("OnDelete") {
                let rolling = json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}}});
                let ours = PatchParams::default();
                api.patch(name, &ours, &Patch::Merge(rolling))
                    .await
                    .guest(&what)?;
            }
        }
        Ok(())
    }

    /// Gives CoreDNS the image that `node` brought.
    pub(crate) async fn dns_follows(&self, node: &NodeName) -> Result<()> {
        let what = "changing CoreDNS";
        let images = self.images_of(node).await?;
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), NAMESPACE);
        let Some(found) = api.get_opt("coredns").await.guest(what)? else {
            return Ok(());
        };
        let template = found.spec.template.spec;
        let changes = successors(template.map(|s| s.containers), &images);
        if changes.is_empty() {
            return Ok(());
        }
        let patch =
            Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": changes}}}}));
        let ours = PatchParams::default();
        api.patch("coredns", &ours, &patch).await.guest(what)?;
        Ok(())
    }

    /// Whether all of CoreDNS is of one template and available; else how far it is.
    pub(crate) async fn dns_rolled(&self) -> Result<(), String> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), NAMESPACE);
        let found = api.get_opt("coredns").await.map_err(|e| e.to_string())?;
        match found {
            Some(found) => rolled(&found),
            None => Ok(()),
        }
    }

    /// Closes nodes to new pods, those apart that are closed already.
    pub(crate) async fn close(&self, nodes: &[NodeName]) -> Result<()> {
        self.open_or_close(nodes, true).await
    }

    /// Opens nodes again that [`Guest::close`] closed.
    pub(crate) async fn open(&self, nodes: &[NodeName]) -> Result<()> {
        self.open_or_close(nodes, false).await
    }

    async fn open_or_close(&self, nodes: &[NodeName], close: bool) -> Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        for name in nodes {
            let what = format!("closing or opening node {name}");
            let Some(node) = api.get_opt(name.as_str()).await.guest(&what)? else {
                continue;
            };
            let closed = node.spec.and_then(|s| s.unschedulable).unwrap_or(false);
            let ours = node
                .metadata
                .annotations
                .is_some_and(|a| a.contains_key(CLOSED));
            let (mark, act) = match close {
                true => (json!(""), !closed),
                false => (json!(null), ours),
            };
            if act {
                let patch = Patch::Merge(json!({
                    "metadata": {"annotations": {CLOSED: mark}},
                    "spec": {"unschedulable": close},
                }));
                let params = PatchParams::default();
                api.patch(name.as_str(), &params, &patch)
                    .await
                    .guest(&what)?;
            }
        }
        Ok(())
    }

    /// Every name of every image that a node has; none until it has registered.
    async fn images_of(&self, node: &NodeName) -> Result<Vec<String>> {
        let api: Api<Node> = Api::all(self.client.clone());
        let what = format!("looking at node {node}");
        let found = api.get_opt(node.as_str()).await.guest(what)?;
        let images = found.and_then(|n| n.status).and_then(|s| s.images);
        let names = images.into_iter().flatten().filter_map(|i| i.names);
        Ok(names.flatten().collect())
    }
}

/// The document with another version; the rest of it may be written differently and says the same.
fn with_version(text: &str, version: Version) -> Result<String, serde_yaml_ng::Error> {
    let mut document: serde_yaml_ng::Mapping = serde_yaml_ng::from_str(text)?;
    let value = serde_yaml_ng::Value::from(version.to_string());
    if document.get("kubernetesVersion") == Some(&value) {
        return Ok(text.to_owned());
    }
    document.insert("kubernetesVersion".into(), value);
    serde_yaml_ng::to_string(&document)
}

/// What to change in a pod's containers so that they run images of a node that has others of the
/// same repository and not theirs.
fn successors(containers: Option<Vec<Container>>, images: &[String]) -> Vec<serde_json::Value> {
    let successor = |container: Container| {
        let image = container.image?;
        let (repository, _) = tagged(&image)?;
        if images.contains(&image) {
            return None;
        }
        let of_it = |i: &&String| tagged(i).is_some_and(|(r, _)| r == repository);
        let new = images.iter().find(of_it)?;
        Some(json!({"name": container.name, "image": new}))
    };
    containers
        .into_iter()
        .flatten()
        .filter_map(successor)
        .collect()
}

/// Whether a pod is one of those that every node has, and of an image that has a successor here.
fn waits_in_vain(pod: &Pod, images: &[String]) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut daemons = owners.filter(|o| o.kind == "DaemonSet");
    let containers = pod.spec.as_ref().map(|s| s.containers.clone());
    daemons.any(|o| DAEMONS.contains(&o.name.as_str()))
        && !successors(containers, images).is_empty()
}

/// Repository and tag of an image's name; `None` for one that is named by its digest.
fn tagged(image: &str) -> Option<(&str, &str)> {
    let (repository, tag) = image.rsplit_once(':')?;
    (!tag.contains('/') && !image.contains('@')).then_some((repository, tag))
}

fn rolled(deployment: &Deployment) -> Result<(), String> {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let (updated, available, total) = (
        status.updated_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
        status.replicas.unwrap_or(0),
    );
    let seen = status.observed_generation >= deployment.metadata.generation;
    match seen && updated == wanted && available == wanted && total == wanted {
        true => Ok(()),
        false => Err(format!(
            "CoreDNS: {updated} of {wanted} renewed, {available} available"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_changes_in_kubeadms_document() {
        let text = "apiServer:\n  certSANs:\n  - 127.0.0.1\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n";
        let new = with_version(text, "v1.37.2".parse().unwrap()).unwrap();
        assert_eq!(new, text.replace("v1.36.3", "v1.37.2"));
        // Not rewritten where there is nothing to change.
        let odd = "{kubernetesVersion: v1.37.2}";
        assert_eq!(with_version(odd, "v1.37.2".parse().unwrap()).unwrap(), odd);
        assert!(with_version("- no mapping", "v1.37.2".parse().unwrap()).is_err());
    }

    #[test]
    fn an_image_gives_way_to_one_of_its_repository_that_the_node_has() {
        let images: Vec<String> = [
            "registry.k8s.io/kube-proxy:v1.37.2",
            "registry.k8s.io/coredns/coredns:v1.14.6",
            "registry.k8s.io/coredns/coredns@sha256:0000",
            "knest.dev/kube-router:v2.1.0",
        ]
        .map(String::from)
        .into();
        let of = |image: &str| {
            let container = Container {
                name: "c".into(),
                image: Some(image.into()),
                ..Container::default()
            };
            successors(Some(vec![container]), &images)
        };
        let changes = of("registry.k8s.io/kube-proxy:v1.36.3");
        assert_eq!(
            changes,
            [json!({"name": "c", "image": "registry.k8s.io/kube-proxy:v1.37.2"})]
        );
        // The node has it; the node has nothing of that repository; it is pinned by its digest.
        for kept in [
            "knest.dev/kube-router:v2.1.0",
            "example.org/cni:v1",
            "registry.k8s.io/coredns/coredns@sha256:1111",
            "localhost:5000/kube-proxy",
        ] {
            assert!(of(kept).is_empty(), "{kept}");
        }
        assert!(successors(None, &images).is_empty());
    }

    #[test]
    fn a_pod_of_before_on_a_node_of_the_new_version_waits_in_vain() {
        let images = ["registry.k8s.io/kube-proxy:v1.37.2".to_owned()];
        let pod = |kind: &str, owner: &str, version: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "1"},
                ]},
                "spec": {"containers": [
                    {"name": "c", "image": format!("registry.k8s.io/kube-proxy:{version}")},
                ]},
            }))
            .unwrap()
        };
        for (pod, vain) in [
            (pod("DaemonSet", "kube-proxy", "v1.36.3"), true),
            (pod("DaemonSet", "kube-proxy", "v1.37.2"), false),
            (pod("DaemonSet", "a-users-own", "v1.36.3"), false),
            (pod("ReplicaSet", "kube-proxy", "v1.36.3"), false),
        ] {
            assert_eq!(waits_in_vain(&pod, &images), vain, "{pod:?}");
        }
    }

    #[test]
    fn a_rollout_is_over_when_nothing_of_before_is_left() {
        let deployment = |generation, observed, updated, replicas| -> Deployment {
            serde_json::from_value(json!({
                "metadata": {"generation": generation},
                "spec": {"replicas": 2, "selector": {}, "template": {}},
                "status": {"observedGeneration": observed, "updatedReplicas": updated,
                    "replicas": replicas, "availableReplicas": 2},
            }))
            .unwrap()
        };
        assert!(rolled(&deployment(2, 2, 2, 2)).is_ok());
        assert!(rolled(&deployment(2, 1, 2, 2)).is_err());
        assert!(rolled(&deployment(2, 2, 1, 3)).is_err());
        assert!(rolled(&deployment(2, 2, 2, 3)).is_err());
    }
}
