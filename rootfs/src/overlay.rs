//! A second VM's disk out of one that is never written again: a reflink where the file system can,
//! else a qcow2 overlay, else a sparse copy.
//!
//! A qcow2 overlay of an unchanged base is nothing but headers (big-endian, clusters of 64 KiB):
//! ```text
//! cluster 0   header, extension "backing format = raw", end of extensions, backing file's path
//! cluster 1   refcount table: one entry, to cluster 2
//! cluster 2   refcount block: clusters 0 to 2 and the L1 table are used once
//! cluster 3…  L1 table: all zero, every read goes to the base
//! ```

use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use fs_err as fs;
use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::error::{Error, Result};

const CLUSTER: u64 = 64 << 10;
/// Bytes of disk that one L1 entry covers: one L2 table of `CLUSTER / 8` clusters.
const L1_REACH: u64 = CLUSTER / 8 * CLUSTER;
const HEADER_LENGTH: u32 = 104;
const BACKING_FORMAT_EXTENSION: u32 = 0xe279_2aca;
/// Longest backing path that the format allows, in bytes.
const BACKING_PATH_LIMIT: usize = 1023;

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
                size.and_then(|size| overlay(&absolute, size))
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

/// The whole overlay file.
fn overlay(base: &Path, size: u64) -> io::Result<Vec<u8>> {
    let path = base.as_os_str().as_bytes();
    if path.len() > BACKING_PATH_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the base's path is too long",
        ));
    }
    let l1_entries = size.div_ceil(L1_REACH).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let clusters = 3 + l1_clusters;
    let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the base is too large");
    // One refcount block of 16-bit counts describes 32,768 clusters: petabytes of L1 table.
    let used = usize::try_from(clusters)
        .ok()
        .filter(|&used| used <= 32_768)
        .ok_or_else(too_large)?;
    let path_offset = u64::from(HEADER_LENGTH) + 8 + 8 + 8;
    let mut file = Fields(Vec::new());
    file.u32(0x5146_49fb); // "QFI\xfb"
    file.u32(3); // version
    file.u64(path_offset);
    file.u32(u32::try_from(path.len()).map_err(|_| too_large())?);
    file.u32(16); // cluster bits
    file.u64(size);
    file.u32(0); // no encryption
    file.u32(u32::try_from(l1_entries).map_err(|_| too_large())?);
    file.u64(3 * CLUSTER); // L1 table
    file.u64(CLUSTER); // refcount table
    file.u32(1); // clusters of it
    file.u32(0); // snapshots
    file.u64(0); // their table
    file.u64(0); // incompatible features
    file.u64(0); // compatible features
    file.u64(0); // autoclear features
    file.u32(4); // refcounts of 2^4 bits
    file.u32(HEADER_LENGTH);
    file.u32(BACKING_FORMAT_EXTENSION);
    file.u32(3);
    file.0.extend_from_slice(b"raw\0\0\0\0\0");
    file.u32(0); // end of extensions
    file.u32(0);
    debug_assert_eq!(file.0.len() as u64, path_offset);
    file.0.extend_from_slice(path);
    file.seek(CLUSTER);
    file.u64(2 * CLUSTER);
    file.seek(2 * CLUSTER);
    for _ in 0..used {
        file.0.extend_from_slice(&1_u16.to_be_bytes());
    }
    file.seek(clusters * CLUSTER);
    Ok(file.0)
}

struct Fields(Vec<u8>);

impl Fields {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn seek(&mut self, offset: u64) {
        self.0
            .resize(usize::try_from(offset).unwrap_or(usize::MAX), 0);
    }
}

/// Copies what is data; holes stay holes.
fn copy(source: &std::fs::File, destination: &std::fs::File) -> io::Result<()> {
    let size = source.metadata()?.len();
    destination.set_len(size)?;
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    while position < size {
        let start = match seek(source, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(source, SeekFrom::Hole(start))?.min(size);
        position = start;
        while position < end {
            let length =
                usize::try_from(end - position).map_or(buffer.len(), |left| left.min(buffer.len()));
            source.read_exact_at(&mut buffer[..length], position)?;
            destination.write_all_at(&buffer[..length], position)?;
            position += length as u64;
        }
    }
    Ok(())
}
