//! An image as its documents describe it: index → manifest → config → layers, for one platform.
//! It reads the documents through a [`BlobSource`] and verifies each; it never looks into a layer.
//!
//! ```text
//! index ──(platform)──▶ manifest ─┬─▶ config   labels, command, diff ids
//!                                 └─▶ layers   oldest first, each with its diff id
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::str::FromStr;

use serde::Deserialize;

use crate::digest::{Digest, HashingReader};
use crate::document::{Config, Descriptor, DescriptorPlatform, Index, Manifest, media};
use crate::error::{Error, Result};
use crate::source::BlobSource;

/// The largest index, manifest or config that is read, in bytes (the registries' own limit).
pub const DOCUMENT_LIMIT: u64 = 4 << 20;
/// How many indexes may point at each other before a manifest must come.
const INDEX_DEPTH: usize = 4;
/// The label by which an image says which of its directories a machine's root is. Images that carry
/// a root for a program of their own, which makes a disk of it, have it in one.
pub const ROOT_LABEL: &str = "dev.knest.root";
/// Operating system and architecture, in the words of the Go toolchain: `linux/amd64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v8`; matters only when it is asked for.
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on the processor that this program was compiled for.
    #[must_use]
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: None,
        }
    }

    fn accepts(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        self.os == os
            && self.architecture == architecture
            && (self.variant.is_none() || self.variant.as_deref() == variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [os, architecture] if !os.is_empty() && !architecture.is_empty() => Ok(Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: None,
            }),
            [os, architecture, variant] if parts.iter().all(|part| !part.is_empty()) => {
                let variant = Some(variant.into());
                Ok(Platform {
                    os: os.into(),
                    architecture: architecture.into(),
                    variant,
                })
            }
            _ => Err(Error::MalformedPlatform(text.chars().take(200).collect())),
        }
    }
}

/// How a layer's tar is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, possibly several members.
    Gzip,
    /// RFC 8878, possibly several frames.
    Zstd,
}

/// One layer of an [`Image`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The packed blob.
    pub blob: Descriptor,
    /// The address of the unpacked tar.
    pub diff_id: Digest,
    /// How it is packed.
    pub compression: Compression,
}

/// An image of one platform, its documents read and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The manifest, whose digest identifies the image.
    pub manifest: Descriptor,
    /// The config, whose digest Docker calls the image ID.
    pub config_descriptor: Descriptor,
    /// What the image says about itself.
    pub config: Config,
    /// The layers, oldest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// Finds the source's image for a platform, and verifies the digests of its documents.
    ///
    /// # Errors
    /// [`Error::NoPlatform`], [`Error::MediaType`] (layers that are encrypted or not tar files,
    /// schema 1 manifests), [`Error::Malformed`], and what reading blobs gives.
    pub fn resolve(source: &dyn BlobSource, platform: &Platform) -> Result<Image> {
        let mut descriptor = source.root().clone();
        for _ in 0..INDEX_DEPTH {
            let bytes = read_document(source, &descriptor)?;
            match document_type(&descriptor, &bytes)?.as_str() {
                media::INDEX | media::DOCKER_LIST => {
                    let index: Index = parse("image index", &descriptor, &bytes)?;
                    descriptor = choose(index.manifests, platform)?;
                }
                media::MANIFEST | media::DOCKER_MANIFEST => {
                    return from_manifest(source, descriptor, &bytes, platform);
                }
                other => {
                    return Err(Error::MediaType {
                        what: format!("image {}", descriptor.digest),
                        media_type: other.into(),
                    });
                }
            }
        }
        Err(Error::malformed(
            "image index",
            format!("more than {INDEX_DEPTH} indexes nested"),
        ))
    }

    /// The digest that identifies the image: its manifest's.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.manifest.digest
    }

    /// The image's labels.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.config.config.labels
    }

    /// Which of its directories the image says becomes the root of its disk, by [`ROOT_LABEL`]. One
    /// that says nothing, but has `/rootfs/sbin/init`, carries its root in `/rootfs`; any other is
    /// the root itself.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        self.labels().get(ROOT_LABEL).map(String::as_str)
    }

    /// Every blob of the image: manifest, config, layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.manifest, &self.config_descriptor]
            .into_iter()
            .chain(self.layers.iter().map(|layer| &layer.blob))
    }
}

/// The first manifest for the platform; one without a platform serves when it is the only one, and
/// its config decides.
fn choose(manifests: Vec<Descriptor>, platform: &Platform) -> Result<Descriptor> {
    let matches = |descriptor: &Descriptor| {
        descriptor.platform.as_ref().is_some_and(|found| {
            platform.accepts(&found.os, &found.architecture, found.variant.as_deref())
        })
    };
    let mut available = Vec::new();
    for descriptor in &manifests {
        if let Some(DescriptorPlatform {
            os, architecture, ..
        }) = &descriptor.platform
            && os != "unknown"
        {
            available.push(format!("{os}/{architecture}"));
        }
    }
    let alone = manifests.len() == 1;
    manifests
        .into_iter()
        .find(|descriptor| matches(descriptor) || (alone && descriptor.platform.is_none()))
        .ok_or_else(|| Error::NoPlatform {
            wanted: platform.clone(),
            available,
        })
}

fn from_manifest(
    source: &dyn BlobSource,
    mut descriptor: Descriptor,
    bytes: &[u8],
    platform: &Platform,
) -> Result<Image> {
    let manifest: Manifest = parse("image manifest", &descriptor, bytes)?;
    if descriptor.media_type.is_empty() {
        descriptor.media_type = media::MANIFEST.into();
    }
    let bytes = read_document(source, &manifest.config)?;
    let config: Config = parse("image config", &manifest.config, &bytes)?;
    if !platform.accepts(&config.os, &config.architecture, config.variant.as_deref()) {
        return Err(Error::NoPlatform {
            wanted: platform.clone(),
            available: vec![format!("{}/{}", config.os, config.architecture)],
        });
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Error::malformed(
            format!("image {}", descriptor.digest),
            format!(
                "{} layers but {} diff ids",
                manifest.layers.len(),
                diff_ids.len()
            ),
        ));
    }
    let layers = manifest
        .layers
        .into_iter()
        .zip(diff_ids)
        .map(|(blob, &diff_id)| {
            let compression = compression(&blob)?;
            Ok(Layer {
                blob,
                diff_id,
                compression,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Image {
        manifest: descriptor,
        config_descriptor: manifest.config,
        config,
        layers,
    })
}

fn compression(blob: &Descriptor) -> Result<Compression> {
    let oci = blob
        .media_type
        .strip_prefix("application/vnd.oci.image.layer.");
    let oci = oci.map(|rest| rest.strip_prefix("nondistributable.").unwrap_or(rest));
    let docker = blob
        .media_type
        .strip_prefix("application/vnd.docker.image.rootfs.");
    match (oci, docker) {
        (Some("v1.tar"), _) | (_, Some("diff.tar")) => Ok(Compression::None),
        (Some("v1.tar+gzip"), _) | (_, Some("diff.tar.gzip" | "foreign.diff.tar.gzip")) => {
            Ok(Compression::Gzip)
        }
        (Some("v1.tar+zstd"), _) | (_, Some("diff.tar.zstd")) => Ok(Compression::Zstd),
        _ => Err(Error::MediaType {
            what: format!("layer {}", blob.digest),
            media_type: blob.media_type.clone(),
        }),
    }
}

/// Reads and verifies a whole document.
pub(crate) fn read_document(source: &dyn BlobSource, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let Descriptor { digest, size, .. } = *descriptor;
    if size > DOCUMENT_LIMIT {
        let what = format!("document {digest}");
        return Err(Error::TooLong {
            what,
            size,
            limit: DOCUMENT_LIMIT,
        });
    }
    let mut bytes = Vec::new();
    let mut reader = HashingReader::new(source.open(descriptor)?);
    (&mut reader)
        .take(size)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::Blob {
            digest,
            origin: source.to_string(),
            source: error,
        })?;
    reader.verify(digest, size, &source.to_string())?;
    Ok(bytes)
}

/// The document's type by its own word, else by its descriptor's, else by its shape.
fn document_type(descriptor: &Descriptor, bytes: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        schema_version: Option<u32>,
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let probe: Probe = parse("image document", descriptor, bytes)?;
    if probe.schema_version == Some(1) {
        return Ok("schema version 1".into());
    }
    Ok(match probe.media_type {
        Some(media_type) if !media_type.is_empty() => media_type,
        _ if !descriptor.media_type.is_empty() => descriptor.media_type.clone(),
        _ if probe.manifests.is_some() => media::INDEX.into(),
        _ if probe.config.is_some() => media::MANIFEST.into(),
        _ => String::new(),
    })
}

fn parse<'a, T: Deserialize<'a>>(
    what: &str,
    descriptor: &Descriptor,
    bytes: &'a [u8],
) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::malformed(format!("{what} {}", descriptor.digest), error))
}
