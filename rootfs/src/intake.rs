//! An image on its way into the store. What is read from it is kept, so a disk can be built while
//! the download runs.
//!
//! ```text
//!                    ┌─ there: the store's file
//! open(blob) ── lock ┤
//!                    └─ not there: source ─▶ hash ─▶ partial/<hex> ─▶ the reader
//!                                                        │
//!                                    end, size and digest right: sync, rename to blobs/sha256/
//! ```

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};

use fs_err as fs;

use crate::document::Descriptor;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::incoming::Incoming;
use crate::lock::Lock;
use crate::parallel::each;
use crate::source::{Blob, BlobSource, blob_path};
use crate::store::Store;
use crate::watch::{Watch, Wishes};

/// Blobs that are copied at once.
const PARALLEL: usize = 4;
const BUFFER: usize = 256 << 10;

/// An image that is being copied, as a source: see [`Store::receive`].
pub struct Intake<'a> {
    store: &'a Store,
    source: &'a dyn BlobSource,
    image: &'a Image,
    wishes: Wishes<'a>,
    /// Shared with other copies, exclusive against removals, which would take blobs away.
    _copying: Lock,
}

impl<'a> Intake<'a> {
    pub(crate) fn new(
        store: &'a Store,
        source: &'a dyn BlobSource,
        image: &'a Image,
        wishes: Wishes<'a>,
    ) -> Result<Intake<'a>> {
        let partial = store.directory().join("partial");
        fs::create_dir_all(&partial).map_err(Error::file("make", &partial))?;
        Ok(Intake {
            _copying: Lock::shared(&store.directory().join(".copying"))?,
            store,
            source,
            image,
            wishes,
        })
    }

    /// Copies what nobody has read yet, and gives the image its name.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], [`Error::SizeMismatch`], [`Error::MissingBlob`] or
    /// [`Error::Blob`] for a bad blob; [`Error::File`]; [`Error::Cancelled`]. The name keeps its
    /// old meaning then. What came of a blob from afar is kept for the next attempt.
    pub fn finish(self, name: &str) -> Result<()> {
        let mut known = HashSet::new();
        let blobs: Vec<_> = self
            .image
            .blobs()
            .filter(|blob| known.insert(blob.digest))
            .collect();
        let watch = Watch::new(self.wishes, blobs.iter().map(|blob| blob.size));
        let order: Vec<usize> = (0..blobs.len()).collect();
        each(PARALLEL, &order, |number| {
            self.copy(blobs[number], &watch)
                .map_err(|error| watch.or_cancelled(error))
                .inspect_err(|_| watch.abort())
        })?;
        self.store.name(self.image, name)
    }

    fn copy(&self, blob: &Descriptor, watch: &Watch<'_>) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut incoming = match self.entry(blob)? {
                Entry::There(_) => {
                    watch.add(blob.size);
                    return Ok(());
                }
                Entry::Incoming(incoming) => incoming,
            };
            let mut counted = watch.count(&mut incoming);
            let outcome = loop {
                match counted.read(&mut buffer) {
                    Ok(0) => break Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Err(error),
                }
            };
            match incoming.outcome(outcome) {
                // What an earlier attempt left was not what it seemed: a crash may do that.
                Err(Error::DigestMismatch { .. }) if incoming.resumed() => {
                    watch.again_for(blob.size);
                }
                outcome => return outcome,
            }
        }
    }

    /// The blob as the store has it, or as it comes in, which others then wait for.
    fn entry(&self, blob: &Descriptor) -> Result<Entry<'_>> {
        let path = blob_path(self.store.directory(), blob.digest);
        let partial = self
            .store
            .directory()
            .join("partial")
            .join(blob.digest.hex());
        loop {
            if let Some(file) = open(&path)? {
                return Ok(Entry::There(file));
            }
            let lock = Lock::exclusive_unless(&partial, self.wishes.cancel)?;
            // Whoever had it before may have put the blob into its place, and the file with it.
            if !lock.is_of(&partial) {
                continue;
            }
            if path.exists() {
                fs::remove_file(&partial).map_err(Error::file("delete", &partial))?;
                continue;
            }
            let incoming = Incoming::new(self.source, blob, path, partial, lock)?;
            return Ok(Entry::Incoming(Box::new(incoming)));
        }
    }
}

fn open(path: &std::path::Path) -> Result<Option<fs::File>> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("open", path)(error)),
    }
}

enum Entry<'a> {
    There(fs::File),
    Incoming(Box<Incoming<'a>>),
}

impl BlobSource for Intake<'_> {
    fn root(&self) -> &Descriptor {
        &self.image.manifest
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Blob + '_>> {
        Ok(match self.entry(blob)? {
            Entry::There(file) => Box::new(file),
            Entry::Incoming(incoming) => incoming,
        })
    }

    fn remote(&self) -> bool {
        self.source.remote()
    }
}

impl fmt::Display for Intake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.source, f)
    }
}

impl fmt::Debug for Intake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake")
            .field("source", &self.source)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
