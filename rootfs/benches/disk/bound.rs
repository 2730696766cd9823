//! The bound: a program that inflates all layers, hashes what a build hashes, and writes every body
//! to one file, as many layers at once as there are processors. It knows of no names, no merge and
//! no file system, so nothing that makes a disk of the image can be much faster.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use knest_rootfs::{BlobSource, Compression, Image, Layer};
use sha2::{Digest as _, Sha256};

use crate::Result;

/// Bytes per read and per refill, as in the crate.
const BUFFER: usize = 128 << 10;
/// Bytes per write, as in the crate.
const WRITE: usize = 1 << 20;

/// Writes the bodies of all layers to a new, synced file.
pub(crate) fn run(
    source: &dyn BlobSource,
    image: &Image,
    path: &Path,
    diff_ids: bool,
) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(crate::SIZE)?;
    let mut queue: Vec<&Layer> = image.layers.iter().collect();
    queue.sort_by_key(|layer| std::cmp::Reverse(layer.blob.size));
    let (next, end) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> io::Result<()> {
        while let Some(layer) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
            let blob = source.open(&layer.blob).map_err(io::Error::other)?;
            unpack(blob, layer, diff_ids, &file, &end)?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let joined = others.into_iter().map(|other| other.join());
        joined.fold(work(), |sum, one| sum.and_then(|()| one.unwrap_or(Ok(()))))
    })?;
    file.sync_all()?;
    Ok(())
}

struct Hashed<R>(R, Sha256);

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.update(&buffer[..count]);
        Ok(count)
    }
}

fn unpack(
    blob: impl Read,
    layer: &Layer,
    diff_ids: bool,
    file: &File,
    end: &AtomicU64,
) -> io::Result<()> {
    let mut packed = BufReader::with_capacity(BUFFER, Hashed(blob, Sha256::new()));
    let mut unpacked = match layer.compression {
        Compression::None => Tar::new(&mut packed, diff_ids),
        Compression::Gzip => Tar::new(flate2::bufread::MultiGzDecoder::new(&mut packed), diff_ids),
        Compression::Zstd => Tar::new(
            zstd::stream::read::Decoder::with_buffer(&mut packed)?,
            diff_ids,
        ),
    };
    unpacked.bodies(file, end)?;
    let found = unpacked.hash.take().map(|hash| hash.finalize().to_vec());
    drop(unpacked);
    io::copy(&mut packed, &mut io::sink())?;
    let blob = packed.into_inner().1.finalize().to_vec();
    let right = blob == layer.blob.digest.as_bytes()
        && found.is_none_or(|found| found == layer.diff_id.as_bytes());
    right
        .then_some(())
        .ok_or_else(|| io::Error::other("a digest differs"))
}

/// An unpacked layer, read in whole buffers.
struct Tar<'a> {
    decoder: Box<dyn Read + 'a>,
    hash: Option<Sha256>,
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
}

impl<'a> Tar<'a> {
    fn new(decoder: impl Read + 'a, diff_ids: bool) -> Tar<'a> {
        Tar {
            decoder: Box::new(decoder),
            hash: diff_ids.then(Sha256::new),
            buffer: vec![0; BUFFER],
            start: 0,
            filled: 0,
        }
    }

    /// Finds the bodies by nothing but the sizes in the headers.
    fn bodies(&mut self, file: &File, end: &AtomicU64) -> io::Result<()> {
        let mut out = Vec::with_capacity(WRITE + BUFFER);
        let flush = |out: &mut Vec<u8>| {
            let at = end.fetch_add(out.len() as u64, Ordering::Relaxed);
            file.write_all_at(out, at)?;
            out.clear();
            io::Result::Ok(())
        };
        loop {
            let mut header = [0; 512];
            match self.read_exact(&mut header) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                other => other?,
            }
            let digits = header[124..135].iter().filter(|byte| byte.is_ascii_digit());
            let size = digits.fold(0_u64, |sum, digit| sum * 8 + u64::from(digit - b'0'));
            let is_body = header[156] == b'0';
            let mut left = size.next_multiple_of(512);
            while left > 0 {
                let bytes = self.fill_buf()?;
                if bytes.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                if is_body {
                    out.extend_from_slice(&bytes[..count]);
                }
                self.consume(count);
                left -= count as u64;
                if out.len() >= WRITE {
                    flush(&mut out)?;
                }
            }
            out.resize(
                if is_body {
                    out.len().next_multiple_of(4096)
                } else {
                    out.len()
                },
                0,
            );
        }
        flush(&mut out)
    }
}

impl Read for Tar<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(bytes)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Tar<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.filled {
            (self.start, self.filled) = (0, 0);
            while self.filled < BUFFER {
                match self.decoder.read(&mut self.buffer[self.filled..])? {
                    0 => break,
                    count => self.filled += count,
                }
            }
            if let Some(hash) = &mut self.hash {
                hash.update(&self.buffer[..self.filled]);
            }
        }
        Ok(&self.buffer[self.start..self.filled])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}
