//! One blob on its way into the store: a reader that keeps what passes it.
//!
//! ```text
//! partial/<hex>, what an earlier attempt left ─┐
//!                                              ├─▶ hash ─▶ the reader
//! source, from there on ─▶ partial/<hex> ──────┘
//!                            │
//!   whole and right ─────────┼─▶ synced, renamed to blobs/sha256/<hex>
//!   broken off, from afar ───┼─▶ stays for the next attempt
//!   anything else ───────────┴─▶ removed
//! ```

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use fs_err as fs;

use crate::digest::Hasher;
use crate::document::Descriptor;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::source::{Blob, BlobSource};

/// A blob that comes in.
pub(crate) struct Incoming<'a> {
    source: &'a dyn BlobSource,
    reader: Box<dyn Blob + 'a>,
    blob: Descriptor,
    /// Where it will be.
    path: PathBuf,
    partial: PathBuf,
    /// The partial file, locked.
    file: Lock,
    /// Bytes of it that were there before.
    kept: u64,
    hasher: Hasher,
    position: u64,
    /// Bytes of the source to pass over, where it could not begin behind what was kept.
    skip: u64,
    state: State,
}

enum State {
    /// Bytes pass.
    Passing,
    /// Somebody looks at a part of it: nothing is kept.
    Looking,
    /// In its place.
    Stored,
    /// The end came, and it is not what it should be.
    Wrong(Wrong),
    /// The file could not be written.
    Unwritable,
}

#[derive(Clone, Copy)]
enum Wrong {
    Size,
    Digest(crate::digest::Digest),
}

impl<'a> Incoming<'a> {
    pub(crate) fn new(
        source: &'a dyn BlobSource,
        blob: &Descriptor,
        path: PathBuf,
        partial: PathBuf,
        file: Lock,
    ) -> Result<Incoming<'a>> {
        let handle = file.file().map_err(Error::file("lock", &partial))?;
        let length = handle
            .metadata()
            .map_err(Error::file("read", &partial))?
            .len();
        let kept = if source.remote() && length <= blob.size {
            length
        } else {
            0
        };
        handle
            .set_len(kept)
            .map_err(Error::file("write", &partial))?;
        let mut reader = source.open(blob)?;
        if kept > 0 {
            let sought = reader.seek(SeekFrom::Start(kept));
            sought.map_err(|error| failed(source, blob, error))?;
        }
        Ok(Incoming {
            reader,
            source,
            blob: blob.clone(),
            path,
            partial,
            file,
            kept,
            hasher: Hasher::default(),
            position: 0,
            skip: 0,
            state: State::Passing,
        })
    }

    /// Whether an earlier attempt's bytes are part of it.
    pub(crate) fn resumed(&self) -> bool {
        self.kept > 0
    }

    /// What became of it, after it was read to its end or to an error.
    pub(crate) fn outcome(&self, read: io::Result<()>) -> Result<()> {
        let digest = self.blob.digest;
        match (&self.state, read) {
            (State::Stored, _) => Ok(()),
            (State::Unwritable, Err(source)) => Err(Error::File {
                doing: "write",
                path: self.partial.clone(),
                source,
            }),
            (_, Err(source)) => Err(failed(self.source, &self.blob, source)),
            (State::Wrong(Wrong::Digest(found)), _) => Err(Error::DigestMismatch {
                what: format!("blob {digest} of {}", self.source),
                expected: digest,
                found: *found,
            }),
            _ => Err(Error::SizeMismatch {
                digest,
                expected: self.blob.size,
                found: self.position,
            }),
        }
    }

    /// The next bytes, wherever they are.
    fn pull(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position < self.kept {
            let left = usize::try_from(self.kept - self.position).unwrap_or(usize::MAX);
            let most = left.min(buffer.len());
            let file = self.file.file()?;
            file.read_exact_at(&mut buffer[..most], self.position)?;
            return Ok(most);
        }
        if self.kept > 0 && self.kept == self.blob.size {
            return Ok(0);
        }
        loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported && self.position > 0 => {
                    self.reader.seek(SeekFrom::Start(0))?;
                    self.skip = self.position;
                }
                Ok(count) if self.skip > 0 && count > 0 => {
                    let passed = usize::try_from(self.skip).map_or(count, |skip| skip.min(count));
                    self.skip -= passed as u64;
                    if passed < count {
                        buffer.copy_within(passed..count, 0);
                        return Ok(count - passed);
                    }
                }
                other => return other,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        let start = self.position;
        self.position += bytes.len() as u64;
        self.hasher.update(bytes);
        if self.position <= self.kept {
            return Ok(());
        }
        if self.position > self.blob.size {
            self.state = State::Wrong(Wrong::Size);
            return Ok(());
        }
        let written = self
            .file
            .file()
            .and_then(|file| file.write_all_at(bytes, start));
        if written.is_err() {
            self.state = State::Unwritable;
        }
        written
    }

    /// The end was read.
    fn end(&mut self) -> io::Result<()> {
        if !matches!(self.state, State::Passing) {
            return Ok(());
        }
        if self.position != self.blob.size {
            self.state = State::Wrong(Wrong::Size);
            return Ok(());
        }
        let found = self.hasher.clone().finish();
        if found != self.blob.digest {
            self.state = State::Wrong(Wrong::Digest(found));
            return Ok(());
        }
        self.state = State::Unwritable;
        let file = self.file.file()?;
        file.set_permissions(std::fs::Permissions::from_mode(0o444))?;
        file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        self.state = State::Stored;
        Ok(())
    }
}

fn failed(source: &dyn BlobSource, blob: &Descriptor, error: io::Error) -> Error {
    Error::Blob {
        digest: blob.digest,
        origin: source.to_string(),
        source: error,
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if matches!(self.state, State::Looking) {
            return self.reader.read(buffer);
        }
        // What sends more than it promised may never end.
        if buffer.is_empty() || matches!(self.state, State::Wrong(_)) {
            return Ok(0);
        }
        let count = self.pull(buffer)?;
        if matches!(self.state, State::Passing) {
            match count {
                0 => self.end()?,
                _ => self.keep(&buffer[..count])?,
            }
        }
        Ok(count)
    }
}

impl Seek for Incoming<'_> {
    /// Only whoever reads all of it from the start has it kept.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.state = State::Looking;
        self.reader.seek(to)
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        let keeps = match self.state {
            State::Stored => return,
            State::Passing => self.source.remote() && self.position.max(self.kept) > 0,
            State::Looking => self.kept > 0,
            State::Wrong(_) | State::Unwritable => false,
        };
        if !keeps {
            drop(fs::remove_file(&self.partial));
        }
    }
}
