//! QEMU's disk format, version 3, as far as knest writes it: an overlay of a raw disk, which is
//! nothing but headers, and a disk of its own, which holds the clusters of a raw one that are not
//! zero. All numbers are big-endian, clusters have 64 KiB, and every cluster is used once.
//!
//! ```text
//! overlay                                      disk of its own
//! 0   header, extension "backing format =      0    header
//!     raw", end of extensions, backing path    1…   data, in the order of the raw disk
//! 1   refcount table: one entry                     L2 tables: where each cluster is
//! 2   refcount block: 1, 1, 1, …                    L1 table: where each L2 table is
//! 3…  L1 table: all zero, all from the base         refcount blocks, refcount table
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::{Error, Result};
use crate::overlay::each_extent;

const CLUSTER: u64 = 64 << 10;
/// Entries of an L2 table.
const L2_ENTRIES: u64 = CLUSTER / 8;
/// Bytes of disk that one L1 entry covers.
const L1_REACH: u64 = L2_ENTRIES * CLUSTER;
/// Clusters that one refcount block of 16-bit counts describes.
const REFCOUNTS: u64 = CLUSTER / 2;
const MAGIC: u32 = 0x5146_49fb;
const HEADER_LENGTH: u32 = 104;
const BACKING_FORMAT_EXTENSION: u32 = 0xe279_2aca;
/// Longest backing path that the format allows, in bytes.
const BACKING_PATH_LIMIT: usize = 1023;
/// Marks a cluster that is used once.
const COPIED: u64 = 1 << 63;

/// Where a file's tables are.
struct Header<'a> {
    size: u64,
    backing: Option<&'a [u8]>,
    l1_entries: u64,
    l1: u64,
    refcounts: u64,
    refcount_clusters: u64,
}

impl Header<'_> {
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let word = |value: u64| u32::try_from(value).map_err(|_| too_large());
        let path = self.backing.unwrap_or_default();
        let mut file = Fields(Vec::new());
        file.u32(MAGIC);
        file.u32(3); // version
        // Behind the two extensions.
        file.u64(
            self.backing
                .map_or(0, |_| u64::from(HEADER_LENGTH) + 8 + 8 + 8),
        );
        file.u32(word(path.len() as u64)?);
        file.u32(16); // cluster bits
        file.u64(self.size);
        file.u32(0); // no encryption
        file.u32(word(self.l1_entries)?);
        file.u64(self.l1 * CLUSTER);
        file.u64(self.refcounts * CLUSTER);
        file.u32(word(self.refcount_clusters)?);
        file.u32(0); // snapshots
        file.u64(0); // their table
        file.u64(0); // incompatible features
        file.u64(0); // compatible features
        file.u64(0); // autoclear features
        file.u32(4); // refcounts of 2^4 bits
        file.u32(HEADER_LENGTH);
        if self.backing.is_some() {
            file.u32(BACKING_FORMAT_EXTENSION);
            file.u32(3);
            file.0.extend_from_slice(b"raw\0\0\0\0\0");
        }
        file.u32(0); // end of extensions
        file.u32(0);
        file.0.extend_from_slice(path);
        file.seek(CLUSTER);
        Ok(file.0)
    }
}

/// The whole overlay file.
pub(crate) fn overlay(base: &Path, size: u64) -> io::Result<Vec<u8>> {
    let path = base.as_os_str().as_bytes();
    if path.len() > BACKING_PATH_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the base's path is too long",
        ));
    }
    let l1_entries = size.div_ceil(L1_REACH).max(1);
    let clusters = 3 + (l1_entries * 8).div_ceil(CLUSTER);
    // One refcount block has to do: that is petabytes of L1 table.
    let used = usize::try_from(clusters)
        .ok()
        .filter(|_| clusters <= REFCOUNTS)
        .ok_or_else(too_large)?;
    let header = Header {
        size,
        backing: Some(path),
        l1_entries,
        l1: 3,
        refcounts: 1,
        refcount_clusters: 1,
    };
    let mut file = Fields(header.bytes()?);
    file.u64(2 * CLUSTER);
    file.seek(2 * CLUSTER);
    for _ in 0..used {
        file.u16(1);
    }
    file.seek(clusters * CLUSTER);
    Ok(file.0)
}

/// The base that a qcow2 file reads from; `None` if it has none, or is no qcow2 file.
pub(crate) fn backing(path: &Path) -> io::Result<Option<PathBuf>> {
    let file = fs::File::open(path)?;
    let mut start = Vec::new();
    file.file().take(CLUSTER).read_to_end(&mut start)?;
    let field = |at: usize, length: usize| {
        let bytes = start.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte)),
        )
    };
    let found = || {
        if field(0, 4)? != u64::from(MAGIC) {
            return None;
        }
        let offset = usize::try_from(field(8, 8)?)
            .ok()
            .filter(|&offset| offset > 0)?;
        let length = usize::try_from(field(16, 4)?).ok()?;
        let path = start.get(offset..offset.checked_add(length)?)?;
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
    };
    Ok(found())
}

/// Writes a raw disk's content as a qcow2 file that needs no other, at `destination`, which
/// appears complete and synced or not at all.
///
/// # Errors
/// [`Error::File`].
pub fn to_qcow2(raw: &Path, destination: &Path) -> Result<()> {
    let source = fs::File::open(raw).map_err(Error::file("open", raw))?;
    let directory = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(Error::file("make a file in", directory))?;
    convert(source.file(), file.as_file()).map_err(Error::file("write", destination))?;
    file.persist(destination)
        .map_err(|error| Error::file("write", destination)(error.error))?;
    Ok(())
}

fn convert(source: &std::fs::File, file: &std::fs::File) -> io::Result<()> {
    let size = source.metadata()?.len();
    let mut next = 1;
    let mut tables: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut data = vec![0; usize::try_from(CLUSTER).map_err(|_| too_large())?];
    let mut done = 0;
    each_extent(source, |start, end| {
        // Two runs may meet in one cluster, which is then read once.
        for cluster in (start / CLUSTER).max(done)..end.div_ceil(CLUSTER) {
            let at = cluster * CLUSTER;
            let length = usize::try_from((size - at).min(CLUSTER)).map_err(|_| too_large())?;
            data.fill(0);
            source.read_exact_at(&mut data[..length], at)?;
            if data.iter().any(|&byte| byte != 0) {
                file.write_all_at(&data, next * CLUSTER)?;
                let table = tables.entry(cluster / L2_ENTRIES);
                let empty = || vec![0; usize::try_from(L2_ENTRIES).unwrap_or_default()];
                let slot = usize::try_from(cluster % L2_ENTRIES).map_err(|_| too_large())?;
                table.or_insert_with(empty)[slot] = (next * CLUSTER) | COPIED;
                next += 1;
            }
            done = cluster + 1;
        }
        Ok(())
    })?;
    let write = |first: u64, words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        file.write_all_at(&bytes, first * CLUSTER)
    };
    let l1_entries = size.div_ceil(L1_REACH).max(1);
    let mut l1 = vec![0; usize::try_from(l1_entries).map_err(|_| too_large())?];
    for (index, table) in &tables {
        write(next, table)?;
        l1[usize::try_from(*index).map_err(|_| too_large())?] = (next * CLUSTER) | COPIED;
        next += 1;
    }
    let l1_at = next;
    write(l1_at, &l1)?;
    next += (l1_entries * 8).div_ceil(CLUSTER);
    // The blocks describe themselves and their table too.
    let (mut blocks, mut table_clusters) = (0, 0);
    loop {
        let needed = (next + blocks + table_clusters).div_ceil(REFCOUNTS);
        if needed == blocks {
            break;
        }
        blocks = needed;
        table_clusters = (blocks * 8).div_ceil(CLUSTER);
    }
    let refcounts = next + blocks;
    let total = refcounts + table_clusters;
    let ones: Vec<u8> = (0..total).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_all_at(&ones, next * CLUSTER)?;
    let table: Vec<u64> = (next..refcounts).map(|block| block * CLUSTER).collect();
    write(refcounts, &table)?;
    file.set_len(total * CLUSTER)?;
    let header = Header {
        size,
        backing: None,
        l1_entries,
        l1: l1_at,
        refcounts,
        refcount_clusters: table_clusters,
    };
    file.write_all_at(&header.bytes()?, 0)?;
    file.sync_all()
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the disk is too large")
}

struct Fields(Vec<u8>);

impl Fields {
    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

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
