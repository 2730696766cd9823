//! Reading a log from its oldest byte on, or from its end, while it is written and rotated.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::copies::{self, Copy, live_start};
use crate::error::{Error, Result};

/// What is read at a time.
const PIECE: usize = 64 << 10;
/// How often a rotation may come between before this is told as an error.
const ATTEMPTS: usize = 8;

/// A place in a log's stream.
#[derive(Debug)]
pub struct Reader {
    log: PathBuf,
    at: u64,
}

impl Reader {
    /// Of the log at `path`, which need not exist yet, from the oldest byte that is kept.
    #[must_use]
    pub fn oldest(path: impl Into<PathBuf>) -> Self {
        Self {
            log: path.into(),
            at: 0,
        }
    }

    /// Adds what comes next to `into`, at most 64 KiB, and returns how much that is: 0 when
    /// everything is read for now. Bytes that were removed before they were read are passed over.
    ///
    /// # Errors
    /// When a file is there and can't be read.
    pub fn read(&mut self, into: &mut Vec<u8>) -> Result<usize> {
        let fail = |path: &Path, source| Error::io(format!("read {}", path.display()), source);
        for _ in 0..ATTEMPTS {
            let log = match File::open(&self.log) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
                other => other.map_err(|e| fail(&self.log, e))?,
            };
            let copies = copies::list(&self.log)?;
            let start = live_start(&log, &copies).map_err(|e| fail(&self.log, e))?;
            if self.at < start {
                self.at = next(&copies, self.at).unwrap_or(start);
            }
            let holder = copies
                .iter()
                .find(|c| (c.start..c.end()).contains(&self.at));
            let piece = match holder {
                Some(copy) => match File::open(&copy.path) {
                    // Removed meanwhile: look again.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    other => other.and_then(|file| read_at(&file, self.at - copy.start)),
                },
                None => read_at(&log, self.at),
            }
            .map_err(|e| fail(&self.log, e))?;
            // Holes come from the front: if the first byte is still there, so was all of it.
            if holder.is_none() && self.at < start_now(&log, &self.log)? {
                continue;
            }
            self.at += piece.len() as u64;
            into.extend_from_slice(&piece);
            return Ok(piece.len());
        }
        let busy = std::io::Error::new(ErrorKind::ResourceBusy, "it is rotated all the time");
        Err(fail(&self.log, busy))
    }
}

fn start_now(log: &File, path: &Path) -> Result<u64> {
    live_start(log, &copies::list(path)?)
        .map_err(|source| Error::io(format!("look at {}", path.display()), source))
}

/// The first copied byte at or after `at`.
fn next(copies: &[Copy], at: u64) -> Option<u64> {
    let after = copies.iter().filter(|copy| copy.end() > at);
    after.map(|copy| copy.start.max(at)).min()
}

fn read_at(file: &File, at: u64) -> std::io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE];
    let size = file.read_at(&mut piece, at)?;
    piece.truncate(size);
    Ok(piece)
}
