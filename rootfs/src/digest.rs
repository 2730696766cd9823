//! Content addresses: the verified `sha256:…` newtype, and the reader that checks what passes it.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::Digest as _;
use sha2::Sha256;

use crate::error::{Error, Result};

/// A SHA-256 content address, written `sha256:<64 hex digits>`.
///
/// Only that algorithm is accepted: no registry or tool in use emits another.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The address of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        text
    }

    /// The raw 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let malformed = || Error::MalformedDigest(text.chars().take(200).collect());
        let hex = text
            .strip_prefix("sha256:")
            .ok_or_else(malformed)?
            .as_bytes();
        if hex.len() != 64 {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0]).ok_or_else(malformed)? << 4
                | nibble(pair[1]).ok_or_else(malformed)?;
        }
        Ok(Digest(bytes))
    }
}

/// Lower case only: the specification allows one spelling, so that equal content has equal names.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Digest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A running SHA-256.
#[derive(Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Passes bytes on while hashing and counting them.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    read: u64,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> HashingReader<R> {
        HashingReader {
            inner,
            hasher: Hasher::default(),
            read: 0,
        }
    }

    /// The digest of what was read so far.
    pub(crate) fn digest(self) -> Digest {
        self.hasher.finish()
    }

    /// Reads what is left and compares size and digest with what was promised. Stops at the first
    /// surplus byte.
    pub(crate) fn verify(mut self, expected: Digest, size: u64, origin: &str) -> Result<()> {
        let mut buffer = vec![0; 128 << 10];
        while self.read <= size {
            let count = match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let origin = origin.to_owned();
                    return Err(Error::Blob {
                        digest: expected,
                        origin,
                        source,
                    });
                }
            };
            debug_assert!(count <= buffer.len());
        }
        if self.read != size {
            return Err(Error::SizeMismatch {
                digest: expected,
                expected: size,
                found: self.read,
            });
        }
        let found = self.hasher.finish();
        if found != expected {
            return Err(Error::DigestMismatch {
                what: format!("blob {expected}"),
                expected,
                found,
            });
        }
        Ok(())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.read += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn only_the_canonical_spelling_is_a_digest() {
        let upper = EMPTY.to_uppercase();
        let short = &EMPTY[..70];
        let path = "sha256:../../../../../../../../../../../../../../../../../../../../etc/pwd1";
        for text in [
            "",
            "sha256:",
            "sha512:00",
            &upper,
            short,
            path,
            &format!("{EMPTY}0"),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn verify_tells_length_from_content() {
        let check = |bytes: &'static [u8], size| {
            HashingReader::new(bytes).verify(Digest::of(b"abc"), size, "test")
        };
        check(b"abc", 3).unwrap();
        assert!(matches!(
            check(b"abd", 3),
            Err(Error::DigestMismatch { .. })
        ));
        assert!(matches!(
            check(b"ab", 3),
            Err(Error::SizeMismatch { found: 2, .. })
        ));
        assert!(matches!(
            check(b"abcd", 3),
            Err(Error::SizeMismatch { found: 4, .. })
        ));
    }
}
