//! The tar formats: v7, ustar, GNU (long names, sparse files, binary numbers) and PAX, as one
//! stream of headers between which the bodies can be read or skipped.
//!
//! ```text
//!   0 name 100   100 mode 8   108 uid 8   116 gid 8   124 size 12   136 mtime 12   148 checksum 8
//! 156 type 1     157 link 100             257 magic 8 265 names 64  329 major 8    337 minor 8
//! 345 prefix 155 (ustar)   |   386 4 × (offset 12, bytes 12), 482 more?, 483 real size 12 (GNU)
//! ```

use std::io::{self, BufRead};

use super::entry::{Time, Xattr};
use super::pax::{self, Extended};
use super::raw::{Raw, check_segments, device_number, number, push_segments, unsigned, until_zero};
use crate::error::Problem;

pub(crate) const BLOCK: usize = 512;
/// Most bytes of one extended header or long name: every attribute that ext4 can hold fits.
const EXTENSION_LIMIT: u64 = 1 << 20;
/// Most data runs of one sparse file.
pub(crate) const SEGMENT_LIMIT: usize = 1 << 20;

/// Where a tar file comes from.
pub(crate) trait Input: BufRead {
    /// Passes over bytes; fewer than asked is an error.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// What a header declares.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: HeaderKind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) xattrs: Vec<Xattr>,
    /// The file's size, holes included.
    pub(crate) size: u64,
    /// The runs that the body stores one after another; `None` is the whole file.
    pub(crate) segments: Option<Vec<Segment>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A run of data inside a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Reads headers; between two of them the body is at hand.
pub(crate) struct TarReader<I> {
    input: I,
    /// Bytes of the body that have not been consumed.
    remaining: u64,
    /// Bytes that fill the body's last block.
    padding: u64,
    /// Bytes consumed from the input.
    position: u64,
    global: Extended,
}

impl<I: Input> TarReader<I> {
    pub(crate) fn new(input: I) -> TarReader<I> {
        let global = Extended::default();
        TarReader {
            input,
            remaining: 0,
            padding: 0,
            position: 0,
            global,
        }
    }

    pub(crate) fn into_inner(self) -> I {
        self.input
    }

    /// Where the unread part of the body starts, in bytes from the start of the input.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the body that are stored and not yet consumed.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Some of the body's next bytes; empty at its end.
    pub(crate) fn body(&mut self) -> Result<&[u8], Problem> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill_buf()?;
        if bytes.is_empty() {
            return Err(Problem::Damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        Ok(&bytes[..bytes.len().min(most)])
    }

    /// Marks bytes of [`body`](Self::body) as used.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.remaining = self.remaining.saturating_sub(bytes as u64);
        self.position += bytes as u64;
    }

    /// The next entry, or `None` at the end. What is left of the last body is skipped. `path` is
    /// kept up to date for error messages.
    pub(crate) fn next(&mut self, path: &mut Vec<u8>) -> Result<Option<Header>, Problem> {
        let mut extended = self.global.clone();
        let mut extended_path = None;
        let mut extended_link = None;
        loop {
            self.skip_body()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let raw = Raw(&block);
            if !raw.checksum_matches() {
                return Err(Problem::Header("checksum"));
            }
            self.set_body(raw.size()?);
            match raw.0[156] {
                b'x' => {
                    let records = self.extension()?;
                    extended.read(&records)?;
                }
                b'g' => {
                    let records = self.extension()?;
                    self.global.read(&records)?;
                    extended.read(&records)?;
                }
                b'L' => extended_path = Some(until_zero(&self.extension()?).to_vec()),
                b'K' => extended_link = Some(until_zero(&self.extension()?).to_vec()),
                b'V' => {}
                _ => {
                    extended.path = extended.path.or(extended_path);
                    extended.link = extended.link.or(extended_link);
                    return self.entry(&raw, extended, path).map(Some);
                }
            }
        }
    }

    fn entry(
        &mut self,
        raw: &Raw<'_>,
        extended: Extended,
        path: &mut Vec<u8>,
    ) -> Result<Header, Problem> {
        let sparse = extended.sparse;
        let name = sparse.name.or(extended.path).unwrap_or_else(|| raw.path());
        path.clone_from(&name);
        let kind = match raw.0[156] {
            b'0' | b'7' | 0 if name.ends_with(b"/") => HeaderKind::Directory,
            b'0' | b'7' | 0 | b'S' => HeaderKind::File,
            b'1' => HeaderKind::HardLink,
            b'2' => HeaderKind::Symlink,
            b'3' => HeaderKind::CharDevice,
            b'4' => HeaderKind::BlockDevice,
            b'5' | b'D' => HeaderKind::Directory,
            b'6' => HeaderKind::Fifo,
            other => return Err(Problem::EntryType(char::from(other))),
        };
        // Some writers repeat the target's size in a link, which still has no body.
        let has_body = kind == HeaderKind::File || raw.0[156] == b'D';
        self.set_body(if has_body {
            extended.size.unwrap_or(raw.size()?)
        } else {
            0
        });
        let (size, segments) = if raw.0[156] == b'S' {
            let segments = self.gnu_segments(raw)?;
            (unsigned(&raw.0[483..495])?, Some(segments))
        } else if kind == HeaderKind::File && sparse.present {
            let size = sparse
                .size
                .ok_or(Problem::Header("sparse file without a size"))?;
            let map = if sparse.major == Some(1) {
                self.map_from_body()?
            } else {
                sparse.map
            };
            let pairs = map.chunks_exact(2);
            let all = sparse.runs.is_none_or(|runs| runs == pairs.len() as u64);
            if !all || !pairs.remainder().is_empty() {
                return Err(Problem::Header("sparse map"));
            }
            let pair = |pair: &[u64]| Segment {
                offset: pair[0],
                length: pair[1],
            };
            (size, Some(pairs.map(pair).collect()))
        } else {
            (self.remaining, None)
        };
        if let Some(segments) = &segments {
            check_segments(segments, size, self.remaining)?;
        }
        let owner = |number| u32::try_from(number).map_err(|_| Problem::Header("owner"));
        Ok(Header {
            path: name,
            link: extended
                .link
                .unwrap_or_else(|| until_zero(&raw.0[157..257]).to_vec()),
            kind,
            // The format has room for more bits than a mode has.
            mode: u16::try_from(unsigned(&raw.0[100..108])? & 0o7777).unwrap_or_default(),
            uid: extended
                .uid
                .map_or_else(|| unsigned(&raw.0[108..116]).and_then(owner), Ok)?,
            gid: extended
                .gid
                .map_or_else(|| unsigned(&raw.0[116..124]).and_then(owner), Ok)?,
            mtime: match extended.mtime {
                Some(mtime) => mtime,
                None => Time {
                    seconds: number(&raw.0[136..148])?,
                    nanoseconds: 0,
                },
            },
            major: device_number(&raw.0[329..337], kind)?,
            minor: device_number(&raw.0[337..345], kind)?,
            xattrs: extended.xattrs,
            size,
            segments,
        })
    }

    fn gnu_segments(&mut self, raw: &Raw<'_>) -> Result<Vec<Segment>, Problem> {
        let mut segments = Vec::new();
        push_segments(&raw.0[386..482], &mut segments)?;
        let mut more = raw.0[482] != 0;
        while more {
            // These blocks lie between header and body and are not part of its size.
            let block = self
                .block()?
                .ok_or(Problem::Header("sparse map ends early"))?;
            push_segments(&block[..504], &mut segments)?;
            more = block[504] != 0;
        }
        Ok(segments)
    }

    /// PAX 1.0: decimal lines in whole blocks in front of the data.
    fn map_from_body(&mut self) -> Result<Vec<u64>, Problem> {
        let bad = || Problem::Header("sparse map");
        let mut map = Vec::new();
        let mut count = None;
        let mut line = Vec::new();
        while count.is_none_or(|count| map.len() < count) {
            if self.remaining < BLOCK as u64 {
                return Err(bad());
            }
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            self.remaining -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 && count.is_none_or(|count| map.len() < count) {
                        return Err(bad());
                    }
                    continue;
                }
                let number = pax::number(&line)?;
                line.clear();
                match count {
                    None => {
                        let pairs = usize::try_from(number).ok();
                        let pairs = pairs.filter(|&pairs| pairs <= SEGMENT_LIMIT);
                        count = Some(2 * pairs.ok_or_else(bad)?);
                    }
                    Some(count) if map.len() < count => map.push(number),
                    Some(_) => {}
                }
                if count.is_some_and(|count| map.len() == count) {
                    break;
                }
            }
        }
        Ok(map)
    }

    fn set_body(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip_body(&mut self) -> Result<(), Problem> {
        let bytes = self
            .remaining
            .checked_add(self.padding)
            .ok_or(Problem::Header("size"))?;
        self.input.skip(bytes)?;
        self.position += bytes;
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    fn extension(&mut self) -> Result<Vec<u8>, Problem> {
        if self.remaining > EXTENSION_LIMIT {
            return Err(Problem::Header("extended header of more than 1 MiB"));
        }
        let mut bytes = vec![0; usize::try_from(self.remaining).unwrap_or_default()];
        self.read_exact(&mut bytes)?;
        self.remaining = 0;
        Ok(bytes)
    }

    /// The next block; `None` at the end mark or where the input ends between two entries, which
    /// some writers produce.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Problem> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        Ok((block != [0; BLOCK]).then_some(block))
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Problem> {
        self.input.read_exact(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}
