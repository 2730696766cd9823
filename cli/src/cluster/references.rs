//! Which images machines are made of where no flag names another: the one table.
//!
//! ```text
//! REPOSITORY/node:VERSION                     the root of every node, of the cluster's Kubernetes
//!                                             version
//! REPOSITORY/node:VERSION-container-rootfs    the same in the form that Virtink runs
//! REPOSITORY/kernel:latest                    the kernel of every node, on either
//! ```
//! REPOSITORY is [`REPOSITORY`] unless `--image-repository` or its variable says otherwise.

use super::version::{DEFAULT, Version};
use std::ops::RangeInclusive;

/// Where knest's own images are named; `make images` builds them under it.
pub(crate) const REPOSITORY: &str = "knest.dev";

/// The node image of a Kubernetes version.
pub(crate) fn node(repository: &str, version: Version) -> String {
    format!("{repository}/node:{version}")
}

/// The same for a host cluster with Virtink.
pub(crate) fn node_on_virtink(repository: &str, version: Version) -> String {
    format!("{}-container-rootfs", node(repository, version))
}

/// What a node image is named in another Kubernetes version, if it is named as the table has it.
pub(crate) fn successor(image: &str, from: Version, to: Version) -> Option<String> {
    [node, node_on_virtink].into_iter().find_map(|name| {
        let repository = image.strip_suffix(&name("", from))?;
        Some(name(repository, to))
    })
}

/// The kernel image.
pub(crate) fn kernel(repository: &str) -> String {
    format!("{repository}/kernel:latest")
}

/// The minor versions that `images/build.sh` builds.
const BUILT: RangeInclusive<u32> = 35..=37;

/// What gets the node image of a version.
pub(crate) fn how(version: Version) -> String {
    if version == DEFAULT {
        "make images builds knest's own and puts it into its store".into()
    } else if BUILT.contains(&version.minor) {
        format!(
            "make images KUBERNETES_VERSION={version} builds knest's own and puts it into its store"
        )
    } else {
        let (first, last) = (BUILT.start(), BUILT.end());
        format!(
            "knest's own images are of Kubernetes v1.{first} to v1.{last}; one of {version} is yours \
             to make (images/README.md) and to name with --image"
        )
    }
}

/// What gets an image that is not there: for one of the table, the one command that builds it.
pub(crate) fn how_to_get(reference: &str) -> String {
    let own = |name: &str| Some(reference.rsplit_once(name)?.1);
    if let Some(version) = own("/node:").and_then(|tag| tag.parse().ok()) {
        how(version)
    } else if own("/kernel:").is_some() {
        "make images builds knest's own and puts it into its store".into()
    } else {
        format!("knest image load --name {reference} FILE takes it in from an archive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        assert_eq!(node(REPOSITORY, DEFAULT), "knest.dev/node:v1.37.2");
        assert_eq!(
            node_on_virtink(REPOSITORY, DEFAULT),
            "knest.dev/node:v1.37.2-container-rootfs"
        );
        assert_eq!(kernel("r.example/k"), "r.example/k/kernel:latest");
    }

    #[test]
    fn a_node_image_has_a_successor_where_its_name_tells() {
        let (from, to) = ("v1.36.3".parse().unwrap(), DEFAULT);
        let next = |image: &str| successor(image, from, to);
        assert_eq!(
            next("r.example/k/node:v1.36.3").as_deref(),
            Some("r.example/k/node:v1.37.2")
        );
        assert_eq!(
            next(&node_on_virtink("r.example", from)),
            Some(node_on_virtink("r.example", to))
        );
        for other in ["knest.dev/node:v1.36.30", "knest.dev/mynode:v1.36.3", "a@b"] {
            assert_eq!(next(other), None);
        }
    }

    #[test]
    fn one_command_for_each_of_knests_own() {
        let hint = how_to_get("r.example/k/node:v1.36.3");
        assert!(
            hint.starts_with("make images KUBERNETES_VERSION=v1.36.3 builds"),
            "{hint}"
        );
        assert!(how_to_get("knest.dev/node:v1.37.2").starts_with("make images builds"));
        let hint = how_to_get("knest.dev/node:v1.34.1");
        assert!(
            hint.starts_with("knest's own images are of Kubernetes v1.35 to v1.37"),
            "{hint}"
        );
        assert!(how_to_get("knest.dev/kernel:latest").starts_with("make images builds"));
        let hint = how_to_get("r.example/mine:v1");
        assert!(
            hint.contains("image load --name r.example/mine:v1"),
            "{hint}"
        );
    }
}
