//! What a machine's root disk begins as, as its user names it. Pure.
//!
//! ```text
//! knest.dev/node:v1.37.2                 an image, of which a disk is made
//! file:/srv/node.raw[@sha256:HEX]        a file on this machine that is a disk already
//! ```

use super::spec::check_reference;
use crate::failure::{Failure, Result};
use knest_rootfs::Digest;
use std::path::{Path, PathBuf};

const FILE: &str = "file:";
const DIGEST: &str = "@sha256:";

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// An image's reference.
    Image(String),
    /// A ready disk, and what it must hold.
    File {
        path: PathBuf,
        digest: Option<Digest>,
    },
}

impl Root {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let Some(file) = text.strip_prefix(FILE) else {
            check_reference(text)?;
            return Ok(Self::Image(text.into()));
        };
        let (path, digest) = split(file);
        let digest = digest.map(str::parse).transpose();
        let digest = digest.map_err(|error: knest_rootfs::Error| {
            Failure::usage(format!("{text}: {error}")).hint("sha256sum tells a file's digest")
        })?;
        match Path::new(path).is_absolute() {
            true => Ok(Self::File {
                path: path.into(),
                digest,
            }),
            false => Err(Failure::usage(format!(
                "{text}: a disk's file is named by its whole path"
            ))
            .hint(format!("{FILE}/PATH/TO/DISK"))),
        }
    }
}

/// A file's name as it is meant in a directory.
pub(crate) fn absolute(text: &str, directory: &Path) -> String {
    match text.strip_prefix(FILE) {
        Some(file) if !file.is_empty() => {
            let (path, _) = split(file);
            let rest = &file[path.len()..];
            format!("{FILE}{}{rest}", directory.join(path).display())
        }
        _ => text.to_owned(),
    }
}

/// The path, and the digest with its algorithm.
fn split(file: &str) -> (&str, Option<&str>) {
    match file.rfind(DIGEST) {
        Some(at) => (&file[..at], Some(&file[at + 1..])),
        None => (file, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_files() {
        let image = Root::parse("knest.dev/node:v1.37.2").unwrap();
        assert_eq!(image, Root::Image("knest.dev/node:v1.37.2".into()));
        let file = |path: &str, digest| Root::File {
            path: path.into(),
            digest,
        };
        let hex = "0123456789abcdef".repeat(4);
        let digest = format!("sha256:{hex}").parse().unwrap();
        assert_eq!(Root::parse("file:/a b").unwrap(), file("/a b", None));
        let named = Root::parse(&format!("file:/a@b@sha256:{hex}")).unwrap();
        assert_eq!(named, file("/a@b", Some(digest)));
        for bad in ["file:", "file:a", "file:/a@sha256:12", "fil e:", "-"] {
            Root::parse(bad).unwrap_err();
        }
    }

    #[test]
    fn a_name_is_meant_where_it_is_given() {
        let here = |text| absolute(text, Path::new("/srv"));
        assert_eq!(here("node:v1"), "node:v1");
        assert_eq!(here("file:a/b@sha256:0"), "file:/srv/a/b@sha256:0");
        assert_eq!(here("file:/a"), "file:/a");
        assert_eq!(here("file:"), "file:");
    }
}
