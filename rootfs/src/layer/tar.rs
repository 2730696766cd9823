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
use crate::error::Problem;

const BLOCK: usize = 512;
/// Most bytes of one extended header or long name: every attribute that ext4 can hold fits.
const EXTENSION_LIMIT: u64 = 1 << 20;
/// Most data runs of one sparse file.
const SEGMENT_LIMIT: usize = 1 << 20;

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
            if !pairs.remainder().is_empty() {
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

struct Raw<'a>(&'a [u8; BLOCK]);

impl Raw<'_> {
    /// Some old writers summed signed bytes.
    fn checksum_matches(&self) -> bool {
        let Ok(expected) = number(&self.0[148..156]) else {
            return false;
        };
        let blanked = self.0.iter().enumerate().map(|(index, &byte)| match index {
            148..156 => b' ',
            _ => byte,
        });
        let unsigned: i64 = blanked.clone().map(i64::from).sum();
        let signed: i64 = blanked.map(|byte| i64::from(byte.cast_signed())).sum();
        expected == unsigned || expected == signed
    }

    fn size(&self) -> Result<u64, Problem> {
        unsigned(&self.0[124..136])
    }

    fn path(&self) -> Vec<u8> {
        let name = until_zero(&self.0[..100]);
        let prefix = until_zero(&self.0[345..500]);
        // GNU's magic is `ustar  `, and its prefix field holds other things.
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    &bytes[..end]
}

/// Octal digits, or GNU's big-endian two's complement marked by the highest bit.
fn number(field: &[u8]) -> Result<i64, Problem> {
    let bad = || Problem::Header("number");
    if field[0] & 0x80 != 0 {
        let first = i128::from(((field[0] & 0x7f) << 1).cast_signed() >> 1);
        let value = field[1..]
            .iter()
            .fold(first, |sum, &byte| sum << 8 | i128::from(byte));
        return i64::try_from(value).map_err(|_| bad());
    }
    let digits = field.iter().skip_while(|&&byte| byte == b' ' || byte == 0);
    digits
        .take_while(|&&byte| byte != b' ' && byte != 0)
        .try_fold(0_i64, |sum, &digit| {
            if !(b'0'..=b'7').contains(&digit) {
                return Err(bad());
            }
            sum.checked_mul(8)
                .map(|sum| sum + i64::from(digit - b'0'))
                .ok_or_else(bad)
        })
}

fn unsigned(field: &[u8]) -> Result<u64, Problem> {
    u64::try_from(number(field)?).map_err(|_| Problem::Header("negative number"))
}

/// Only devices have numbers; other entries may hold rubbish in these fields.
fn device_number(field: &[u8], kind: HeaderKind) -> Result<u32, Problem> {
    match kind {
        HeaderKind::CharDevice | HeaderKind::BlockDevice => {
            u32::try_from(unsigned(field)?).map_err(|_| Problem::Header("device number"))
        }
        _ => Ok(0),
    }
}

fn push_segments(fields: &[u8], segments: &mut Vec<Segment>) -> Result<(), Problem> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 && pair[12] == 0 {
            break;
        }
        if segments.len() == SEGMENT_LIMIT {
            return Err(Problem::Header("sparse map"));
        }
        segments.push(Segment {
            offset: unsigned(&pair[..12])?,
            length: unsigned(&pair[12..])?,
        });
    }
    Ok(())
}

/// Segments ascend, stay inside the file, and add up to what is stored.
fn check_segments(segments: &[Segment], size: u64, stored: u64) -> Result<(), Problem> {
    let bad = || Problem::Header("sparse map");
    let (mut end, mut sum) = (0_u64, 0_u64);
    for segment in segments {
        if segment.offset < end {
            return Err(bad());
        }
        end = segment.offset.checked_add(segment.length).ok_or_else(bad)?;
        sum = sum.checked_add(segment.length).ok_or_else(bad)?;
    }
    if end > size || sum != stored {
        Err(bad())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, expected) in [
            (&b"0000644\0"[..], 0o644),
            (b"   755 \0", 0o755),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        ] {
            assert_eq!(number(field).unwrap(), expected, "{field:?}");
        }
        assert!(number(b"0000649\0").is_err());
        assert!(number(b"\x8f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
        assert!(unsigned(b"\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn segments_must_be_the_file() {
        let segments = |pairs: &[(u64, u64)]| -> Vec<_> {
            pairs
                .iter()
                .map(|&(offset, length)| Segment { offset, length })
                .collect()
        };
        assert!(check_segments(&segments(&[(0, 5), (10, 5), (20, 0)]), 20, 10).is_ok());
        for bad in [
            &[(5, 5), (0, 5)][..],
            &[(0, 5), (4, 5)],
            &[(15, 10)],
            &[(0, 9)],
            &[(u64::MAX, 10)],
        ] {
            assert!(check_segments(&segments(bad), 20, 10).is_err(), "{bad:?}");
        }
    }
}
