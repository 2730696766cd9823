//! What a person types for an image: a name in a registry, or where on this machine it lies.

use crate::failure::{Failure, Result};
use knest_rootfs::source::Reference;
use std::path::PathBuf;

/// The prefixes that say what kind of image lies there.
const PREFIXES: [&str; 3] = ["oci:", "oci-archive:", "docker-archive:"];
/// The prefix of a plain directory, which is no image, but becomes a disk or one layer as it is.
pub(crate) const DIRECTORY: &str = "dir:";

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A registry, and the store under the same name.
    Registry(Reference),
    /// A file or a directory, as it was typed.
    Local(String),
    /// A directory of files.
    Directory(PathBuf),
}

impl Origin {
    /// Reads `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:DIR`, a path that
    /// begins as paths do, or a name.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if let Some(directory) = text.strip_prefix(DIRECTORY) {
            return Ok(Self::Directory(directory.into()));
        }
        let path = text.starts_with(['/', '.']);
        if path || PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            return Ok(Self::Local(text.to_owned()));
        }
        match text.parse() {
            Ok(reference) => Ok(Self::Registry(reference)),
            Err(error) => Err(Failure::usage(format!("{text:?} is no image"))
                .because(error)
                .hint(
                    "name one like knest.dev/node:v1.37.2, or say where it lies: oci:DIR[:TAG], \
                     oci-archive:FILE, docker-archive:FILE, dir:DIR",
                )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_places() {
        for text in [
            "oci:d:t",
            "oci-archive:f",
            "docker-archive:f",
            "/f",
            "./f",
            "../f",
        ] {
            assert_eq!(Origin::parse(text).unwrap(), Origin::Local(text.into()));
        }
        assert_eq!(
            Origin::parse("dir:d").unwrap(),
            Origin::Directory("d".into())
        );
        let Ok(Origin::Registry(alpine)) = Origin::parse("alpine") else {
            panic!("a name");
        };
        assert_eq!(alpine.to_string(), "docker.io/library/alpine:latest");
        assert!(Origin::parse("No Such").is_err());
    }
}
