//! The file that becomes the disk: beside its destination until it is complete, or a block device.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::{Error, Result};
use crate::ext4::BLOCK_SIZE;

/// How the names of unfinished disks begin. Their builders hold them locked.
pub(crate) const TEMPORARY: &str = ".new-disk-";

/// An unfinished disk. A file is removed unless it is finished; a device has no superblock, and so
/// no file system, until its last bytes are written.
pub(crate) struct NewDisk {
    pub(crate) file: File,
    temporary: Option<tempfile::TempPath>,
    destination: PathBuf,
}

impl NewDisk {
    pub(crate) fn create(destination: &Path) -> Result<NewDisk> {
        let device = std::fs::metadata(destination)
            .is_ok_and(|metadata| metadata.file_type().is_block_device());
        let (file, temporary) = if device {
            // On a device this flag is the kernel's own lock against mounts.
            let exclusive = OFlags::EXCL.bits().cast_signed();
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(exclusive)
                .open(destination)
                .map_err(Error::file("open", destination))?;
            (file, None)
        } else {
            let (file, path) = temporary(destination)?;
            (file, Some(path))
        };
        Ok(NewDisk {
            file,
            temporary,
            destination: destination.to_owned(),
        })
    }

    /// Whether what was never written may hold anything.
    pub(crate) fn is_device(&self) -> bool {
        self.temporary.is_none()
    }

    /// Makes it empty and of this size.
    pub(crate) fn clear(&self, size: u64) -> Result<()> {
        let clear = || {
            if !self.is_device() {
                self.file.set_len(0)?;
                return self.file.set_len(size);
            }
            let capacity = (&self.file).seek(SeekFrom::End(0))?;
            if capacity < size {
                let text = format!("the device has {capacity} bytes, {size} are needed");
                return Err(io::Error::other(text));
            }
            // Neither a file system nor a partition table from before.
            self.file.write_all_at(&[0; BLOCK_SIZE], 0)
        };
        clear().map_err(|error| self.error(error))
    }

    pub(crate) fn error(&self, source: io::Error) -> Error {
        Error::file("write", &self.destination)(source)
    }

    /// Syncs it and gives a file its name.
    pub(crate) fn finish(self, mode: u32, cancelled: bool) -> Result<()> {
        if cancelled {
            return Err(Error::Cancelled);
        }
        if !self.is_device() {
            let mode = std::fs::Permissions::from_mode(mode);
            let set = self.file.set_permissions(mode);
            set.map_err(|error| self.error(error))?;
        }
        self.file.sync_all().map_err(|error| self.error(error))?;
        let Some(temporary) = self.temporary else {
            return Ok(());
        };
        temporary
            .persist(&self.destination)
            .map_err(|error| Error::file("write", &self.destination)(error.error))
    }
}

/// A locked file beside the destination.
fn temporary(destination: &Path) -> Result<(File, tempfile::TempPath)> {
    let directory = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(directory)
        .map_err(Error::file("make a file in", directory))?;
    let (file, path) = file.into_parts();
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|errno| Error::file("lock", &*path)(errno.into()))?;
    Ok((file, path))
}
