//! Writes tar files byte by byte, in every dialect and with every oddity.

use super::Bytes;

/// One entry, and how it is spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub path: Bytes,
    /// The format's type: `0` file, `1` hard link, `2` symlink, `3` `4` devices, `5` directory,
    /// `6` fifo.
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: (i64, u32),
    pub link: Bytes,
    pub data: Bytes,
    pub device: (u32, u32),
    pub xattrs: Vec<(Bytes, Bytes)>,
    pub dialect: Dialect,
    /// Instead of `data`, where that is too much to hold: its size and digest.
    pub summary: Option<(u64, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Pax,
    /// Long names in entries of their own, large numbers in binary; no xattrs.
    Gnu,
    /// A sparse file: whole zero blocks of 512 bytes are left out.
    GnuSparse,
    PaxSparse00,
    PaxSparse01,
    PaxSparse10,
}

fn item(path: impl AsRef<[u8]>, kind: u8, mode: u32) -> Item {
    Item {
        path: path.as_ref().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: (1_700_000_000, 0),
        link: Vec::new(),
        data: Vec::new(),
        device: (0, 0),
        xattrs: Vec::new(),
        dialect: Dialect::Pax,
        summary: None,
    }
}

pub fn file(path: impl AsRef<[u8]>, data: impl Into<Bytes>) -> Item {
    Item {
        data: data.into(),
        ..item(path, b'0', 0o644)
    }
}

pub fn directory(path: impl AsRef<[u8]>) -> Item {
    item(path, b'5', 0o755)
}

pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    Item {
        link: target.as_ref().to_vec(),
        ..item(path, b'2', 0o777)
    }
}

pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    Item {
        link: target.as_ref().to_vec(),
        ..item(path, b'1', 0o644)
    }
}

pub fn device(path: impl AsRef<[u8]>, kind: u8, major: u32, minor: u32) -> Item {
    Item {
        device: (major, minor),
        ..item(path, kind, 0o660)
    }
}

pub fn fifo(path: impl AsRef<[u8]>) -> Item {
    item(path, b'6', 0o600)
}

pub fn whiteout(path: &str) -> Item {
    let (parent, name) = path
        .rsplit_once('/')
        .map_or(("", path), |(parent, name)| (parent, name));
    file(format!("{parent}/.wh.{name}").trim_start_matches('/'), "")
}

pub fn opaque(path: &str) -> Item {
    file(format!("{path}/.wh..wh..opq"), "")
}

impl Item {
    pub fn mode(self, mode: u32) -> Item {
        Item { mode, ..self }
    }

    pub fn owner(self, uid: u64, gid: u64) -> Item {
        Item { uid, gid, ..self }
    }

    pub fn at(self, seconds: i64, nanoseconds: u32) -> Item {
        Item {
            mtime: (seconds, nanoseconds),
            ..self
        }
    }

    pub fn xattr(mut self, name: &str, value: impl Into<Bytes>) -> Item {
        self.xattrs.push((name.into(), value.into()));
        self
    }

    pub fn dialect(self, dialect: Dialect) -> Item {
        Item { dialect, ..self }
    }
}

/// A whole tar file.
pub fn write(items: &[Item]) -> Bytes {
    let mut out = Vec::new();
    for item in items {
        write_item(&mut out, item);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn write_item(out: &mut Bytes, item: &Item) {
    let gnu = matches!(item.dialect, Dialect::Gnu | Dialect::GnuSparse);
    let segments = segments(&item.data);
    let stored: Bytes = segments
        .iter()
        .flat_map(|&(start, length)| &item.data[start..start + length])
        .copied()
        .collect();
    let real = item.data.len();
    let mut body = item.data.clone();
    let mut kind = item.kind;
    let mut records = Vec::new();
    let numbers = |separator: &str| {
        let flat = segments.iter().flat_map(|&(start, length)| [start, length]);
        flat.map(|number| number.to_string())
            .collect::<Vec<_>>()
            .join(separator)
    };
    match item.dialect {
        Dialect::Pax | Dialect::Gnu => {}
        Dialect::GnuSparse => (kind, body) = (b'S', stored),
        Dialect::PaxSparse00 => {
            record(&mut records, "GNU.sparse.size", real.to_string());
            record(
                &mut records,
                "GNU.sparse.numblocks",
                segments.len().to_string(),
            );
            for (start, length) in &segments {
                record(&mut records, "GNU.sparse.offset", start.to_string());
                record(&mut records, "GNU.sparse.numbytes", length.to_string());
            }
            body = stored;
        }
        Dialect::PaxSparse01 => {
            record(&mut records, "GNU.sparse.size", real.to_string());
            record(
                &mut records,
                "GNU.sparse.numblocks",
                segments.len().to_string(),
            );
            record(&mut records, "GNU.sparse.map", numbers(","));
            body = stored;
        }
        Dialect::PaxSparse10 => {
            record(&mut records, "GNU.sparse.major", "1");
            record(&mut records, "GNU.sparse.minor", "0");
            record(&mut records, "GNU.sparse.name", &item.path);
            record(&mut records, "GNU.sparse.realsize", real.to_string());
            body = format!("{}\n{}\n", segments.len(), numbers("\n")).into_bytes();
            body.resize(body.len().next_multiple_of(512), 0);
            body.extend_from_slice(&stored);
        }
    }
    if gnu {
        for (kind, name) in [(b'L', &item.path), (b'K', &item.link)] {
            if name.len() > 100 {
                let name = [name, &b"\0"[..]].concat();
                out.extend(header(
                    b"././@LongLink",
                    kind,
                    name.len(),
                    0,
                    (0, 0),
                    0,
                    b"",
                    (0, 0),
                    true,
                ));
                padded(out, &name);
            }
        }
    } else {
        if item.path.len() > 100 || !item.path.is_ascii() {
            record(&mut records, "path", &item.path);
        }
        if item.link.len() > 100 || !item.link.is_ascii() {
            record(&mut records, "linkpath", &item.link);
        }
        for (key, id) in [("uid", item.uid), ("gid", item.gid)] {
            if id > 0o7_777_777 {
                record(&mut records, key, id.to_string());
            }
        }
        let (seconds, nanoseconds) = item.mtime;
        if nanoseconds != 0 || !(0..0o77_777_777_777).contains(&seconds) {
            let text = match (seconds, nanoseconds) {
                (0.., _) => format!("{seconds}.{nanoseconds:09}"),
                (_, 0) => seconds.to_string(),
                _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
            };
            record(&mut records, "mtime", text);
        }
        for (name, value) in &item.xattrs {
            let name = [b"SCHILY.xattr.", name.as_slice()].concat();
            record(&mut records, name, value);
        }
    }
    if !records.is_empty() {
        out.extend(header(
            b"PaxHeader",
            b'x',
            records.len(),
            0o644,
            (0, 0),
            0,
            b"",
            (0, 0),
            false,
        ));
        padded(out, &records);
    }
    let size = if kind == b'0' || kind == b'S' {
        body.len()
    } else {
        0
    };
    let owner = (item.uid, item.gid);
    let mut head = header(
        &item.path,
        kind,
        size,
        item.mode,
        owner,
        item.mtime.0,
        &item.link,
        item.device,
        gnu,
    );
    if kind == b'S' {
        let put = |head: &mut [u8], at: usize, number: usize| {
            head[at..at + 11].copy_from_slice(format!("{number:011o}").as_bytes());
        };
        for (index, &(start, length)) in segments.iter().take(4).enumerate() {
            put(&mut head, 386 + 24 * index, start);
            put(&mut head, 398 + 24 * index, length);
        }
        head[482] = u8::from(segments.len() > 4);
        put(&mut head, 483, real);
        checksum(&mut head);
        out.extend_from_slice(&head);
        let rest = segments.get(4..).unwrap_or_default();
        let blocks = rest.chunks(21).count();
        for (number, chunk) in rest.chunks(21).enumerate() {
            let mut block = [0; 512];
            for (index, &(start, length)) in chunk.iter().enumerate() {
                put(&mut block, 24 * index, start);
                put(&mut block, 24 * index + 12, length);
            }
            block[504] = u8::from(number + 1 < blocks);
            out.extend_from_slice(&block);
        }
    } else {
        out.extend_from_slice(&head);
    }
    if size > 0 {
        padded(out, &body);
    }
}

fn padded(out: &mut Bytes, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn record(records: &mut Bytes, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    let (key, value) = (key.as_ref(), value.as_ref());
    let fixed = key.len() + value.len() + 3;
    let mut length = fixed + 1;
    while fixed + length.to_string().len() != length {
        length += 1;
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Runs of blocks of 512 that are not all zero, as start and length.
fn segments(data: &[u8]) -> Vec<(usize, usize)> {
    let mut segments: Vec<(usize, usize)> = Vec::new();
    for (index, block) in data.chunks(512).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            match segments.last_mut() {
                Some((start, length)) if *start + *length == index * 512 => *length += block.len(),
                _ => segments.push((index * 512, block.len())),
            }
        }
    }
    segments
}

#[expect(clippy::too_many_arguments, reason = "the fields of a header")]
pub fn header(
    path: &[u8],
    kind: u8,
    size: usize,
    mode: u32,
    owner: (u64, u64),
    seconds: i64,
    link: &[u8],
    device: (u32, u32),
    gnu: bool,
) -> Bytes {
    let mut head = vec![0; 512];
    let mut text = |at: usize, limit: usize, bytes: &[u8]| {
        let length = bytes.len().min(limit);
        head[at..at + length].copy_from_slice(&bytes[..length]);
    };
    text(0, 100, path);
    text(157, 100, link);
    let mut number = |at: usize, width: usize, value: i64| {
        let octal = format!("{value:0width$o}", width = width - 1);
        if value >= 0 && octal.len() < width {
            text(at, width - 1, octal.as_bytes());
        } else if gnu {
            let mut bytes = value.to_be_bytes().to_vec();
            let sign = if value < 0 { 0xff } else { 0 };
            while bytes.len() < width {
                bytes.insert(0, sign);
            }
            let cut = bytes.len() - width;
            bytes[cut] |= 0x80;
            text(at, width, &bytes[cut..]);
        }
    };
    number(100, 8, i64::from(mode));
    number(108, 8, i64::try_from(owner.0).unwrap());
    number(116, 8, i64::try_from(owner.1).unwrap());
    number(124, 12, i64::try_from(size).unwrap());
    number(136, 12, seconds);
    number(329, 8, i64::from(device.0));
    number(337, 8, i64::from(device.1));
    head[156] = kind;
    head[257..265].copy_from_slice(if gnu { b"ustar  \0" } else { b"ustar\x0000" });
    checksum(&mut head);
    head
}

pub fn checksum(head: &mut [u8]) {
    head[148..156].copy_from_slice(b"        ");
    let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
