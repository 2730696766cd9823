//! Disks of layers made up from the input, against the obvious merge: read back by somebody else's
//! ext4 reader, checksums and all. What does not fit must fit the size that the error names.
#![no_main]
#![allow(dead_code, reason = "shared with the crate's tests")]

#[path = "../../../rootfs/tests/support/listing.rs"]
mod listing;
#[path = "../../../rootfs/tests/support/reference.rs"]
mod reference;
#[path = "../../../rootfs/tests/support/tar.rs"]
mod tar;

use std::path::Path;

use self::listing::{Bytes, Found, Kind, Listing};
use self::tar::{Dialect, Item};
use ext4_view::{Ext4, FileType, Metadata};
use knest_rootfs::source::Memory;
use knest_rootfs::{BuildOptions, Compression, Digest, Error, Image, Platform, build};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DIRECTORY: tempfile::TempDir = tempfile::tempdir_in("/dev/shm").expect("a directory");
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok((size, layers)) = wish(&mut input) else {
        return;
    };
    let platform = Platform::host();
    let packed = layers
        .iter()
        .map(|items| (tar::write(items), Compression::None));
    let source = Memory::from_layers(&platform, packed).expect("packed");
    let image = Image::resolve(&source, &platform).expect("an image");
    DIRECTORY.with(|directory| {
        let disk = directory.path().join("disk.raw");
        let attempt = |size| build(&source, &image, &disk, &BuildOptions::new(size));
        let Some(expected) = reference::merge(&layers) else {
            assert!(attempt(size).is_err(), "the reference refuses it");
            return;
        };
        match attempt(size) {
            Ok(_) => {}
            Err(Error::TooSmall { needed, .. }) => {
                assert!(needed > size);
                attempt(needed).expect("the size that would do");
            }
            Err(error) => panic!("{error:?}"),
        }
        compare(&disk, &expected);
    });
});

/// A disk's size, and layers for it.
fn wish(input: &mut Unstructured<'_>) -> Result<(u64, Vec<Vec<Item>>)> {
    let size = (8 << 20) + input.int_in_range(0..=8192)? * 4096;
    let mut layers = Vec::new();
    for _ in 0..input.int_in_range(1..=3)? {
        let mut layer = Vec::new();
        for _ in 0..input.int_in_range(0..=20)? {
            items(input, &mut layer)?;
        }
        layers.push(layer);
    }
    Ok((size, layers))
}

fn path(input: &mut Unstructured<'_>) -> Result<String> {
    let mut path = Vec::new();
    for _ in 0..input.int_in_range(1..=3)? {
        path.push(*input.choose(&["a", "b", "c", "d"])?);
    }
    Ok(path.join("/"))
}

fn items(input: &mut Unstructured<'_>, layer: &mut Vec<Item>) -> Result<()> {
    let path = path(input)?;
    let item = match input.int_in_range(0..=11)? {
        0..=3 => {
            let mut data = Vec::new();
            for _ in 0..input.int_in_range(0..=12)? {
                let byte = *input.choose(&[0, 0, 1])?;
                let length = input.int_in_range(0..=9)? * 4096 + input.int_in_range(0..=2)?;
                data.resize(data.len() + length, byte);
            }
            let dialects = [Dialect::Pax, Dialect::GnuSparse, Dialect::PaxSparse10];
            tar::file(path, data).dialect(*input.choose(&dialects)?)
        }
        // More extents than an inode holds.
        4 => {
            let runs = input.int_in_range(0..=400)?;
            let data = (0..runs * 10).flat_map(|block| [u8::from(block % 10 == 0); 4096]);
            tar::file(path, data.collect::<Vec<_>>()).dialect(Dialect::GnuSparse)
        }
        // More names than a block holds.
        5 => {
            let length = input.int_in_range(4..=250)?;
            for name in 0..input.int_in_range(0..=300)? {
                layer.push(tar::fifo(format!("{path}/{name:0length$}")));
            }
            return Ok(());
        }
        6 => {
            let xattr = vec![b'v'; input.int_in_range(0..=3000)?];
            tar::directory(path).xattr("user.a", xattr)
        }
        7 => tar::symlink(path, "t".repeat(input.int_in_range(1..=200)?)),
        8 => tar::hard_link(path, self::path(input)?),
        9 => tar::whiteout(&path),
        10 => tar::opaque(&path),
        _ => tar::device(path, b'3', input.arbitrary::<u8>()?.into(), 1),
    };
    // The reader knows no times whose lower half is negative.
    let seconds = input.int_in_range(0..=3)? << 32 | input.int_in_range(0..=i32::MAX.into())?;
    let mode = input.int_in_range(0..=0o7777)?;
    let nanoseconds = input.int_in_range(0..=999_999_999)?;
    // GNU's own headers hold whole seconds.
    let whole = item.dialect == Dialect::GnuSparse;
    layer.push(
        item.mode(mode)
            .at(seconds, if whole { 0 } else { nanoseconds }),
    );
    Ok(())
}

/// Fails at the first path that is not as expected. Directories are read as a whole, for a reader
/// that is asked for a path looks through all of them above it.
fn compare(disk: &Path, expected: &Listing) {
    let disk = Ext4::load_from_path(disk).expect("a file system");
    let mut seen = 1;
    let mut ahead = vec![Bytes::new()];
    check(&disk, b"", &disk.metadata("/").expect("metadata"), expected);
    while let Some(directory) = ahead.pop() {
        for entry in disk.read_dir(&*full(&directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name();
            let name: &[u8] = name.as_ref();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
            let path = [&*directory, slash, name].concat();
            let metadata = entry.metadata().expect("metadata");
            check(&disk, &path, &metadata, expected);
            if metadata.is_dir() {
                ahead.push(path);
            }
            seen += 1;
        }
    }
    assert_eq!(seen, expected.len(), "a name is missing");
}

fn full(path: &[u8]) -> Bytes {
    [b"/", path].concat()
}

fn check(disk: &Ext4, path: &[u8], metadata: &Metadata, expected: &Listing) {
    let expected = expected.get(path);
    let expected = expected.unwrap_or_else(|| panic!("{} is not expected", path.escape_ascii()));
    let kind = match metadata.file_type() {
        FileType::Directory => Kind::Directory,
        FileType::Regular => {
            let content = disk.read(&*full(path)).expect("content");
            Kind::File(content.len() as u64, Digest::of(&content).to_string())
        }
        FileType::Symlink => {
            let target = disk.read_link(&*full(path)).expect("a target");
            Kind::Symlink(AsRef::<[u8]>::as_ref(&target).to_vec())
        }
        // Numbers are not shown.
        FileType::CharacterDevice => expected.kind.clone(),
        FileType::Fifo => Kind::Fifo,
        other => panic!("{other:?}"),
    };
    let time = metadata.modified();
    let found = Found {
        kind,
        mode: metadata.mode().into(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (time.seconds(), time.nanoseconds()),
        xattrs: expected.xattrs.clone(),
        names: expected.names.clone(),
    };
    assert_eq!(&found, expected, "{}", path.escape_ascii());
}
