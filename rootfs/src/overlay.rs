//! A second VM's disk out of one that is never written again: a reflink where the file system can,
//! else a qcow2 overlay, else a sparse copy.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use fs_err as fs;
use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::qcow2;

/// A way to make a disk from a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneKind {
    /// Shared extents (`FICLONE`): Btrfs, XFS, bcachefs. Nothing is copied, the base may go.
    Reflink,
    /// A qcow2 file that reads from the base, which must stay as it is.
    Overlay,
    /// A full copy without the holes.
    Copy,
}

impl CloneKind {
    /// All of them, the cheapest first.
    pub const ALL: [CloneKind; 3] = [CloneKind::Reflink, CloneKind::Overlay, CloneKind::Copy];
    /// Those that give a raw disk.
    pub const RAW: [CloneKind; 2] = [CloneKind::Reflink, CloneKind::Copy];

    /// The format of the disk that this way makes.
    #[must_use]
    pub fn format(self) -> DiskFormat {
        match self {
            CloneKind::Overlay => DiskFormat::Qcow2,
            CloneKind::Reflink | CloneKind::Copy => DiskFormat::Raw,
        }
    }
}

impl fmt::Display for CloneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloneKind::Reflink => "reflink",
            CloneKind::Overlay => "qcow2 overlay",
            CloneKind::Copy => "copy",
        })
    }
}

/// How a disk file is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes.
    Raw,
    /// QEMU's format, here always with a raw backing file.
    Qcow2,
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        })
    }
}

/// Makes `destination` (mode 0600, replaced if it exists) a writable disk with the content of the
/// raw disk `base`, by the first of `kinds` that works here, and returns that.
///
/// # Errors
/// [`Error::File`] with the last way's failure.
pub fn clone_disk(base: &Path, destination: &Path, kinds: &[CloneKind]) -> Result<CloneKind> {
    let absolute = fs::canonicalize(base).map_err(Error::file("find", base))?;
    let source = fs::File::open(&absolute).map_err(Error::file("open", base))?;
    let directory = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for &kind in kinds {
        let mut file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o600))
            .tempfile_in(directory)
            .map_err(Error::file("make a file in", directory))?;
        let made = match kind {
            CloneKind::Reflink => {
                ioctl_ficlone(file.as_file(), source.file()).map_err(io::Error::from)
            }
            CloneKind::Overlay => {
                let size = source.metadata().map(|metadata| metadata.len());
                size.and_then(|size| qcow2::overlay(&absolute, size))
                    .and_then(|bytes| file.write_all(&bytes))
            }
            CloneKind::Copy => copy(source.file(), file.as_file()),
        };
        match made {
            Ok(()) => {
                file.as_file()
                    .sync_all()
                    .map_err(Error::file("write", destination))?;
                file.persist(destination)
                    .map_err(|error| Error::file("write", destination)(error.error))?;
                return Ok(kind);
            }
            Err(error) => last = error,
        }
    }
    Err(Error::file("clone to", destination)(last))
}

/// Copies what is data; holes stay holes.
fn copy(source: &std::fs::File, destination: &std::fs::File) -> io::Result<()> {
    destination.set_len(source.metadata()?.len())?;
    let mut buffer = vec![0; 1 << 20];
    each_extent(source, |mut position, end| {
        while position < end {
            let length =
                usize::try_from(end - position).map_or(buffer.len(), |left| left.min(buffer.len()));
            source.read_exact_at(&mut buffer[..length], position)?;
            destination.write_all_at(&buffer[..length], position)?;
            position += length as u64;
        }
        Ok(())
    })
}

/// Calls for every run of data between two holes, with its start and its end.
pub(crate) fn each_extent(
    source: &std::fs::File,
    mut act: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let size = source.metadata()?.len();
    let mut position = 0;
    while position < size {
        let start = match seek(source, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(source, SeekFrom::Hole(start))?.min(size);
        act(start, end)?;
        position = end;
    }
    Ok(())
}
