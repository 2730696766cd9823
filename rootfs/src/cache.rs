//! Disks that were built, kept by what they are made of.
//!
//! ```text
//! DIR/<key>.raw     the disk, mode 0444: complete and synced, or absent
//! DIR/<key>.lock    held while that disk is built, cloned or removed; a second builder waits and shares
//! DIR/<key>.clones  the directories in which overlays of it were made, one a line
//! DIR/.new-disk-*   being written; a crash may leave one, and the next build removes it
//!
//! key = SHA-256 of the writer's version, the image's digest and the disk's size; of a ready disk, its
//!       digest, or what tells its file from any other, and the size
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::lock::Lock;
use crate::overlay::{CloneKind, clone_disk};
use crate::pipeline::{BuildOptions, Disk, TEMPORARY, build};
use crate::qcow2;
use crate::ready;
use crate::source::BlobSource;
use crate::watch::Wishes;

/// Changes whenever the same image would give other bytes.
const WRITER_VERSION: u32 = 1;

/// A directory of finished disks.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// A disk in a [`Cache`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The raw file.
    pub path: PathBuf,
    /// Bytes that it takes on this machine's disk.
    pub allocated: u64,
    /// When it was last asked for.
    pub used: SystemTime,
}

impl Cache {
    /// Opens the cache in a directory, which is made when it is missing.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(directory: impl Into<PathBuf>) -> Result<Cache> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(Error::file("make", &directory))?;
        Ok(Cache { directory })
    }

    /// The image's disk: found, awaited from another process that builds it, or built.
    ///
    /// # Errors
    /// As [`build`]. [`Error::Cancelled`] ends the waiting too.
    pub fn disk(
        &self,
        source: &dyn BlobSource,
        image: &Image,
        options: &BuildOptions<'_>,
    ) -> Result<Disk> {
        let path = self.path(image.digest(), options.size);
        if let Some(disk) = found(&path, image.digest())? {
            return Ok(disk);
        }
        let lock = Lock::exclusive_unless(&path.with_extension("lock"), options.wishes.cancel)?;
        let disk = match found(&path, image.digest())? {
            Some(disk) => disk,
            None => {
                self.sweep()?;
                build(source, image, &path, options)?
            }
        };
        drop(lock);
        Ok(disk)
    }

    /// A disk of `size` bytes that begins as a file does, which is a disk already: found or copied. With
    /// a digest that is checked, and the file itself is needed but once; without one, for as long as it
    /// does not change.
    ///
    /// # Errors
    /// As [`check_ready`](crate::check_ready); [`Error::DigestMismatch`]; [`Error::Cancelled`].
    pub fn ready(
        &self,
        file: &Path,
        digest: Option<Digest>,
        size: u64,
        wishes: Wishes<'_>,
    ) -> Result<PathBuf> {
        let path = self.named(&ready::key(file, digest, size)?);
        let there = || match fs::File::open(&path) {
            // Somebody else's cache may not be marked as used, and that is fine.
            Ok(file) => file.file().set_modified(SystemTime::now()).is_ok() || path.is_file(),
            Err(_) => false,
        };
        if there() {
            return Ok(path);
        }
        let lock = Lock::exclusive_unless(&path.with_extension("lock"), wishes.cancel)?;
        if !there() {
            self.sweep()?;
            ready::copy(file, digest, &path, size, wishes)?;
        }
        drop(lock);
        Ok(path)
    }

    /// All disks, least recently used first.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn list(&self) -> Result<Vec<Cached>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(Error::file("list", &self.directory))? {
            let path = entry.map_err(Error::file("list", &self.directory))?.path();
            if path.extension().is_some_and(|extension| extension == "raw") {
                let metadata = fs::metadata(&path).map_err(Error::file("read", &path))?;
                let used = metadata.modified().map_err(Error::file("read", &path))?;
                let allocated = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
                all.push(Cached {
                    path,
                    allocated,
                    used,
                });
            }
        }
        all.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        Ok(all)
    }

    /// Makes a writable disk of one of the cache's, as [`clone_disk`] does. As long as a clone
    /// that reads from it lies in the directory where it was made, by whatever name, the disk is
    /// not removed.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn clone_disk(
        &self,
        disk: &Path,
        destination: &Path,
        kinds: &[CloneKind],
    ) -> Result<CloneKind> {
        let lock = Lock::shared(&disk.with_extension("lock"))?;
        let mut kinds = kinds.to_vec();
        if kinds.contains(&CloneKind::Overlay) && !remember(disk, destination) && kinds.len() > 1 {
            // A disk that does not know of its clone may be removed any time.
            kinds.retain(|kind| *kind != CloneKind::Overlay);
        }
        let kind = clone_disk(disk, destination, &kinds)?;
        drop(lock);
        Ok(kind)
    }

    /// Removes a disk, unless it is being built or cloned: then it returns false.
    ///
    /// # Errors
    /// [`Error::InUse`] when a clone reads from it; [`Error::File`].
    pub fn remove(&self, disk: &Cached) -> Result<bool> {
        let Some(lock) = Lock::try_exclusive(&disk.path.with_extension("lock"))? else {
            return Ok(false);
        };
        if let Some(by) = user(&disk.path)? {
            let disk = disk.path.clone();
            return Err(Error::InUse { disk, by });
        }
        fs::remove_file(&disk.path).map_err(Error::file("delete", &disk.path))?;
        drop(fs::remove_file(clones(&disk.path)));
        drop(lock);
        Ok(true)
    }

    /// Removes what dead builders left, disks that nobody asked for since `before`, and as many
    /// more, least recently used first, as take all together more than `most` bytes. Those that
    /// are in use stay. Returns what was removed.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn prune(&self, before: SystemTime, most: u64) -> Result<Vec<Cached>> {
        self.sweep()?;
        let disks = self.list()?;
        let mut held: u64 = disks.iter().map(|disk| disk.allocated).sum();
        let mut removed = Vec::new();
        for disk in disks {
            if disk.used >= before && held <= most {
                continue;
            }
            match self.remove(&disk) {
                Ok(true) => {
                    held -= disk.allocated;
                    removed.push(disk);
                }
                Ok(false) | Err(Error::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    fn path(&self, image: Digest, size: u64) -> PathBuf {
        self.named(&format!(
            "writer {WRITER_VERSION}, ext4, {size} bytes of {image}"
        ))
    }

    fn named(&self, key: &str) -> PathBuf {
        self.directory
            .join(format!("{}.raw", Digest::of(key.as_bytes()).hex()))
    }

    /// Removes what dead builders left. A living one holds its file locked.
    fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.directory).map_err(Error::file("list", &self.directory))? {
            let entry = entry.map_err(Error::file("list", &self.directory))?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY)
                && let Ok(Some(lock)) = Lock::try_exclusive(&entry.path())
            {
                fs::remove_file(entry.path()).map_err(Error::file("delete", entry.path()))?;
                drop(lock);
            }
        }
        Ok(())
    }
}

/// A finished disk at this path; asking for it counts as use.
fn found(path: &Path, image: Digest) -> Result<Option<Disk>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("open", path)(error)),
    };
    let size = file.metadata().map_err(Error::file("read", path))?.len();
    // Somebody else's cache may not be marked as used, and that is fine.
    drop(file.file().set_modified(SystemTime::now()));
    Ok(Some(Disk {
        path: path.to_owned(),
        size,
        image,
    }))
}

fn clones(disk: &Path) -> PathBuf {
    disk.with_extension("clones")
}

/// Notes where a clone was made; false when that can't be written.
fn remember(disk: &Path, clone: &Path) -> bool {
    let note = || -> io::Result<()> {
        let place = fs::canonicalize(clone.parent().unwrap_or_else(|| Path::new(".")))?;
        let line = [place.as_os_str().as_bytes(), b"\n"].concat();
        let path = clones(disk);
        if place.as_os_str().as_bytes().contains(&b'\n') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        file.write_all(&line)?;
        file.sync_all()
    };
    note().is_ok()
}

/// A clone that reads from this disk.
fn user(disk: &Path) -> Result<Option<PathBuf>> {
    let path = clones(disk);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let disk = fs::canonicalize(disk).map_err(Error::file("find", disk))?;
    let places: BTreeSet<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    for place in places.into_iter().filter(|place| !place.is_empty()) {
        // A directory that is gone took its clones along.
        let Ok(files) = fs::read_dir(PathBuf::from(OsStr::from_bytes(place))) else {
            continue;
        };
        for file in files.flatten().map(|entry| entry.path()) {
            if file.is_file()
                && qcow2::backing(&file).is_ok_and(|base| base.as_ref() == Some(&disk))
            {
                return Ok(Some(file));
            }
        }
    }
    Ok(None)
}
