//! A plain directory as an image of one layer, such as a store or a registry takes. Equal
//! directories give the same image.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use super::section::section;
use super::{Blob, BlobSource, Memory};
use crate::digest::{Digest, Hasher};
use crate::directory::Directory;
use crate::document::{Descriptor, media};
use crate::error::{Error, Result};
use crate::image::Platform;
use crate::watch::{Watch, Wishes};

/// Of zstd: its own default.
const LEVEL: i32 = 3;

/// An image that was made of a directory. Its layer is in a file without a name, which is gone
/// when this is.
#[derive(Debug)]
pub struct PlainDirectory {
    path: PathBuf,
    documents: Memory,
    layer: Descriptor,
    packed: File,
}

impl PlainDirectory {
    /// Packs everything below `path`, as [`build_from_directory`](crate::build_from_directory)
    /// takes it, into a file in `scratch`. Nothing may change there meanwhile.
    ///
    /// # Errors
    /// [`Error::File`] for what cannot be read or written; [`Error::Inode`] for what a layer cannot
    /// hold, such as a name that begins with `.wh.`; [`Error::Cancelled`].
    pub fn pack(
        path: &Path,
        scratch: &Path,
        platform: &Platform,
        wishes: Wishes<'_>,
    ) -> Result<PlainDirectory> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let directory = Directory::walk(path, threads, wishes.cancel)?;
        let watch = Watch::new(wishes, std::iter::once(directory.bytes()));
        let failed = |error| Error::file("write a layer in", scratch)(error);
        let packed = Packed {
            file: tempfile::tempfile_in(scratch).map_err(failed)?,
            hasher: Hasher::default(),
            size: 0,
        };
        let (packed, diff_id) = compress(&directory, packed, &watch, &failed)?;
        let layer = Descriptor {
            media_type: media::LAYER_ZSTD.into(),
            digest: packed.hasher.finish(),
            size: packed.size,
            platform: None,
            annotations: Default::default(),
        };
        Ok(PlainDirectory {
            path: path.to_owned(),
            documents: Memory::of_layers(platform, [(diff_id, layer.clone())])?,
            layer,
            packed: packed.file,
        })
    }
}

fn compress(
    directory: &Directory,
    packed: Packed,
    watch: &Watch<'_>,
    failed: &dyn Fn(io::Error) -> Error,
) -> Result<(Packed, Digest)> {
    let bytes = directory.packed_bytes()?;
    let mut hasher = Hasher::default();
    let mut encoder = zstd::Encoder::new(packed, LEVEL).map_err(failed)?;
    // The frame then says how long it is, and a build shares its disk by that.
    let sized = encoder.set_pledged_src_size(Some(bytes));
    sized.map_err(failed)?;
    directory.pack(watch, &mut |piece| {
        hasher.update(piece);
        encoder.write_all(piece).map_err(failed)
    })?;
    Ok((encoder.finish().map_err(failed)?, hasher.finish()))
}

/// The layer as it is written.
struct Packed {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobSource for PlainDirectory {
    fn root(&self) -> &Descriptor {
        self.documents.root()
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Blob + '_>> {
        if blob.digest == self.layer.digest {
            return Ok(Box::new(section(&self.packed, 0, self.layer.size)));
        }
        self.documents.open(blob)
    }
}

impl fmt::Display for PlainDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dir:{}", self.path.display())
    }
}
