//! knest's local image store: an OCI image layout directory, so every other tool reads it too.
//!
//! ```text
//! DIR/oci-layout
//! DIR/index.json            one entry per name; replaced whole, under the lock
//! DIR/blobs/sha256/<hex>    written beside, synced, then renamed: a blob there is complete
//! DIR/.lock                 held shared by readers of the index, exclusively by writers
//! DIR/.copying              held shared while blobs come in, exclusively while some are deleted
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use fs_err as fs;

use crate::digest::{Digest, HashingReader};
use crate::document::{Descriptor, DescriptorPlatform, Index, REF_NAME, media};
use crate::error::{Error, Result};
use crate::image::{Image, Platform};
use crate::lock::Lock;
use crate::source::{BlobSource, LAYOUT_FILE, Layout, blob_path, read_index};
use crate::watch::{Watch, Wishes};

/// A directory of named images.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// A name in a [`Store`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The full name, such as `knest.dev/node:v1.37.2`.
    pub name: String,
    /// Its manifest.
    pub manifest: Descriptor,
}

impl Store {
    /// Opens the store in a directory, which is made when it is missing. To list and to resolve,
    /// being allowed to read a store that is there is enough.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(directory: impl Into<PathBuf>) -> Result<Store> {
        let store = Store {
            directory: directory.into(),
        };
        let (layout, index) = (LAYOUT_FILE, "index.json");
        let there = |name: &str| store.directory.join(name).exists();
        if there(layout) && there(index) {
            return Ok(store);
        }
        let blobs = store.directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(Error::file("make", &blobs))?;
        let lock = store.lock(true)?;
        if !there(layout) {
            store.replace(layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        if !there(index) {
            store.write_index(&Index {
                schema_version: 2,
                media_type: Some(media::INDEX.into()),
                manifests: Vec::new(),
                rest: BTreeMap::new(),
            })?;
        }
        drop(lock);
        Ok(store)
    }

    /// Copies a source's image for one platform into the store under this name, which then means
    /// the new image. Blobs that are already there are not copied.
    ///
    /// # Errors
    /// What [`Image::resolve`] gives; [`Error::DigestMismatch`], [`Error::SizeMismatch`] or
    /// [`Error::MissingBlob`] for a bad blob; [`Error::File`]. The old meaning of the name stays
    /// unless the load succeeds.
    pub fn load(
        &self,
        source: &dyn BlobSource,
        name: &str,
        platform: &Platform,
        wishes: Wishes<'_>,
    ) -> Result<Image> {
        let image = Image::resolve(source, platform)?;
        let watch = Watch::new(wishes, image.blobs().map(|blob| blob.size));
        // Shared with other loads, exclusive against removals, which would take blobs away.
        let copying = Lock::shared(&self.directory.join(".copying"))?;
        for blob in image.blobs() {
            self.copy(source, blob, &watch)?;
        }
        let lock = self.lock(true)?;
        let (mut index, _) = read_index(&self.directory)?;
        let mut entry = image.manifest.clone();
        entry.platform = Some(DescriptorPlatform {
            architecture: image.config.architecture.clone(),
            os: image.config.os.clone(),
            variant: image.config.variant.clone(),
        });
        entry.annotations = BTreeMap::from([(REF_NAME.to_owned(), name.to_owned())]);
        index
            .manifests
            .retain(|entry| entry_name(entry) != Some(name));
        index.manifests.push(entry);
        index
            .manifests
            .sort_by(|a, b| entry_name(a).cmp(&entry_name(b)));
        self.write_index(&index)?;
        drop(lock);
        drop(copying);
        Ok(image)
    }

    /// All names, in alphabetical order.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Malformed`].
    pub fn list(&self) -> Result<Vec<Named>> {
        let lock = self.lock(false)?;
        let (index, _) = read_index(&self.directory)?;
        drop(lock);
        let named = |manifest: Descriptor| {
            let name = entry_name(&manifest)?.to_owned();
            Some(Named { name, manifest })
        };
        let mut all: Vec<_> = index.manifests.into_iter().filter_map(named).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The image of that name, ready for [`Image::resolve`] and [`build`](crate::build).
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::File`], [`Error::Malformed`].
    pub fn resolve(&self, name: &str) -> Result<Layout> {
        let lock = self.lock(false)?;
        let layout = Layout::open(&self.directory, Some(name))?;
        drop(lock);
        Ok(layout)
    }

    /// Forgets a name, and deletes the blobs that no other name needs. True when it existed.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Malformed`].
    pub fn remove(&self, name: &str) -> Result<bool> {
        let copying = Lock::exclusive(&self.directory.join(".copying"))?;
        let lock = self.lock(true)?;
        let (mut index, _) = read_index(&self.directory)?;
        let before = index.manifests.len();
        index
            .manifests
            .retain(|entry| entry_name(entry) != Some(name));
        let existed = index.manifests.len() < before;
        if existed {
            self.write_index(&index)?;
            self.sweep(&index)?;
        }
        drop(lock);
        drop(copying);
        Ok(existed)
    }

    /// Deletes the blobs that no entry of the index reaches.
    fn sweep(&self, index: &Index) -> Result<()> {
        let mut needed = Vec::new();
        for entry in &index.manifests {
            let platform = entry
                .platform
                .as_ref()
                .map_or_else(Platform::host, |found| Platform {
                    os: found.os.clone(),
                    architecture: found.architecture.clone(),
                    variant: None,
                });
            let Some(name) = entry_name(entry) else {
                return Ok(());
            };
            let layout = Layout::open(&self.directory, Some(name))?;
            // An entry that cannot be followed is not a reason to delete what it may need.
            let Ok(image) = Image::resolve(&layout, &platform) else {
                return Ok(());
            };
            needed.extend(image.blobs().map(|blob| blob.digest.hex()));
        }
        let blobs = self.directory.join("blobs/sha256");
        for file in fs::read_dir(&blobs).map_err(Error::file("list", &blobs))? {
            let file = file.map_err(Error::file("list", &blobs))?;
            if !needed.iter().any(|name| file.file_name() == name.as_str()) {
                fs::remove_file(file.path()).map_err(Error::file("delete", file.path()))?;
            }
        }
        Ok(())
    }

    fn copy(&self, source: &dyn BlobSource, blob: &Descriptor, watch: &Watch<'_>) -> Result<()> {
        let path = blob_path(&self.directory, blob.digest);
        if path.exists() {
            return Ok(());
        }
        let origin = source.to_string();
        let mut reader = HashingReader::new(watch.count(source.open(blob)?));
        let blobs = self.directory.join("blobs/sha256");
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(&blobs)
            .map_err(Error::file("make a file in", &blobs))?;
        let mut buffer = vec![0; 256 << 10];
        let mut promised = (&mut reader).take(blob.size);
        loop {
            match promised.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    file.write_all(&buffer[..count])
                        .map_err(Error::file("write", &path))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let digest = blob.digest;
                    return Err(watch.or_cancelled(Error::Blob {
                        digest,
                        origin,
                        source,
                    }));
                }
            }
        }
        reader
            .verify(blob.digest, blob.size, &origin)
            .map_err(|error| watch.or_cancelled(error))?;
        let finish = || -> io::Result<()> {
            file.as_file()
                .set_permissions(std::fs::Permissions::from_mode(0o444))?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        finish().map_err(Error::file("write", &path))
    }

    fn write_index(&self, index: &Index) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(index)
            .map_err(|error| Error::malformed("image index", error))?;
        self.replace("index.json", &bytes)
    }

    /// Replaces a file of the store as a whole.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .permissions(std::fs::Permissions::from_mode(0o644))
                .tempfile_in(&self.directory)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            fs::File::open(&self.directory)?.sync_all()
        };
        write().map_err(Error::file("write", &path))
    }

    fn lock(&self, exclusive: bool) -> Result<Lock> {
        let path = self.directory.join(".lock");
        if exclusive {
            Lock::exclusive(&path)
        } else {
            Lock::shared(&path)
        }
    }
}

fn entry_name(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

impl Named {
    /// The digest that identifies the image.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.manifest.digest
    }
}
