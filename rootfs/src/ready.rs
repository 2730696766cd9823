//! A file that is a disk already, taken over into a cache: checked, copied without its zeros, and made
//! as large as is asked for. Its file system stays as large as it was.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::pipeline::NewDisk;
use crate::watch::{Progress, Wishes};

/// Read and written at once.
const PIECE: usize = 1 << 20;
/// As far as a file must be read to know what it is: Btrfs says so last.
const HEAD: usize = 0x10048;

/// What is at which place of a disk that a kernel mounts as its root.
const FILE_SYSTEMS: [(usize, &[u8]); 3] =
    [(1080, b"\x53\xef"), (0, b"XFSB"), (0x10040, b"_BHRfS_M")];

/// What else a file may be.
const OTHERS: [(usize, &[u8], &str); 7] = [
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"\xfd7zXZ", "compressed with xz"),
    (0x8001, b"CD001", "a CD-ROM's"),
    (512, b"EFI PART", PARTITIONED),
    (510, b"\x55\xaa", PARTITIONED),
];
const PARTITIONED: &str = "partitioned";

/// A file of `size` bytes at most that a kernel could mount.
///
/// # Errors
/// [`Error::File`]; [`Error::NotReady`] where it is no such disk; [`Error::TooSmall`].
pub fn check_ready(file: &Path, size: u64) -> Result<()> {
    open(file, size).map(drop)
}

/// Opens it, and its size.
fn open(path: &Path, size: u64) -> Result<(File, u64)> {
    let error = |doing| Error::file(doing, path);
    // A FIFO without a writer would block.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::os::unix::fs::OpenOptionsExt::custom_flags(
        std::fs::OpenOptions::new().read(true),
        flags,
    )
    .open(path)
    .map_err(error("open"))?;
    let metadata = file.metadata().map_err(error("read"))?;
    let unfit = |what: &str| Error::NotReady {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    if !metadata.is_file() {
        return Err(unfit("no regular file"));
    }
    let mut head = Vec::with_capacity(HEAD);
    (&file)
        .take(HEAD as u64)
        .read_to_end(&mut head)
        .map_err(error("read"))?;
    if let Some(what) = refusal(&head) {
        return Err(unfit(what));
    }
    match metadata.len() {
        needed if needed > size => Err(Error::TooSmall { size, needed }),
        len => Ok((file, len)),
    }
}

/// What a file is that begins like this, unless a kernel can mount it.
fn refusal(head: &[u8]) -> Option<&'static str> {
    let there = |at: usize, bytes: &[u8]| head.get(at..at + bytes.len()) == Some(bytes);
    if FILE_SYSTEMS.iter().any(|(at, bytes)| there(*at, bytes)) {
        return None;
    }
    let other = OTHERS.iter().find(|(at, bytes, _)| there(*at, bytes));
    Some(other.map_or("no disk with a file system", |(_, _, what)| what))
}

/// What its disk of `size` bytes is named by: its content where that is told, else the file as it is now.
pub(crate) fn key(path: &Path, digest: Option<Digest>, size: u64) -> Result<String> {
    if let Some(digest) = digest {
        return Ok(format!("ready disk, {size} bytes of {digest}"));
    }
    let is = std::fs::metadata(path).map_err(Error::file("read", path))?;
    Ok(format!(
        "ready disk, {size} bytes of file {} {} {} {} {}",
        is.dev(),
        is.ino(),
        is.len(),
        is.mtime(),
        is.mtime_nsec()
    ))
}

/// Copies it.
pub(crate) fn copy(
    from: &Path,
    digest: Option<Digest>,
    to: &Path,
    size: u64,
    wishes: Wishes<'_>,
) -> Result<()> {
    let (file, total) = open(from, size)?;
    let disk = NewDisk::create(to)?;
    disk.clear(size)?;
    let mut hasher = digest.map(|_| Hasher::default());
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < total {
        let cancelled =
            |stop: &std::sync::atomic::AtomicBool| stop.load(std::sync::atomic::Ordering::Relaxed);
        if wishes.cancel.is_some_and(cancelled) {
            return Err(Error::Cancelled);
        }
        let length = usize::try_from(total - done).map_or(PIECE, |left| left.min(PIECE));
        let piece = &mut piece[..length];
        file.read_exact_at(piece, done)
            .map_err(Error::file("read", from))?;
        if let Some(hasher) = &mut hasher {
            hasher.update(piece);
        }
        if piece.iter().any(|byte| *byte != 0) {
            disk.file
                .write_all_at(piece, done)
                .map_err(|error| disk.error(error))?;
        }
        done += length as u64;
        if let Some(progress) = wishes.progress {
            progress(Progress { done, total });
        }
    }
    if let (Some(expected), Some(hasher)) = (digest, hasher) {
        let found = hasher.finish();
        if found != expected {
            return Err(Error::DigestMismatch {
                what: from.display().to_string(),
                expected,
                found,
            });
        }
    }
    disk.finish(0o444, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;

    /// The least that passes for an ext4 file system.
    fn disk(bytes: usize) -> Vec<u8> {
        let mut disk = vec![0; bytes];
        disk[1080..1082].copy_from_slice(b"\x53\xef");
        disk[bytes - 1] = 7;
        disk
    }

    #[test]
    fn a_disk_is_taken_over_once_and_grows() {
        let directory = tempfile::tempdir().unwrap();
        let (file, cache) = (directory.path().join("it"), directory.path().join("cache"));
        let bytes = disk(3 << 20);
        std::fs::write(&file, &bytes).unwrap();
        let cache = Cache::open(&cache).unwrap();
        let (size, wishes) = (8 << 20, Wishes::default());
        let first = cache.ready(&file, None, size, wishes).unwrap();
        let copied = std::fs::read(&first).unwrap();
        assert_eq!(copied.len(), 8 << 20);
        assert_eq!(copied[..bytes.len()], bytes);
        assert!(std::fs::metadata(&first).unwrap().blocks() < 2 * (2 << 20) / 512);
        assert_eq!(cache.ready(&file, None, size, wishes).unwrap(), first);
        assert_ne!(cache.ready(&file, None, 2 * size, wishes).unwrap(), first);

        let digest = Digest::of(&bytes);
        let named = cache.ready(&file, Some(digest), size, wishes).unwrap();
        let wrong = Digest::of(b"");
        let error = cache.ready(&file, Some(wrong), size, wishes).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { found, .. } if found == digest));
        std::fs::remove_file(&file).unwrap();
        let again = cache.ready(&file, Some(digest), size, wishes).unwrap();
        assert_eq!(again, named, "what it holds is known by its digest");
        let left = cache.list().unwrap().len();
        assert_eq!(left, 3, "nothing is left of what was refused");
    }

    #[test]
    fn what_is_no_disk_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("it");
        let say = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            match check_ready(&file, 4096) {
                Ok(()) => "fits".to_owned(),
                Err(error) => error.to_string().replace(&*file.to_string_lossy(), "it"),
            }
        };
        let mut partitioned = disk(4096);
        partitioned[1080] = 0;
        partitioned[510..512].copy_from_slice(b"\x55\xaa");
        let said = [
            say(&disk(4096)),
            say(&disk(4097)),
            say(&partitioned),
            say(b"QFI\xfb and so on"),
            say(b"\x1f\x8b"),
            say(b""),
            check_ready(directory.path(), 1).unwrap_err().to_string(),
        ];
        let place = directory.path().to_string_lossy();
        let expected = [
            "fits".to_owned(),
            "the image does not fit a disk of 4096 bytes; 4097 bytes would do".to_owned(),
            "it is partitioned".to_owned(),
            "it is a qcow2 image".to_owned(),
            "it is compressed with gzip".to_owned(),
            "it is no disk with a file system".to_owned(),
            format!("{place} is no regular file"),
        ];
        assert_eq!(said, expected);
        let missing = check_ready(&directory.path().join("none"), 1);
        assert!(matches!(missing, Err(Error::File { .. })));
    }
}
