//! How large a layer is unpacked, from what the packed bytes say about themselves. It is a hint
//! from a stranger: too small costs a second pass, too large costs nothing.

use std::io::{self, Read, Seek, SeekFrom};

use crate::image::{Compression, Layer};
use crate::source::BlobSource;

/// Beyond this a hint is not believed: 1 TiB.
const LIMIT: u64 = 1 << 40;

/// Bytes of the unpacked tar, more or less.
pub(crate) fn estimate(source: &dyn BlobSource, layer: &Layer) -> u64 {
    let packed = layer.blob.size;
    let hint = match layer.compression {
        Compression::None => Some(packed),
        Compression::Gzip => gzip(source, layer).ok(),
        Compression::Zstd => zstd(source, layer).ok().flatten(),
    };
    hint.unwrap_or_else(|| packed.saturating_mul(4)).min(LIMIT)
}

/// The trailer holds the size modulo 2^32, of the last member only.
fn gzip(source: &dyn BlobSource, layer: &Layer) -> io::Result<u64> {
    let mut blob = source.open(&layer.blob).map_err(io::Error::other)?;
    let mut trailer = [0; 4];
    blob.seek(SeekFrom::End(-4))?;
    blob.read_exact(&mut trailer)?;
    let mut size = u64::from(u32::from_le_bytes(trailer));
    while size < layer.blob.size.min(LIMIT) {
        size += 1 << 32;
    }
    Ok(size)
}

/// The first frame's header may hold its size.
fn zstd(source: &dyn BlobSource, layer: &Layer) -> io::Result<Option<u64>> {
    let mut start = Vec::new();
    let blob = source.open(&layer.blob).map_err(io::Error::other)?;
    blob.take(18).read_to_end(&mut start)?;
    let size = zstd::zstd_safe::get_frame_content_size(&start);
    Ok(size.ok().flatten().filter(|&size| size >= layer.blob.size))
}
