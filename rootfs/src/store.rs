//! knest's local image store: an OCI image layout directory, so every other tool reads it too.
//!
//! ```text
//! DIR/oci-layout
//! DIR/index.json            one entry per name; replaced whole, under the lock
//! DIR/blobs/sha256/<hex>    written elsewhere, synced, then renamed: a blob there is complete
//! DIR/partial/<hex>         a blob that is coming in, held locked; what is left of one from a
//!                           registry is where the next attempt goes on
//! DIR/.lock                 held shared by readers of the index, exclusively by writers
//! DIR/.copying              held shared while blobs come in, exclusively while some are deleted
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use fs_err as fs;

use crate::digest::Digest;
use crate::document::{Descriptor, DescriptorPlatform, Index, REF_NAME, media};
use crate::error::{Error, Result};
use crate::image::{Image, Platform};
use crate::intake::Intake;
use crate::lock::Lock;
use crate::source::{BlobSource, LAYOUT_FILE, Layout, read_index};
use crate::watch::Wishes;

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

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many files.
    pub files: usize,
    /// How many bytes they held.
    pub bytes: u64,
}

impl Pruned {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
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
        self.receive(source, &image, wishes)?.finish(name)?;
        Ok(image)
    }

    /// Begins to copy an image of a source. What is returned is that image too, and may be built
    /// from while it is copied: what is read from it is in the store afterwards.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn receive<'a>(
        &'a self,
        source: &'a dyn BlobSource,
        image: &'a Image,
        wishes: Wishes<'a>,
    ) -> Result<Intake<'a>> {
        Intake::new(self, source, image, wishes)
    }

    /// Makes a name mean this image, whose blobs are all there.
    pub(crate) fn name(&self, image: &Image, name: &str) -> Result<()> {
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
        Ok(())
    }

    /// The directory that other tools call an OCI layout.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
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

    /// Deletes the blobs that no name needs, and what is left of downloads that nobody has gone on
    /// with since `before`. Waits for copies that are under way, unless the flag is set.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Malformed`], [`Error::Cancelled`].
    pub fn prune(&self, before: SystemTime, cancel: Option<&AtomicBool>) -> Result<Pruned> {
        let copying = Lock::exclusive_unless(&self.directory.join(".copying"), cancel)?;
        let lock = self.lock(true)?;
        let (index, _) = read_index(&self.directory)?;
        let mut pruned = self.sweep(&index)?;
        drop(lock);
        let partial = self.directory.join("partial");
        // Only a store that something was copied into has it.
        for file in fs::read_dir(&partial).into_iter().flatten() {
            let file = file.map_err(Error::file("list", &partial))?;
            let metadata = file.metadata().map_err(Error::file("read", file.path()))?;
            if metadata.modified().is_ok_and(|used| used < before) {
                fs::remove_file(file.path()).map_err(Error::file("delete", file.path()))?;
                pruned.add(metadata.len());
            }
        }
        drop(copying);
        Ok(pruned)
    }

    /// Deletes the blobs that no entry of the index reaches.
    fn sweep(&self, index: &Index) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let mut needed = Vec::new();
        for entry in &index.manifests {
            let Some(name) = entry_name(entry) else {
                return Ok(pruned);
            };
            let layout = Layout::open(&self.directory, Some(name))?;
            // An entry that cannot be followed is not a reason to delete what it may need.
            let Ok(image) = Image::resolve(&layout, &platform_of(entry)) else {
                return Ok(pruned);
            };
            needed.extend(image.blobs().map(|blob| blob.digest.hex()));
        }
        let blobs = self.directory.join("blobs/sha256");
        for file in fs::read_dir(&blobs).map_err(Error::file("list", &blobs))? {
            let file = file.map_err(Error::file("list", &blobs))?;
            if !needed.iter().any(|name| file.file_name() == name.as_str()) {
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                fs::remove_file(file.path()).map_err(Error::file("delete", file.path()))?;
                pruned.add(size);
            }
        }
        Ok(pruned)
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

fn platform_of(entry: &Descriptor) -> Platform {
    let known = entry.platform.as_ref();
    known.map_or_else(Platform::host, |found| Platform {
        os: found.os.clone(),
        architecture: found.architecture.clone(),
        variant: None,
    })
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

    /// What it was stored for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        platform_of(&self.manifest)
    }
}
