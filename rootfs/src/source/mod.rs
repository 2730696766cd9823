//! Where an image's bytes come from. A source finds blobs by address and says which document is
//! the image; what the documents mean is [`Image`](crate::Image)'s business, and so is verifying them.

mod archive;
mod directory;
mod layout;
mod memory;
mod reference;
#[cfg(feature = "registry")]
pub mod registry;
mod section;
mod select;

use std::fmt;
use std::io::{Read, Seek};
use std::path::Path;

pub use archive::Archive;
pub use directory::PlainDirectory;
pub use layout::Layout;
pub(crate) use layout::{LAYOUT_FILE, blob_path, read_index};
pub use memory::Memory;
pub use reference::Reference;

use crate::document::Descriptor;
use crate::error::{Error, Result};

/// A readable blob. Seeking serves only to estimate a layer's size from its trailer.
pub trait Blob: Read + Seek + Send {}

impl<T: Read + Seek + Send> Blob for T {}

/// Gives an image's blobs. `Display` is how the user named it.
///
/// The bytes that it gives are not trusted: whoever reads a blob verifies size and digest.
pub trait BlobSource: fmt::Display + fmt::Debug + Send + Sync {
    /// The image: an index or a manifest.
    fn root(&self) -> &Descriptor;

    /// Opens a blob at its first byte.
    ///
    /// # Errors
    /// [`Error::MissingBlob`], or a failure to open it.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Blob + '_>>;

    /// Whether reading takes so long that what came before a failure is worth keeping.
    fn remote(&self) -> bool {
        false
    }
}

/// Opens `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`, or the bare
/// path of such a directory or file.
///
/// # Errors
/// What opening the file gives; [`Error::NoImage`] and [`Error::Ambiguous`] for the name.
pub fn open(reference: &str) -> Result<Box<dyn BlobSource>> {
    if let Some(rest) = reference.strip_prefix("oci:") {
        let (path, name) = split_name(rest);
        return Ok(Box::new(Layout::open(path, name)?));
    }
    let archive = ["oci-archive:", "docker-archive:"];
    if let Some(rest) = archive
        .iter()
        .find_map(|prefix| reference.strip_prefix(prefix))
    {
        let (path, name) = split_name(rest);
        return Ok(Box::new(Archive::open(path, name)?));
    }
    let path = Path::new(reference);
    let metadata = fs_err::metadata(path).map_err(|error| Error::file("open", path)(error))?;
    if metadata.is_dir() {
        Ok(Box::new(Layout::open(path, None)?))
    } else {
        Ok(Box::new(Archive::open(path, None)?))
    }
}

/// Splits `PATH:NAME`; a path that exists as it stands is taken whole.
fn split_name(text: &str) -> (&Path, Option<&str>) {
    match text.split_once(':') {
        Some((path, name)) if !Path::new(text).exists() => (Path::new(path), Some(name)),
        _ => (Path::new(text), None),
    }
}
