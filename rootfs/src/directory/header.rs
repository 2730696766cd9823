//! What a tar file says of one entry before its content: a ustar header, and in front of it PAX
//! records of what that cannot hold. Pure.
//!
//! ```text
//! [ 'x' header │ records, to a whole block ] │ header │ content, to a whole block
//! ```

use crate::error::Problem;
use crate::layer::{Entry, Kind, Metadata, Time};

/// Everything in a tar file begins at a multiple of it, in bytes.
pub(super) const BLOCK: usize = 512;
/// Longest name and longest target in a header, in bytes.
const NAME: usize = 100;

/// The bytes before an entry's content.
///
/// # Errors
/// [`Problem::Unpackable`].
pub(super) fn header(entry: &Entry) -> Result<Vec<u8>, Problem> {
    let Entry {
        path,
        kind,
        metadata,
    } = entry;
    let last = path.rsplit(|&byte| byte == b'/').next();
    if last.is_some_and(|name| name.starts_with(b".wh.")) {
        return Err(Problem::Unpackable(
            "a name that begins with .wh., which deletes there",
        ));
    }
    let (kind, size, link, (major, minor)): (_, _, &[u8], _) = match kind {
        Kind::File(body) => (b'0', body.size, b"", (0, 0)),
        Kind::HardLink(target) => (b'1', 0, target, (0, 0)),
        Kind::Symlink(target) => (b'2', 0, target, (0, 0)),
        Kind::CharDevice { major, minor } => (b'3', 0, b"", (*major, *minor)),
        Kind::BlockDevice { major, minor } => (b'4', 0, b"", (*major, *minor)),
        Kind::Directory => (b'5', 0, b"", (0, 0)),
        Kind::Fifo => (b'6', 0, b"", (0, 0)),
        // A directory has none.
        Kind::Whiteout | Kind::Opaque => return Err(Problem::Unpackable("a deletion")),
    };
    let name = match (&**path, kind) {
        (b"", _) => b"./".to_vec(),
        (path, b'5') => [path, b"/"].concat(),
        (path, _) => path.to_vec(),
    };
    let records = records(&name, link, size, metadata)?;
    let mut bytes = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        let length = records.len() as u64;
        block(
            &mut bytes,
            b"PaxHeaders/x",
            b'x',
            0o644,
            length,
            [0; 5],
            b"",
        );
        bytes.extend(records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    let Metadata {
        mode,
        uid,
        gid,
        mtime,
        ..
    } = metadata;
    let mtime = u64::try_from(mtime.seconds).unwrap_or_default();
    let numbers = [
        (*uid).into(),
        (*gid).into(),
        mtime,
        major.into(),
        minor.into(),
    ];
    block(&mut bytes, &name, kind, *mode, size, numbers, link);
    Ok(bytes)
}

/// Records of what a header cannot hold, or not exactly.
fn records(name: &[u8], link: &[u8], size: u64, metadata: &Metadata) -> Result<Vec<u8>, Problem> {
    let mut records = Vec::new();
    if name.len() > NAME {
        record(&mut records, b"path", name);
    }
    if link.len() > NAME {
        record(&mut records, b"linkpath", link);
    }
    for (key, number, digits) in [
        (&b"size"[..], size, 11),
        (b"uid", metadata.uid.into(), 7),
        (b"gid", metadata.gid.into(), 7),
    ] {
        if number >> (3 * digits) != 0 {
            record(&mut records, key, number.to_string().as_bytes());
        }
    }
    if metadata.mtime.nanoseconds != 0 || !(0..1 << 33).contains(&metadata.mtime.seconds) {
        record(&mut records, b"mtime", time(metadata.mtime).as_bytes());
    }
    for xattr in &metadata.xattrs {
        if xattr.name.contains(&b'=') {
            return Err(Problem::Unpackable("an attribute with = in its name"));
        }
        let key = [b"SCHILY.xattr.", &*xattr.name].concat();
        record(&mut records, &key, &xattr.value);
    }
    Ok(records)
}

/// `LENGTH KEY=VALUE\n`, whose length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length += 1;
    }
    records.extend(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend(part);
    }
}

/// Seconds with a fraction. Nanoseconds count forward, the fraction away from zero.
fn time(time: Time) -> String {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, fraction) = (
        nanoseconds.unsigned_abs() / 1_000_000_000,
        nanoseconds.unsigned_abs() % 1_000_000_000,
    );
    format!("{sign}{seconds}.{fraction:09}")
}

/// One header. `numbers` are owner, group, time, and a device's two. What a field cannot hold is
/// cut off: a record says it.
fn block(
    bytes: &mut Vec<u8>,
    name: &[u8],
    kind: u8,
    mode: u16,
    size: u64,
    [uid, gid, mtime, major, minor]: [u64; 5],
    link: &[u8],
) {
    let mut block = [0; BLOCK];
    let mut text = |at: usize, most: usize, text: &[u8]| {
        let length = text.len().min(most);
        block[at..at + length].copy_from_slice(&text[..length]);
    };
    text(0, NAME, name);
    text(157, NAME, link);
    text(257, 8, b"ustar\x0000");
    for (at, digits, number) in [
        (100, 7, mode.into()),
        (108, 7, uid),
        (116, 7, gid),
        (124, 11, size),
        (136, 11, mtime),
        (329, 7, major),
        (337, 7, minor),
    ] {
        let number = if number >> (3 * digits) == 0 {
            number
        } else {
            0
        };
        text(at, digits, format!("{number:0digits$o}").as_bytes());
    }
    text(148, 8, b"        ");
    text(156, 1, &[kind]);
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes.extend(block);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        for (value, expected) in [
            ("v", "6 k=v\n".to_owned()),
            ("vvvv", "9 k=vvvv\n".to_owned()),
            ("vvvvv", "11 k=vvvvv\n".to_owned()),
            (&"v".repeat(93), format!("99 k={}\n", "v".repeat(93))),
            (&"v".repeat(94), format!("101 k={}\n", "v".repeat(94))),
        ] {
            let mut records = Vec::new();
            record(&mut records, b"k", value.as_bytes());
            assert_eq!(String::from_utf8_lossy(&records), expected);
        }
    }

    #[test]
    fn times_on_both_sides_of_zero() {
        for (seconds, nanoseconds, expected) in [
            (1, 5, "1.000000005"),
            (-1, 500_000_000, "-0.500000000"),
            (-2, 500_000_000, "-1.500000000"),
            (-3, 0, "-3.000000000"),
        ] {
            let found = time(Time {
                seconds,
                nanoseconds,
            });
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_a_layer_cannot_hold() {
        let entry = |path: &[u8], name: &[u8]| Entry {
            path: path.into(),
            kind: Kind::Fifo,
            metadata: Metadata {
                xattrs: vec![crate::layer::Xattr {
                    name: name.into(),
                    value: Box::default(),
                }],
                ..Metadata::default()
            },
        };
        assert!(header(&entry(b"a/b", b"user.c")).is_ok());
        assert!(header(&entry(b".wh.a/b", b"user.c")).is_ok());
        for (path, name) in [(&b"a/.wh.b"[..], &b"user.c"[..]), (b"a", b"user.c=d")] {
            let found = header(&entry(path, name));
            assert!(matches!(found, Err(Problem::Unpackable(_))), "{found:?}");
        }
    }
}
