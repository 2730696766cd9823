//! Whether the host's nodes can have the machines' images: from their registry, which is asked from
//! here, or because they have them already. Only what is known to fail is an error: nodes may reach a
//! registry that this machine does not, and tell of fifty images each at most.

use crate::cluster::record::{NodeState, Record};
use crate::cluster::references::REPOSITORY;
use crate::failure::{Failure, Kind, Result};
use crate::image::{self, Origin, Registries};
use crate::provider::virtink::host::Host;
use crate::work;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use knest_rootfs::source::registry::{Patience, Registry, RegistryOptions};
use knest_rootfs::{Image, Platform};
use kube::api::{Api, ListParams};
use std::collections::BTreeSet;
use std::time::Duration;

/// As many as a kubelet tells of, unless it was told to do otherwise.
const TOLD: usize = 50;
const NODES: u32 = 500;
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    idle: Duration::from_secs(8),
    total: Duration::from_secs(8),
    pause: Duration::from_millis(250),
};

/// Looks for the images of machines to come; what a user should know of them, though it stops nothing.
pub(in crate::provider::virtink) async fn check(
    host: &Host,
    record: &Record,
    registries: &Registries,
) -> Result<Vec<String>> {
    if record.in_state(NodeState::Wanted).next().is_none() {
        return Ok(vec![]);
    }
    let api: Api<Node> = Api::all(host.client.clone());
    let few = ListParams::default().limit(NODES);
    let nodes = host.call("looking at the host's nodes", || api.list(&few));
    let nodes = match nodes.await {
        Ok(nodes) => nodes.items,
        Err(failure) => {
            tracing::debug!(%failure, "images");
            vec![]
        }
    };
    let images: BTreeSet<&str> = record.spec.images().collect();
    let there = images
        .into_iter()
        .map(|name| (name, There::of(name, &nodes)));
    let asked: Vec<_> = there
        .filter(|(_, there)| *there != There::Everywhere)
        .collect();
    let answers = join_all(asked.iter().map(|(name, _)| ask(name, registries))).await;
    let mut notes = vec![];
    for ((name, there), answer) in asked.into_iter().zip(answers) {
        if let Err(failure) = answer {
            notes.push(there.without_registry(name, failure)?);
        }
    }
    Ok(notes)
}

/// On which of the host's nodes an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Everywhere,
    /// On so many of so many.
    Some(usize, usize),
    Nowhere,
    /// The nodes are not shown, or do not tell of all that they have.
    Unknown,
}

impl There {
    fn of(name: &str, nodes: &[Node]) -> Self {
        let wanted: Vec<String> = image::names(name).collect();
        let images = |node: &Node| {
            let status = node.status.clone().unwrap_or_default();
            status.images.unwrap_or_default()
        };
        let has = |node: &&Node| {
            let mut names = images(node).into_iter().filter_map(|i| i.names).flatten();
            names.any(|name| wanted.contains(&name))
        };
        match (nodes.iter().filter(has).count(), nodes.len()) {
            (_, 0) => Self::Unknown,
            (some, all) if some == all => Self::Everywhere,
            (0, _) if nodes.iter().any(|node| images(node).len() >= TOLD) => Self::Unknown,
            (0, _) => Self::Nowhere,
            (some, all) => Self::Some(some, all),
        }
    }

    /// What it means that its registry does not give an image.
    fn without_registry(self, name: &str, failure: Failure) -> Result<String> {
        let why = failure.to_string();
        match self {
            Self::Everywhere => Ok(format!("every node of the host has image {name}: {why}")),
            Self::Some(some, all) => Ok(format!(
                "{some} of {all} nodes of the host have image {name}, the others can't get it: {why}"
            )),
            Self::Unknown => Ok(format!(
                "whether the host's nodes have image {name} is not to be seen: {why}"
            )),
            Self::Nowhere if failure.kind == Kind::Usage => Err(failure
                .while_doing(format!("no node of the host has image {name}"))
                .hint(
                    "push it where they pull from: make images PUSH=REPOSITORY, then give \
                     --image-repository REPOSITORY",
                )
                .hint("or put it on each: ctr --namespace k8s.io images import FILE")),
            Self::Nowhere => Ok(format!(
                "no node of the host has image {name}, and its registry can't be asked from here: {why}"
            )),
        }
    }
}

/// Whether the image's registry gives it.
async fn ask(name: &str, registries: &Registries) -> Result<()> {
    if name.starts_with(&format!("{REPOSITORY}/")) {
        return Err(Failure::usage(format!(
            "{REPOSITORY} is no registry, but how knest's own images are named"
        )));
    }
    let Origin::Registry(reference) = Origin::parse(name)? else {
        return Err(Failure::usage(format!(
            "{name} is no image of a registry's"
        )));
    };
    let registries = registries.clone();
    work::blocking(None, move |task| {
        let options = RegistryOptions {
            patience: PATIENCE,
            ..registries.options(&task.cancel)
        };
        let registry = Registry::open(&reference, &options).map_err(image::failure)?;
        let found = Image::resolve(&registry, &Platform::host());
        found.map(drop).map_err(image::failure)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(images: Value) -> Node {
        serde_json::from_value(json!({"metadata": {}, "status": {"images": images}})).unwrap()
    }

    #[test]
    fn where_an_image_is() {
        let has = || node(json!([{"names": ["docker.io/library/k:1", "k@sha256:00"]}]));
        let none = || node(json!([{"names": ["docker.io/library/k:2"]}]));
        let full = node(vec![json!({"names": ["other"]}); TOLD].into());
        let of = |nodes: &[Node]| There::of("k:1", nodes);
        assert_eq!(of(&[]), There::Unknown);
        assert_eq!(of(&[has(), has()]), There::Everywhere);
        assert_eq!(of(&[has(), none()]), There::Some(1, 2));
        assert_eq!(of(&[none(), node(json!(null))]), There::Nowhere);
        assert_eq!(of(&[none(), full]), There::Unknown);
    }

    #[test]
    fn only_what_is_known_to_fail_is_an_error() {
        let name = "r.example/k:1";
        let unknown = || Failure::usage("r.example answers 404");
        let away = || Failure::host("r.example: no route");
        for there in [There::Unknown, There::Some(1, 2)] {
            let note = there.without_registry(name, unknown()).unwrap();
            assert!(note.contains(name) && note.contains("404"), "{note}");
        }
        let note = There::Nowhere.without_registry(name, away()).unwrap();
        assert!(note.contains("can't be asked from here"), "{note}");
        let failure = There::Nowhere.without_registry(name, unknown());
        insta::assert_snapshot!(failure.unwrap_err().render(), @r"
        error: no node of the host has image r.example/k:1: r.example answers 404
        hint: push it where they pull from: make images PUSH=REPOSITORY, then give --image-repository REPOSITORY
        hint: or put it on each: ctr --namespace k8s.io images import FILE
        ");
    }

    #[tokio::test]
    async fn knests_own_names_are_no_registrys() {
        let asked = ask("knest.dev/kernel:latest", &Registries::default()).await;
        assert_eq!(asked.unwrap_err().kind, Kind::Usage);
    }
}
