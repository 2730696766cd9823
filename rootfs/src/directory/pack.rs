//! A directory as a layer: the tar file that another machine makes the same directory of. A hole
//! is written as the zeros that it reads as, since not every reader of layers knows sparse files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use super::header::{BLOCK, header};
use super::walk::Directory;
use crate::error::{Error, Problem, Result};
use crate::layer::{Entry, Kind, display};
use crate::watch::Watch;

/// Bytes per read.
const BUFFER: usize = 256 << 10;

/// Takes the next bytes.
type Out<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

impl Directory {
    /// Bytes of the tar file.
    ///
    /// # Errors
    /// [`Error::Inode`] for what a layer cannot hold.
    pub(crate) fn packed_bytes(&self) -> Result<u64> {
        let end = 2 * BLOCK as u64;
        self.entries.iter().try_fold(end, |sum, entry| {
            let head = named(entry, header(entry))?.len() as u64;
            let content = match &entry.kind {
                Kind::File(body) => body.size.next_multiple_of(BLOCK as u64),
                _ => 0,
            };
            Ok(sum.saturating_add(head).saturating_add(content))
        })
    }

    /// Gives the tar file, piece after piece.
    ///
    /// # Errors
    /// [`Error::Inode`] for what a layer cannot hold, [`Error::File`] for what cannot be read,
    /// [`Error::Cancelled`], and what `out` gives.
    pub(crate) fn pack(&self, watch: &Watch<'_>, out: Out<'_>) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        for entry in &self.entries {
            out(&named(entry, header(entry))?)?;
            if let Kind::File(body) = &entry.kind
                && body.size > 0
            {
                self.content(&self.path(&entry.path), body.size, watch, &mut buffer, out)?;
            }
        }
        out(&[0; 2 * BLOCK])
    }

    fn content(
        &self,
        path: &Path,
        size: u64,
        watch: &Watch<'_>,
        buffer: &mut [u8],
        out: Out<'_>,
    ) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::empty());
        let mut file = File::from(file.map_err(|errno| Error::file("open", path)(errno.into()))?);
        let mut left = size;
        while left > 0 {
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let count = match file.read(&mut buffer[..most]) {
                // It was longer when the directory was listed.
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            };
            let count = count.map_err(Error::file("read", path))?;
            out(&buffer[..count])?;
            watch.add(count as u64);
            left -= count as u64;
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        out(&[0; BLOCK][..usize::try_from(padding).unwrap_or_default()])
    }
}

fn named<T>(entry: &Entry, found: Result<T, Problem>) -> Result<T> {
    found.map_err(|source| Error::Inode {
        path: display(&entry.path),
        source,
    })
}
