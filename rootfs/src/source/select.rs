//! Which image of an `index.json` is meant.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::document::{Descriptor, Index, REF_NAME, media};
use crate::error::{Error, Result};

/// containerd's and BuildKit's annotation for the full name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The chosen root, and the bytes of `index.json` when that itself is the root.
pub(crate) struct Selected {
    pub(crate) root: Descriptor,
    pub(crate) document: Option<(Digest, Vec<u8>)>,
}

/// Picks by name; without one, the only image, or the whole index when its entries have no
/// different names and so differ by platform.
pub(crate) fn select(
    index: &Index,
    bytes: &[u8],
    name: Option<&str>,
    origin: &str,
) -> Result<Selected> {
    let found = |root: &Descriptor| Selected {
        root: root.clone(),
        document: None,
    };
    if let Some(name) = name {
        return index
            .manifests
            .iter()
            .find(|entry| names(entry).any(|found| found == name))
            .map(found)
            .ok_or_else(|| Error::NoImage {
                name: name.into(),
                origin: origin.into(),
                available: all_names(index),
            });
    }
    match index.manifests.as_slice() {
        [] => Err(Error::malformed(
            format!("index of {origin}"),
            "it lists no image",
        )),
        [only] => Ok(found(only)),
        _ if all_names(index).len() > 1 => Err(Error::Ambiguous {
            origin: origin.into(),
            available: all_names(index),
        }),
        _ => {
            let digest = Digest::of(bytes);
            Ok(Selected {
                root: Descriptor {
                    media_type: media::INDEX.into(),
                    digest,
                    size: bytes.len() as u64,
                    platform: None,
                    annotations: Default::default(),
                },
                document: Some((digest, bytes.to_vec())),
            })
        }
    }
}

fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    [REF_NAME, CONTAINERD_NAME]
        .into_iter()
        .filter_map(|key| entry.annotations.get(key).map(String::as_str))
}

fn all_names(index: &Index) -> Vec<String> {
    let names: BTreeSet<_> = index
        .manifests
        .iter()
        .filter_map(|entry| names(entry).next())
        .collect();
    names.into_iter().map(str::to_owned).collect()
}
