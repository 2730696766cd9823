//! An image held in memory: what tests build, and what a program can build without a file.

use std::collections::HashMap;
use std::fmt;
use std::io::{Cursor, Write};

use flate2::write::GzEncoder;

use super::{Blob, BlobSource};
use crate::digest::Digest;
use crate::document::{Descriptor, Manifest, media};
use crate::error::{Error, Result};
use crate::image::{Compression, Platform};

/// An image made of layers given as bytes.
#[derive(Debug)]
pub struct Memory {
    root: Descriptor,
    blobs: HashMap<Digest, Vec<u8>>,
}

impl Memory {
    /// Makes an image of these tar files, oldest first, each packed as asked.
    ///
    /// # Errors
    /// [`Error::Malformed`] when packing fails.
    pub fn from_layers(
        platform: &Platform,
        layers: impl IntoIterator<Item = (Vec<u8>, Compression)>,
    ) -> Result<Memory> {
        let mut blobs = HashMap::new();
        let mut described = Vec::new();
        for (tar, compression) in layers {
            let diff_id = Digest::of(&tar);
            let (bytes, media_type) =
                pack(tar, compression).map_err(|error| Error::malformed("layer", error))?;
            described.push((diff_id, insert(&mut blobs, bytes, media_type)));
        }
        let mut image = Memory::of_layers(platform, described)?;
        image.blobs.extend(blobs);
        Ok(image)
    }

    /// The documents of an image whose layers, oldest first, are elsewhere: each one's digest
    /// unpacked, and its blob.
    pub(super) fn of_layers(
        platform: &Platform,
        layers: impl IntoIterator<Item = (Digest, Descriptor)>,
    ) -> Result<Memory> {
        let mut blobs = HashMap::new();
        let (diff_ids, descriptors): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
        let config = serde_json::json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = insert(&mut blobs, config.to_string().into_bytes(), media::CONFIG);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.into()),
            config,
            layers: descriptors,
        };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| Error::malformed("image manifest", error))?;
        let root = insert(&mut blobs, bytes, media::MANIFEST);
        Ok(Memory { root, blobs })
    }

    /// Replaces a blob's bytes, whatever its address says.
    pub fn tamper(&mut self, digest: Digest, bytes: Vec<u8>) {
        self.blobs.insert(digest, bytes);
    }

    /// Removes a blob.
    pub fn forget(&mut self, digest: Digest) {
        self.blobs.remove(&digest);
    }

    /// Makes another document the image, and adds its bytes.
    pub fn set_root(&mut self, bytes: Vec<u8>, media_type: &str) {
        self.root = insert(&mut self.blobs, bytes, media_type);
    }

    /// Adds a blob and returns its descriptor.
    pub fn add(&mut self, bytes: Vec<u8>, media_type: &str) -> Descriptor {
        insert(&mut self.blobs, bytes, media_type)
    }
}

fn insert(blobs: &mut HashMap<Digest, Vec<u8>>, bytes: Vec<u8>, media_type: &str) -> Descriptor {
    let descriptor = Descriptor {
        media_type: media_type.into(),
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
    };
    blobs.insert(descriptor.digest, bytes);
    descriptor
}

fn pack(tar: Vec<u8>, compression: Compression) -> std::io::Result<(Vec<u8>, &'static str)> {
    Ok(match compression {
        Compression::None => (tar, media::LAYER),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&tar)?;
            (encoder.finish()?, media::LAYER_GZIP)
        }
        Compression::Zstd => (zstd::bulk::compress(&tar, 1)?, media::LAYER_ZSTD),
    })
}

impl BlobSource for Memory {
    fn root(&self) -> &Descriptor {
        &self.root
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Blob + '_>> {
        match self.blobs.get(&blob.digest) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes))),
            None => Err(Error::MissingBlob {
                digest: blob.digest,
                origin: self.to_string(),
            }),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}
