//! Reads one layer: headers become entries, bodies go to a sink.

use std::io;

use super::entry::{Body, Entry, Kind, Metadata, normalise};
use super::stream::Stream;
use super::tar::{Header, HeaderKind, TarReader};
use crate::digest::HashingReader;
use crate::error::{Error, Problem, Result};
use crate::image::Layer;
use crate::source::BlobSource;
use crate::watch::Watch;

/// Most entries of one layer.
const ENTRY_LIMIT: u64 = 8 << 20;
/// Most bytes of names, targets and attributes of one layer: they are held in memory.
const BYTE_LIMIT: u64 = 256 << 20;
/// Largest file that ext4 holds: 2^32 − 1 blocks.
const FILE_LIMIT: u64 = (u32::MAX as u64) * 4096;
const WHITEOUT: &[u8] = b".wh.";

/// Takes the bodies of files in the order of the archive.
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

/// Counts what a layer makes the program hold.
#[derive(Debug, Default)]
struct Limits {
    entries: u64,
    bytes: u64,
}

impl Limits {
    fn add(&mut self, header: &Header) -> Result<(), Problem> {
        let xattrs = header
            .xattrs
            .iter()
            .map(|xattr| xattr.name.len() + xattr.value.len());
        self.entries += 1;
        self.bytes += (header.path.len() + header.link.len() + xattrs.sum::<usize>()) as u64;
        if self.entries > ENTRY_LIMIT || self.bytes > BYTE_LIMIT {
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
    sink: &mut dyn BodySink,
) -> Result<Vec<Entry>> {
    let origin = source.to_string();
    let digest = layer.blob.digest;
    let mut packed = HashingReader::new(watch.count(source.open(&layer.blob)?));
    let mut path = Vec::new();
    let unpacked = unpack(&mut packed, layer, verify_diff_id, watch, sink, &mut path);
    if matches!(unpacked, Err(Error::Cancelled)) {
        return Err(Error::Cancelled);
    }
    // A damaged blob explains whatever its content did to the reader, so it is reported first.
    packed
        .verify(digest, layer.blob.size, &origin)
        .map_err(|error| watch.or_cancelled(error))?;
    unpacked
}

fn unpack(
    packed: &mut dyn io::Read,
    layer: &Layer,
    verify_diff_id: bool,
    watch: &Watch<'_>,
    sink: &mut dyn BodySink,
    path: &mut Vec<u8>,
) -> Result<Vec<Entry>> {
    let stream = Stream::new(packed, layer.compression, verify_diff_id);
    let result = stream.map_err(Problem::from).and_then(|stream| {
        let mut reader = TarReader::new(stream);
        let entries = entries(&mut reader, watch, sink, path)?;
        Ok((entries, reader.into_inner().finish()?))
    });
    let (entries, found) = result.map_err(|problem| {
        watch.or_cancelled(Error::Layer {
            layer: layer.blob.digest,
            path: super::display(path),
            source: problem,
        })
    })?;
    let expected = layer.diff_id;
    if let Some(found) = found
        && found != expected
    {
        let what = format!("diff id of layer {}", layer.blob.digest);
        return Err(Error::DigestMismatch {
            what,
            expected,
            found,
        });
    }
    Ok(entries)
}

fn entries(
    reader: &mut TarReader<Stream<'_>>,
    watch: &Watch<'_>,
    sink: &mut dyn BodySink,
    path: &mut Vec<u8>,
) -> Result<Vec<Entry>, Problem> {
    let mut entries = Vec::new();
    let mut limits = Limits::default();
    while let Some(header) = reader.next(path)? {
        watch.check()?;
        limits.add(&header)?;
        if let Some(entry) = entry(header, reader, watch, sink, entries.len())? {
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn entry(
    header: Header,
    reader: &mut TarReader<Stream<'_>>,
    watch: &Watch<'_>,
    sink: &mut dyn BodySink,
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
        None => kind(&header, reader, watch, sink, number, &path)?,
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
    // Linux ignores a symlink's permissions, shows them all, and so do other unpackers' results.
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
    header: &Header,
    reader: &mut TarReader<Stream<'_>>,
    watch: &Watch<'_>,
    sink: &mut dyn BodySink,
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
            if sink.begin(number, path, header.size) == Visit::Skip {
                return Ok(Kind::File(Body {
                    size: header.size,
                    extents: Box::default(),
                }));
            }
            body(header, reader, watch, sink)?;
            Kind::File(sink.finish()?)
        }
    })
}

fn body(
    header: &Header,
    reader: &mut TarReader<Stream<'_>>,
    watch: &Watch<'_>,
    sink: &mut dyn BodySink,
) -> Result<(), Problem> {
    let mut copy = |mut length: u64, sink: &mut dyn BodySink| -> Result<(), Problem> {
        while length > 0 {
            watch.check()?;
            let bytes = reader.body()?;
            let most = usize::try_from(length).unwrap_or(usize::MAX);
            let bytes = &bytes[..bytes.len().min(most)];
            if bytes.is_empty() {
                return Err(Problem::Header("body ends early"));
            }
            sink.data(bytes)?;
            let used = bytes.len();
            reader.consume(used);
            length -= used as u64;
        }
        Ok(())
    };
    let Some(segments) = &header.segments else {
        return copy(header.size, sink);
    };
    let mut position = 0;
    for segment in segments {
        sink.hole(segment.offset - position)?;
        copy(segment.length, sink)?;
        position = segment.offset + segment.length;
    }
    Ok(sink.hole(header.size - position)?)
}
