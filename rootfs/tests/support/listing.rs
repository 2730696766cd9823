//! A tree as comparable data: what a disk holds, or should hold.

use std::collections::{BTreeMap, BTreeSet};

pub type Bytes = Vec<u8>;

/// What is at one path of a finished tree, as comparable data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<Bytes, Bytes>,
    /// All paths of the same inode; empty for directories.
    pub names: BTreeSet<Bytes>,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Size and a digest of the content.
    File(u64, String),
    Symlink(Bytes),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Directory => f.write_str("directory"),
            Kind::File(size, digest) => write!(f, "file of {size} bytes, {}", &digest[..14]),
            Kind::Symlink(target) => write!(f, "symlink to {}", String::from_utf8_lossy(target)),
            Kind::CharDevice(major, minor) => write!(f, "character device {major}:{minor}"),
            Kind::BlockDevice(major, minor) => write!(f, "block device {major}:{minor}"),
            Kind::Fifo => f.write_str("fifo"),
        }
    }
}

pub type Listing = BTreeMap<Bytes, Found>;

/// Fails with the paths that differ.
pub fn assert_same(expected: &Listing, found: &Listing) {
    let paths: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differences: Vec<_> = paths
        .into_iter()
        .filter(|path| expected.get(*path) != found.get(*path))
        .map(|path| {
            let name = String::from_utf8_lossy(path);
            format!(
                "{name}:\n  expected {:?}\n  found    {:?}",
                expected.get(path),
                found.get(path)
            )
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
