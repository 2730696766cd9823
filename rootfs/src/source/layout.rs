//! An OCI image layout: a directory that other tools write and read.
//!
//! ```text
//! DIR/oci-layout            {"imageLayoutVersion": "1.0.0"}
//! DIR/index.json            which images there are
//! DIR/blobs/sha256/<hex>    everything else, by address
//! ```

use std::fmt;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::select::{Selected, select};
use super::{Blob, BlobSource};
use crate::digest::Digest;
use crate::document::{Descriptor, Index};
use crate::error::{Error, Result};
use crate::image::DOCUMENT_LIMIT;

pub(crate) const LAYOUT_FILE: &str = "oci-layout";

/// One image of an OCI layout directory.
#[derive(Debug)]
pub struct Layout {
    directory: PathBuf,
    root: Descriptor,
    document: Option<(Digest, Vec<u8>)>,
}

impl Layout {
    /// Opens the layout's image of that name; without a name, its only image.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Malformed`], [`Error::NoImage`], [`Error::Ambiguous`].
    pub fn open(directory: impl Into<PathBuf>, name: Option<&str>) -> Result<Layout> {
        let directory = directory.into();
        let (index, bytes) = read_index(&directory)?;
        let origin = directory.display().to_string();
        let Selected { root, document } = select(&index, &bytes, name, &origin)?;
        Ok(Layout {
            directory,
            root,
            document,
        })
    }
}

impl BlobSource for Layout {
    fn root(&self) -> &Descriptor {
        &self.root
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Blob + '_>> {
        if let Some((digest, bytes)) = &self.document
            && *digest == blob.digest
        {
            return Ok(Box::new(Cursor::new(bytes)));
        }
        let path = blob_path(&self.directory, blob.digest);
        match fs::File::open(&path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::MissingBlob {
                digest: blob.digest,
                origin: self.to_string(),
            }),
            Err(error) => Err(Error::file("open", path)(error)),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.directory.display())
    }
}

pub(crate) fn blob_path(directory: &Path, digest: Digest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

/// Reads `index.json`, bounded.
pub(crate) fn read_index(directory: &Path) -> Result<(Index, Vec<u8>)> {
    let path = directory.join("index.json");
    let mut bytes = Vec::new();
    let file = fs::File::open(&path).map_err(Error::file("open", &path))?;
    file.take(DOCUMENT_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::file("read", &path))?;
    parse_index(&bytes, &path.display().to_string()).map(|index| (index, bytes))
}

pub(crate) fn parse_index(bytes: &[u8], what: &str) -> Result<Index> {
    let size = bytes.len() as u64;
    if size > DOCUMENT_LIMIT {
        return Err(Error::TooLong {
            what: what.into(),
            size,
            limit: DOCUMENT_LIMIT,
        });
    }
    serde_json::from_slice(bytes).map_err(|error| Error::malformed(what, error))
}
