//! Questions about an image that need no disk: whether a path is in it, and one file's bytes.

use std::io;

use crate::error::{Error, Result};
use crate::image::Image;
use crate::layer::{self, Body, BodySink, Limits, NoBodies, Visit};
use crate::merge::{Layers, Node, Tree};
use crate::source::BlobSource;
use crate::watch::{Watch, Wishes};

/// The names that an image's disk has ([`Image::root`]), without the content.
#[derive(Debug)]
pub struct Contents {
    tree: Tree,
}

impl Contents {
    /// Reads all layers of an image: about as long as inflating them takes.
    ///
    /// # Errors
    /// [`Error::NoRoot`]; what reading layers gives: [`Error::Layer`],
    /// [`Error::DigestMismatch`] and others.
    pub fn read(source: &dyn BlobSource, image: &Image, wishes: Wishes<'_>) -> Result<Contents> {
        let watch = watch(image, wishes);
        let limits = Limits::default();
        let mut layers = Layers::default();
        for layer in &image.layers {
            let entries = layer::read(source, layer, true, &watch, &limits, &mut NoBodies)?;
            layers.push(Some(layer.blob.digest), entries);
        }
        let mut tree = layers.merge()?;
        tree.uncarry(image.root())?;
        Ok(Contents { tree })
    }

    /// Whether there is anything at this path, symlinks followed inside the image.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.tree.find(path.as_bytes()).is_some()
    }
}

/// One regular file's bytes, symlinks followed inside the image; at most `limit` of them.
///
/// # Errors
/// [`Error::NoSuchFile`]; [`Error::TooLong`] beyond `limit`; what reading layers gives.
pub fn read_file(
    source: &dyn BlobSource,
    image: &Image,
    path: &str,
    limit: u64,
    wishes: Wishes<'_>,
) -> Result<Vec<u8>> {
    let contents = Contents::read(source, image, wishes)?;
    let missing = || Error::NoSuchFile(path.to_owned());
    let node = contents.tree.find(path.as_bytes()).ok_or_else(missing)?;
    let Node::File {
        origin: Some(origin),
        body,
    } = contents.tree.node(node)
    else {
        return Err(missing());
    };
    if body.size > limit {
        return Err(Error::TooLong {
            what: path.to_owned(),
            size: body.size,
            limit,
        });
    }
    let watch = watch(image, wishes);
    let mut sink = OneFile {
        entry: origin.entry,
        bytes: Vec::new(),
    };
    let layer = image.layers.get(origin.layer).ok_or_else(missing)?;
    drop(layer::read(
        source,
        layer,
        false,
        &watch,
        &Limits::default(),
        &mut sink,
    )?);
    Ok(sink.bytes)
}

fn watch<'a>(image: &Image, wishes: Wishes<'a>) -> Watch<'a> {
    Watch::new(wishes, image.layers.iter().map(|layer| layer.blob.size))
}

struct OneFile {
    entry: usize,
    bytes: Vec<u8>,
}

impl BodySink for OneFile {
    fn begin(&mut self, entry: usize, _: &[u8], _: u64) -> Visit {
        if entry == self.entry {
            Visit::Take
        } else {
            Visit::Skip
        }
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn hole(&mut self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.bytes.resize(self.bytes.len() + length, 0);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<Body> {
        Ok(Body {
            size: self.bytes.len() as u64,
            extents: Box::default(),
        })
    }
}
