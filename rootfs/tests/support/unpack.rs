//! Reads a real image's layers into items with another tar reader than the crate's.

use std::io::{Read, copy};

use knest_rootfs::{BlobSource, Compression, Layer};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::tar::{Item, directory};

/// The layer's entries, contents as digests.
pub fn items(source: &dyn BlobSource, layer: &Layer) -> Vec<Item> {
    let blob = source.open(&layer.blob).unwrap();
    let unpacked: Box<dyn Read> = match layer.compression {
        Compression::None => Box::new(blob),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(blob)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(blob).unwrap()),
    };
    let mut archive = ::tar::Archive::new(unpacked);
    archive
        .entries()
        .unwrap()
        .map(|entry| item(entry.unwrap()))
        .collect()
}

fn item(mut entry: ::tar::Entry<'_, impl Read>) -> Item {
    let header = entry.header();
    let mut item = directory(&*entry.path_bytes());
    item.kind = match header.entry_type() {
        EntryType::Regular => b'0',
        EntryType::Link => b'1',
        EntryType::Symlink => b'2',
        EntryType::Char => b'3',
        EntryType::Block => b'4',
        EntryType::Directory => b'5',
        EntryType::Fifo => b'6',
        other => panic!("{other:?}"),
    };
    item.mode = header.mode().unwrap() & 0o7777;
    (item.uid, item.gid) = (header.uid().unwrap(), header.gid().unwrap());
    item.mtime = (header.mtime().unwrap().cast_signed(), 0);
    item.link = entry.link_name_bytes().unwrap_or_default().into_owned();
    let number = |number: std::io::Result<Option<u32>>| number.ok().flatten().unwrap_or_default();
    item.device = (number(header.device_major()), number(header.device_minor()));
    for record in entry.pax_extensions().unwrap().into_iter().flatten() {
        let record = record.unwrap();
        let text = || record.value().unwrap();
        match record.key_bytes() {
            b"uid" => item.uid = text().parse().unwrap(),
            b"gid" => item.gid = text().parse().unwrap(),
            b"mtime" => item.mtime = time(text()),
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    item.xattrs
                        .push((name.to_vec(), record.value_bytes().to_vec()));
                }
            }
        }
    }
    if item.kind == b'0' {
        let mut hasher = Hasher(Sha256::new());
        let size = copy(&mut entry, &mut hasher).unwrap();
        let digits: String = hasher
            .0
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        item.summary = Some((size, ["sha256:", &digits].concat()));
    }
    item
}

/// `seconds.fraction`; nanoseconds count forward before 1970 too.
fn time(text: &str) -> (i64, u32) {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds = format!("{fraction:0<9}")[..9].parse().unwrap();
    let whole: i64 = seconds.parse().unwrap();
    match nanoseconds {
        1.. if text.starts_with('-') => (whole - 1, 1_000_000_000 - nanoseconds),
        _ => (whole, nanoseconds),
    }
}

struct Hasher(Sha256);

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
