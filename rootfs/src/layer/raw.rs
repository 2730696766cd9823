//! The fields of a tar header's block: texts, numbers, and the maps of sparse files.

use super::tar::{BLOCK, HeaderKind, SEGMENT_LIMIT, Segment};
use crate::error::Problem;

/// A header as it is stored.
pub(crate) struct Raw<'a>(pub(crate) &'a [u8; BLOCK]);

impl Raw<'_> {
    /// Some old writers summed signed bytes.
    pub(crate) fn checksum_matches(&self) -> bool {
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

    pub(crate) fn size(&self) -> Result<u64, Problem> {
        unsigned(&self.0[124..136])
    }

    pub(crate) fn path(&self) -> Vec<u8> {
        let name = until_zero(&self.0[..100]);
        let prefix = until_zero(&self.0[345..500]);
        // GNU's magic is `ustar  `, and its prefix field holds other things.
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }
}

/// A text ends at its first zero byte.
pub(crate) fn until_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    &bytes[..end]
}

/// Octal digits, or GNU's big-endian two's complement marked by the highest bit.
pub(crate) fn number(field: &[u8]) -> Result<i64, Problem> {
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

/// A number that cannot be negative.
pub(crate) fn unsigned(field: &[u8]) -> Result<u64, Problem> {
    u64::try_from(number(field)?).map_err(|_| Problem::Header("negative number"))
}

/// Only devices have numbers; other entries may hold rubbish in these fields.
pub(crate) fn device_number(field: &[u8], kind: HeaderKind) -> Result<u32, Problem> {
    match kind {
        HeaderKind::CharDevice | HeaderKind::BlockDevice => {
            u32::try_from(unsigned(field)?).map_err(|_| Problem::Header("device number"))
        }
        _ => Ok(0),
    }
}

/// GNU's pairs of offset and length; an empty one ends them.
pub(crate) fn push_segments(fields: &[u8], segments: &mut Vec<Segment>) -> Result<(), Problem> {
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
pub(crate) fn check_segments(segments: &[Segment], size: u64, stored: u64) -> Result<(), Problem> {
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
