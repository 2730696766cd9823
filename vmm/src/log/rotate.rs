//! Moving a log's oldest bytes out of it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::copies::{self, Copy, live_start};
use crate::error::{Error, Result};

/// What is copied before its hole is punched: no rotation needs more room than this at a time.
const PIECE: u64 = 256 << 10;
/// A log is never cut shorter than this, so that its end can be shown.
const LEAST: u64 = 64 << 10;
/// Holes are punched in whole blocks, or a block's rest would read as zeros.
const BLOCK: u64 = 4096;

/// Keeps one log and its copies below a size.
#[derive(Debug, Clone)]
pub struct Rotation {
    log: PathBuf,
    /// Bytes that the log itself may hold; cut to half of it.
    live: u64,
    /// Bytes that its copies may hold together.
    copied: u64,
}

impl Rotation {
    /// Of the file at `log`, which need not exist yet. It and its copies together hold about `size`
    /// bytes, at least 128 KiB; what is older is removed.
    #[must_use]
    pub fn new(log: impl Into<PathBuf>, size: u64) -> Self {
        let half = (size / 2).max(LEAST);
        Self {
            log: log.into(),
            live: half,
            copied: half,
        }
    }

    /// Whether the log takes more room than it may: one look, for whoever wants to know often.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let meta = std::fs::metadata(&self.log);
        meta.is_ok_and(|meta| meta.blocks() * 512 > self.live)
    }

    /// Moves the oldest bytes out if the log has become too long; returns how many. Blocks for as
    /// long as copying takes. The log's writer may go on meanwhile.
    ///
    /// # Errors
    /// When a file can't be read, written or punched. Nothing is lost then: what has no copy stays.
    pub fn turn(&self) -> Result<u64> {
        let fail = |what: &'static str| {
            move |source| Error::io(format!("{what} {}", self.log.display()), source)
        };
        let log = match OpenOptions::new().read(true).write(true).open(&self.log) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            other => other.map_err(fail("open"))?,
        };
        let size = log.metadata().map_err(fail("look at"))?.len();
        let copies = copies::list(&self.log)?;
        let begin = live_start(&log, &copies).map_err(fail("look at"))?;
        if size.saturating_sub(begin) <= self.live {
            return Ok(0);
        }
        // What an interrupted rotation has copied already.
        punch(&log, 0, begin).map_err(fail("punch a hole into"))?;
        let end = (size - self.live / 2) / BLOCK * BLOCK;
        let mut at = begin;
        let mut bytes = Vec::new();
        while at < end {
            // Up to a block's end, whatever the interrupted one left.
            let piece_end = ((at + PIECE) / BLOCK * BLOCK).min(end);
            bytes.resize(usize::try_from(piece_end - at).unwrap_or(0), 0);
            log.read_exact_at(&mut bytes, at).map_err(fail("read"))?;
            self.copy(&bytes, at)?;
            punch(&log, at, piece_end).map_err(fail("punch a hole into"))?;
            at = piece_end;
        }
        self.forget(copies::list(&self.log)?)?;
        Ok(at - begin)
    }

    /// Adds to the newest copy, or begins one. A full disk costs the oldest copies.
    fn copy(&self, bytes: &[u8], at: u64) -> Result<()> {
        let mut copies = copies::list(&self.log)?;
        let newest = copies.pop_if(|newest| newest.end() == at && newest.length < self.copied / 4);
        let newest = newest.unwrap_or_else(|| Copy {
            start: at,
            length: 0,
            path: copies::name(&self.log, at),
        });
        loop {
            let Err(source) = append(&newest, bytes) else {
                return Ok(());
            };
            let full = source.kind() == ErrorKind::StorageFull && !copies.is_empty();
            if !full {
                let what = format!("copy the log to {}", newest.path.display());
                return Err(Error::io(what, source));
            }
            remove(&copies.remove(0).path)?;
        }
    }

    fn forget(&self, mut copies: Vec<Copy>) -> Result<()> {
        let mut held: u64 = copies.iter().map(|copy| copy.length).sum();
        while held > self.copied && copies.len() > 1 {
            let oldest = copies.remove(0);
            held -= oldest.length;
            remove(&oldest.path)?;
        }
        Ok(())
    }
}

/// Appends all of it or nothing.
fn append(copy: &Copy, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&copy.path)?;
    let written = file.write_all(bytes);
    if written.is_err() {
        if copy.length == 0 {
            std::fs::remove_file(&copy.path)?;
        } else {
            file.set_len(copy.length)?;
        }
    }
    written
}

fn punch(log: &File, from: u64, to: u64) -> std::io::Result<()> {
    if from >= to {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(log, flags, from, to - from)?)
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path)
        .map_err(|source| Error::io(format!("remove {}", path.display()), source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Reader;

    /// A log, its writer, and what was written.
    struct Written {
        _dir: tempfile::TempDir,
        path: PathBuf,
        writer: File,
        all: Vec<u8>,
    }

    impl Written {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let writer = OpenOptions::new().create(true).append(true).open(&path);
            Self {
                writer: writer.unwrap(),
                _dir: dir,
                path,
                all: Vec::new(),
            }
        }

        fn write(&mut self, size: usize) {
            let from = self.all.len();
            let numbers = (from..).flat_map(|n| format!("{n}\n").into_bytes());
            self.all.extend(numbers.take(size));
            self.writer.write_all(&self.all[from..]).unwrap();
        }

        fn read(&self) -> Vec<u8> {
            let mut reader = Reader::oldest(&self.path);
            let mut read = Vec::new();
            while reader.read(&mut read).unwrap() > 0 {}
            read
        }
    }

    #[test]
    fn nothing_is_lost_nor_doubled_and_the_file_stays_the_same() {
        let mut log = Written::new();
        let inode = log.path.metadata().unwrap().ino();
        let rotation = Rotation::new(&log.path, 24 << 20);
        assert!(!rotation.is_due());
        assert_eq!(rotation.turn().unwrap(), 0);
        for _ in 0..5 {
            log.write(3_000_001);
            rotation.turn().unwrap();
            assert!(log.read() == log.all);
        }
        let meta = log.path.metadata().unwrap();
        assert_eq!((meta.ino(), meta.len()), (inode, log.all.len() as u64));
        assert!(meta.blocks() * 512 <= 7 << 20, "{} blocks", meta.blocks());
        assert_eq!(rotation.turn().unwrap(), 0, "there is nothing to do");
        log.write(8_000_000);
        assert!(rotation.is_due());
    }

    #[test]
    fn only_so_much_is_kept_and_it_is_the_newest() {
        let mut log = Written::new();
        let rotation = Rotation::new(&log.path, 256 << 10);
        for _ in 0..20 {
            log.write(100_003);
            rotation.turn().unwrap();
        }
        let read = log.read();
        assert!(log.all.ends_with(&read));
        assert!(
            (128 << 10..400 << 10).contains(&read.len()),
            "{}",
            read.len()
        );
        let held: u64 = copies::list(&log.path)
            .unwrap()
            .iter()
            .map(|copy| copy.path.metadata().unwrap().blocks() * 512)
            .sum();
        let live = log.path.metadata().unwrap().blocks() * 512;
        assert!(held + live < 400 << 10, "{held} and {live}");
    }

    #[test]
    fn one_that_was_killed_between_copy_and_hole_is_taken_up() {
        let mut log = Written::new();
        log.write(980_000);
        std::fs::write(copies::name(&log.path, 0), &log.all[..100_001]).unwrap();
        assert!(
            log.read() == log.all,
            "bytes that are there twice are read once"
        );
        assert!(Rotation::new(&log.path, 1_400_000).turn().unwrap() > 0);
        assert!(log.read() == log.all);
    }

    #[test]
    fn a_reader_that_is_overtaken_goes_on_with_the_oldest_there_is() {
        let mut log = Written::new();
        log.write(10_000);
        let mut reader = Reader::oldest(&log.path);
        let mut read = Vec::new();
        reader.read(&mut read).unwrap();
        assert!(read == log.all);
        let rotation = Rotation::new(&log.path, 128 << 10);
        for _ in 0..10 {
            log.write(100_000);
            rotation.turn().unwrap();
        }
        read.clear();
        while reader.read(&mut read).unwrap() > 0 {}
        assert!(log.all.ends_with(&read) && read.len() > 64 << 10);
    }
}
