//! Disks that were built, kept by what they are made of.
//!
//! ```text
//! DIR/<key>.raw     the disk, mode 0444: complete and synced, or absent
//! DIR/<key>.lock    held while that disk is built or removed; a second builder waits and shares
//! DIR/.new-disk-*   being written; a crash may leave one, and the next build removes it
//!
//! key = SHA-256 of the writer's version, the image's digest and the disk's size
//! ```

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::lock::Lock;
use crate::pipeline::{BuildOptions, Disk, TEMPORARY, build};
use crate::source::BlobSource;

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

    /// Removes a disk unless it is being built. Overlays that read from it stop working, so the
    /// caller has to know that there are none. True when it was removed.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove(&self, disk: &Cached) -> Result<bool> {
        let Some(lock) = Lock::try_exclusive(&disk.path.with_extension("lock"))? else {
            return Ok(false);
        };
        fs::remove_file(&disk.path).map_err(Error::file("delete", &disk.path))?;
        drop(lock);
        Ok(true)
    }

    fn path(&self, image: Digest, size: u64) -> PathBuf {
        let key = format!("writer {WRITER_VERSION}, ext4, {size} bytes of {image}");
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
