//! Reads one layer: headers become entries, bodies go to a sink.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::{Body, Entry, Kind, Metadata, normalise};
use super::stream::Stream;
use super::tar::{Header, HeaderKind, TarReader};
use crate::digest::{Digest, HashingReader};
use crate::document::Descriptor;
use crate::error::{Error, Problem, Result};
use crate::image::Layer;
use crate::source::BlobSource;
use crate::watch::Watch;

/// Most entries of all layers.
const ENTRY_LIMIT: u64 = 8 << 20;
/// Most bytes of names, targets and attributes of all layers: they are held in memory.
const BYTE_LIMIT: u64 = 256 << 20;
/// Largest file that ext4 holds: 2^32 − 1 blocks.
const FILE_LIMIT: u64 = (u32::MAX as u64) * 4096;
const WHITEOUT: &[u8] = b".wh.";

/// Takes the bodies of files in the order of the archive. Its errors are the disk's.
pub(crate) trait BodySink {
    /// Whether the next file's content is wanted; a file that is not gets no other call.
    fn begin(&mut self, entry: usize, path: &[u8], size: u64) -> Visit;
    /// The next bytes.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The next `bytes` bytes are zero.
    fn hole(&mut self, bytes: u64) -> io::Result<()>;
    /// The file is complete.
    fn finish(&mut self) -> io::Result<Body>;
}

/// What a sink wants of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    Take,
    Skip,
}

/// Wants no bodies.
pub(crate) struct NoBodies;

impl BodySink for NoBodies {
    fn begin(&mut self, _: usize, _: &[u8], _: u64) -> Visit {
        Visit::Skip
    }

    fn data(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn hole(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> io::Result<Body> {
        Ok(Body::default())
    }
}

/// Counts what the layers of one image make the program hold.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl Limits {
    fn add(&self, header: &Header) -> Result<(), Problem> {
        let xattrs = header
            .xattrs
            .iter()
            .map(|xattr| xattr.name.len() + xattr.value.len());
        let bytes = (header.path.len() + header.link.len() + xattrs.sum::<usize>()) as u64;
        let entries = self.entries.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if entries >= ENTRY_LIMIT || before + bytes > BYTE_LIMIT {
            return Err(Problem::TooManyEntries(ENTRY_LIMIT, BYTE_LIMIT));
        }
        Ok(())
    }
}

/// Reads a layer of an image to its end: its entries in the archive's order. Verifies the blob's
/// size and digest, and the diff ID when asked.
pub(crate) fn read(
    source: &dyn BlobSource,
    layer: &Layer,
    verify_diff_id: bool,
    watch: &Watch<'_>,
    limits: &Limits,
    sink: &mut dyn BodySink,
) -> Result<Vec<Entry>> {
    let origin = source.to_string();
    let Descriptor { digest, size, .. } = layer.blob;
    let mut packed = HashingReader::new(watch.count(source.open(&layer.blob)?));
    let mut reading = Reading {
        watch,
        limits,
        sink,
        path: Vec::new(),
    };
    let unpacked = reading.unpack(&mut packed, layer, verify_diff_id);
    if unpacked.is_err() && watch.cancelled() {
        return Err(Error::Cancelled);
    }
    // A damaged blob explains whatever its content did to the reader, so it is reported first.
    if !matches!(unpacked, Err(Problem::Disk(_))) {
        packed
            .verify(digest, size, &origin)
            .map_err(|error| watch.or_cancelled(error))?;
    }
    let (entries, found) = unpacked.map_err(|source| {
        let path = super::display(&reading.path);
        Error::Layer {
            layer: digest,
            path,
            source,
        }
    })?;
    let expected = layer.diff_id;
    if let Some(found) = found
        && found != expected
    {
        let what = format!("diff id of layer {digest}");
        return Err(Error::DigestMismatch {
            what,
            expected,
            found,
        });
    }
    Ok(entries)
}

/// One layer on its way.
struct Reading<'a> {
    watch: &'a Watch<'a>,
    limits: &'a Limits,
    sink: &'a mut dyn BodySink,
    /// The current entry's name as it is written, for messages.
    path: Vec<u8>,
}

type Reader<'a> = TarReader<Stream<'a>>;

impl Reading<'_> {
    fn unpack(
        &mut self,
        packed: &mut dyn io::Read,
        layer: &Layer,
        hash: bool,
    ) -> Result<(Vec<Entry>, Option<Digest>), Problem> {
        let mut reader = TarReader::new(Stream::new(packed, layer.compression, hash)?);
        let mut entries = Vec::new();
        while let Some(header) = reader.next(&mut self.path)? {
            self.watch.check()?;
            self.limits.add(&header)?;
            if let Some(entry) = self.entry(header, &mut reader, entries.len())? {
                entries.push(entry);
            }
        }
        Ok((entries, reader.into_inner().finish()?))
    }

    fn entry(
        &mut self,
        header: Header,
        reader: &mut Reader<'_>,
        number: usize,
    ) -> Result<Option<Entry>, Problem> {
        let mut path = normalise(&header.path)?;
        let start = path
            .iter()
            .rposition(|&byte| byte == b'/')
            .map_or(0, |slash| slash + 1);
        let kind = match path[start..].strip_prefix(WHITEOUT) {
            Some(b".wh..opq") => {
                path = path[..start.saturating_sub(1)].into();
                Kind::Opaque
            }
            // Other names with a doubled prefix are aufs's own bookkeeping.
            Some(name) if name.starts_with(WHITEOUT) => return Ok(None),
            Some(b"" | b"." | b"..") => return Err(Problem::Header("whiteout of nothing")),
            Some(name) => {
                path = [&path[..start], name].concat().into();
                Kind::Whiteout
            }
            None => self.kind(&header, reader, number, &path)?,
        };
        if path.is_empty() && !matches!(kind, Kind::Directory | Kind::Opaque) {
            return Err(Problem::Name);
        }
        let Header {
            mode,
            uid,
            gid,
            mtime,
            xattrs,
            ..
        } = header;
        // Linux ignores a symlink's permissions, shows them all, and so do other unpackers.
        let mode = if matches!(kind, Kind::Symlink(_)) {
            0o777
        } else {
            mode
        };
        Ok(Some(Entry {
            path,
            kind,
            metadata: Metadata {
                mode,
                uid,
                gid,
                mtime,
                xattrs,
            },
        }))
    }

    fn kind(
        &mut self,
        header: &Header,
        reader: &mut Reader<'_>,
        number: usize,
        path: &[u8],
    ) -> Result<Kind, Problem> {
        let Header { major, minor, .. } = *header;
        Ok(match header.kind {
            HeaderKind::Directory => Kind::Directory,
            HeaderKind::Symlink => {
                if !(1..4096).contains(&header.link.len()) || header.link.contains(&0) {
                    return Err(Problem::SymlinkTarget(header.link.len()));
                }
                Kind::Symlink(header.link.as_slice().into())
            }
            HeaderKind::HardLink => Kind::HardLink(normalise(&header.link)?),
            HeaderKind::CharDevice => Kind::CharDevice { major, minor },
            HeaderKind::BlockDevice => Kind::BlockDevice { major, minor },
            HeaderKind::Fifo => Kind::Fifo,
            HeaderKind::File => {
                if header.size > FILE_LIMIT {
                    return Err(Problem::FileTooLarge(header.size));
                }
                if self.sink.begin(number, path, header.size) == Visit::Skip {
                    return Ok(Kind::File(Body {
                        size: header.size,
                        extents: Box::default(),
                    }));
                }
                self.body(header, reader)?;
                Kind::File(self.sink.finish().map_err(Problem::Disk)?)
            }
        })
    }

    fn body(&mut self, header: &Header, reader: &mut Reader<'_>) -> Result<(), Problem> {
        let Some(segments) = &header.segments else {
            return self.copy(header.size, reader);
        };
        let mut position = 0;
        for segment in segments {
            let hole = segment.offset - position;
            self.sink.hole(hole).map_err(Problem::Disk)?;
            self.copy(segment.length, reader)?;
            position = segment.offset + segment.length;
        }
        self.sink
            .hole(header.size - position)
            .map_err(Problem::Disk)
    }

    fn copy(&mut self, mut length: u64, reader: &mut Reader<'_>) -> Result<(), Problem> {
        while length > 0 {
            self.watch.check()?;
            let bytes = reader.body()?;
            let most = usize::try_from(length).unwrap_or(usize::MAX);
            let bytes = &bytes[..bytes.len().min(most)];
            if bytes.is_empty() {
                return Err(Problem::Header("body ends early"));
            }
            self.sink.data(bytes).map_err(Problem::Disk)?;
            let used = bytes.len();
            reader.consume(used);
            length -= used as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Memory;
    use crate::{Image, Platform};

    /// What all layers together make the program hold is bounded; the last straw is named.
    #[test]
    fn entries_and_their_bytes_are_counted() {
        let mut builder = tar::Builder::new(Vec::new());
        for name in ["first", "second"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            builder.append_data(&mut header, name, io::empty()).unwrap();
        }
        let layer = (builder.into_inner().unwrap(), crate::Compression::None);
        let source = Memory::from_layers(&Platform::host(), [layer]).unwrap();
        let image = Image::resolve(&source, &Platform::host()).unwrap();
        let watch = Watch::new(Default::default(), std::iter::empty());
        let read = |entries, bytes| {
            let limits = Limits {
                entries: AtomicU64::new(entries),
                bytes: AtomicU64::new(bytes),
            };
            super::read(
                &source,
                &image.layers[0],
                true,
                &watch,
                &limits,
                &mut NoBodies,
            )
        };
        assert_eq!(read(ENTRY_LIMIT - 2, BYTE_LIMIT - 11).unwrap().len(), 2);
        for result in [read(ENTRY_LIMIT - 1, 0), read(0, BYTE_LIMIT - 10)] {
            let Err(Error::Layer {
                layer,
                path,
                source: Problem::TooManyEntries(..),
            }) = result
            else {
                panic!("{result:?}")
            };
            assert_eq!((layer, &*path), (image.layers[0].blob.digest, "second"));
        }
    }
}
