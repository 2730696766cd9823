//! PAX extended header records (`length key=value\n`), as far as a root file system needs them.

use super::entry::{Time, Xattr};
use crate::error::Problem;

const SPARSE: &[u8] = b"GNU.sparse.";
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What an extended header changes in the entry that follows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extended {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Vec<Xattr>,
    pub(crate) sparse: Sparse,
}

/// The three ways in which GNU tar writes sparse files into PAX records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sparse {
    pub(crate) major: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    /// How many data runs there are to be, where it is said.
    pub(crate) runs: Option<u64>,
    /// Versions 0.0 and 0.1: offsets and lengths, alternating.
    pub(crate) map: Vec<u64>,
    /// Whether any such record was seen.
    pub(crate) present: bool,
}

impl Extended {
    /// Applies the records of one extended header.
    pub(crate) fn read(&mut self, mut records: &[u8]) -> Result<(), Problem> {
        while !records.is_empty() && records[0] != 0 {
            let (key, value, rest) = split(records).ok_or(Problem::Header("PAX record"))?;
            self.set(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.retain(|xattr| &*xattr.name != name);
            self.xattrs.push(Xattr {
                name: name.into(),
                value: value.into(),
            });
            return Ok(());
        }
        if let Some(key) = key.strip_prefix(SPARSE) {
            return self.sparse.set(key, value);
        }
        // An empty value takes a global record back.
        let some = !value.is_empty();
        let narrow = |number| u32::try_from(number).map_err(|_| Problem::Header("PAX owner"));
        match key {
            b"path" => self.path = some.then(|| value.to_vec()),
            b"linkpath" => self.link = some.then(|| value.to_vec()),
            b"size" => self.size = some.then(|| number(value)).transpose()?,
            b"uid" => self.uid = some.then(|| number(value).and_then(narrow)).transpose()?,
            b"gid" => self.gid = some.then(|| number(value).and_then(narrow)).transpose()?,
            b"mtime" => self.mtime = some.then(|| time(value)).transpose()?,
            _ => {}
        }
        Ok(())
    }
}

impl Sparse {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        match key {
            b"major" => self.major = Some(number(value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"realsize" | b"size" => self.size = Some(number(value)?),
            b"offset" | b"numbytes" => self.map.push(number(value)?),
            b"map" => {
                self.map = value
                    .split(|&byte| byte == b',')
                    .filter(|number| !number.is_empty())
                    .map(number)
                    .collect::<Result<_, _>>()?;
            }
            b"numblocks" => self.runs = Some(number(value)?),
            b"minor" => {}
            _ => return Err(Problem::Header("unknown sparse file record")),
        }
        self.present = true;
        Ok(())
    }
}

/// Splits the first record off: key, value, rest.
fn split(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(number(&records[..space]).ok()?).ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

pub(crate) fn number(text: &[u8]) -> Result<u64, Problem> {
    let bad = Problem::Header("PAX number");
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(bad)
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are cut.
fn time(text: &[u8]) -> Result<Time, Problem> {
    let bad = || Problem::Header("PAX time");
    let (negative, text) = text
        .strip_prefix(b"-")
        .map_or((false, text), |rest| (true, rest));
    let point = text
        .iter()
        .position(|&byte| byte == b'.')
        .unwrap_or(text.len());
    let seconds = i64::try_from(number(&text[..point])?).map_err(|_| bad())?;
    let fraction = text.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let digits = fraction
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9);
    let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanoseconds) {
        (false, _) => Time {
            seconds,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds, nanoseconds) in [
            ("1", 1, 0),
            ("1234567890.123456789999", 1_234_567_890, 123_456_789),
            ("0.5", 0, 500_000_000),
            ("-1.25", -2, 750_000_000),
            ("-3", -3, 0),
        ] {
            let expected = Time {
                seconds,
                nanoseconds,
            };
            assert_eq!(time(text.as_bytes()).unwrap(), expected, "{text}");
        }
        for text in ["", "x", "1.x", "--1", "99999999999999999999"] {
            assert!(time(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn records_hold_any_byte() {
        let mut extended = Extended::default();
        extended
            .read(b"29 SCHILY.xattr.user.a=x\n=\0\n\n11 path=\xff\xfe\n")
            .unwrap();
        assert_eq!(&*extended.xattrs[0].name, b"user.a");
        assert_eq!(&*extended.xattrs[0].value, b"x\n=\0\n");
        assert_eq!(extended.path.as_deref(), Some(&b"\xff\xfe"[..]));
    }

    #[test]
    fn broken_records_are_refused() {
        for records in [
            "5 a=b",
            "99 a=b\n",
            "x a=b\n",
            "6 ab\n",
            "0 a=b\n",
            "9 uid=-1\n",
        ] {
            assert!(
                Extended::default().read(records.as_bytes()).is_err(),
                "{records:?}"
            );
        }
    }
}
