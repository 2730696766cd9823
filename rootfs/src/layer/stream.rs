//! A layer's blob as its unpacked tar, hashed on the way: what the tar reader consumes.

use std::io::{self, BufRead, BufReader, Read};

use super::tar::Input;
use crate::digest::{Digest, Hasher};
use crate::image::Compression;

/// Unpacked bytes per refill: several refills stay in a core's cache.
const BUFFER: usize = 128 << 10;

/// Most unpacked bytes of a layer: what packs a thousandfold must end somewhere.
const LIMIT: u64 = 256 << 30;

/// The unpacked tar.
pub(crate) struct Stream<'a> {
    decoder: Box<dyn Read + 'a>,
    hasher: Option<Hasher>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    total: u64,
    limit: u64,
}

impl<'a> Stream<'a> {
    /// Wraps the packed bytes. `hash` asks for the digest of the unpacked ones.
    pub(crate) fn new(
        packed: impl Read + 'a,
        compression: Compression,
        hash: bool,
    ) -> io::Result<Stream<'a>> {
        let packed = BufReader::with_capacity(BUFFER, packed);
        let decoder: Box<dyn Read + 'a> = match compression {
            Compression::None => Box::new(packed),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                // 128 MiB: what `zstd --ultra` makes; more would be memory at a stranger's bidding.
                decoder.window_log_max(27)?;
                Box::new(decoder)
            }
        };
        let hasher = hash.then(Hasher::default);
        Ok(Stream {
            decoder,
            hasher,
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            total: 0,
            limit: LIMIT,
        })
    }

    /// Reads on to the end; the digest of all unpacked bytes, when it was asked for.
    pub(crate) fn finish(mut self) -> io::Result<Option<Digest>> {
        while !self.fill_buf()?.is_empty() {
            self.consume(self.end - self.start);
        }
        Ok(self.hasher.map(Hasher::finish))
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(bytes)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            // Decoders return little at a time; the tar reader likes whole runs.
            let mut filled = 0;
            while filled < self.buffer.len() {
                match self.decoder.read(&mut self.buffer[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&self.buffer[..filled]);
            }
            (self.start, self.end) = (0, filled);
            self.total += filled as u64;
            if self.total > self.limit {
                let text = format!("the layer unpacks to more than {} bytes", self.limit);
                return Err(io::Error::other(text));
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
    }
}

impl Input for Stream<'_> {
    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            let available = self.fill_buf()?.len();
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let used = usize::try_from(bytes).map_or(available, |most| available.min(most));
            self.consume(used);
            bytes -= used as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeros without end, in members of a MiB.
    #[test]
    fn unpacking_ends_somewhere() {
        let mut encoder =
            flate2::read::GzEncoder::new(io::repeat(0).take(1 << 20), flate2::Compression::fast());
        let mut member = Vec::new();
        encoder.read_to_end(&mut member).unwrap();
        let packed = member.repeat(100);
        let mut stream = Stream::new(&*packed, Compression::Gzip, false).unwrap();
        stream.limit = 30 << 20;
        let error = stream.finish().unwrap_err();
        assert!(error.to_string().contains("31457280"), "{error}");
    }
}
