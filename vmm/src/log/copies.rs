//! What of a log lies where: the copies beside it, and where its own bytes begin.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Digits of an offset in a copy's name: enough for any, so that names sort as offsets do.
const DIGITS: usize = 20;

/// A file that holds a piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) path: PathBuf,
}

impl Copy {
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// The name of the copy of `log` that begins at `start`.
pub(super) fn name(log: &Path, start: u64) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(format!(".{start:0DIGITS$}"));
    name.into()
}

/// The copies of `log`, oldest first.
pub(super) fn list(log: &Path) -> Result<Vec<Copy>> {
    let fail = |source| Error::io(format!("list the copies of {}", log.display()), source);
    let (Some(directory), Some(file)) = (log.parent(), log.file_name()) else {
        return Ok(Vec::new());
    };
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let mut copies = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let Some(start) = start_of(&entry.file_name(), file) else {
            continue;
        };
        // One that was removed meanwhile is none.
        if let Ok(meta) = entry.metadata() {
            copies.push(Copy {
                start,
                length: meta.len(),
                path: name(log, start),
            });
        }
    }
    copies.sort_by_key(|copy| copy.start);
    Ok(copies)
}

fn start_of(name: &std::ffi::OsStr, log: &std::ffi::OsStr) -> Option<u64> {
    let digits = name
        .to_str()?
        .strip_prefix(log.to_str()?)?
        .strip_prefix('.')?;
    (digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// Where the bytes of an open log begin: the end of its leading hole, to the file system's block.
pub(super) fn data_start(log: &std::fs::File) -> std::io::Result<u64> {
    match seek(log, SeekFrom::Data(0)) {
        Ok(start) => Ok(start),
        // All of it is a hole.
        Err(Errno::NXIO) => log.metadata().map(|meta| meta.len()),
        // The file system can't tell, so it has no holes either.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The first byte that is in the log itself and in no copy.
pub(super) fn live_start(log: &std::fs::File, copies: &[Copy]) -> std::io::Result<u64> {
    let copied = copies.iter().map(Copy::end).max().unwrap_or(0);
    Ok(data_start(log)?.max(copied))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_copies_count() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        for (name, text) in [
            ("log.00000000000000000012", "xy"),
            ("log.00000000000000000000", "x"),
            ("log.12", ""),
            ("log.0000000000000000001x", ""),
            ("blog.00000000000000000012", ""),
            ("log", ""),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let copies = list(&log).unwrap();
        let found: Vec<_> = copies.iter().map(|c| (c.start, c.end())).collect();
        assert_eq!(found, [(0, 1), (12, 14)]);
        assert_eq!(copies[1].path, name(&log, 12));
        assert_eq!(list(Path::new("/nonexistent/log")).unwrap(), []);
    }
}
