//! What the tests of disks share: a writer of odd tar files, the obvious merge to compare with,
//! and two independent readers of the result.
//!
//! Nothing here uses the crate's own tar reader, merge or ext4 code.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses its part"
)]
#![allow(unreachable_pub, reason = "shared by including, not by a crate")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

pub mod debugfs;
pub mod kernel;
pub mod reference;
pub mod tar;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use knest_rootfs::source::Memory;
use knest_rootfs::{BuildOptions, Compression, Disk, Image, Platform, Result, build};

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

/// An image of these layers, oldest first, each packed another way.
pub fn image(layers: &[Vec<tar::Item>]) -> Memory {
    let packing = [Compression::Gzip, Compression::Zstd, Compression::None];
    let layers = layers.iter().zip(packing.into_iter().cycle());
    let layers = layers.map(|(items, packing)| (tar::write(items), packing));
    Memory::from_layers(&Platform::host(), layers).unwrap()
}

pub fn build_at(source: &Memory, path: &Path, size: u64) -> Result<Disk> {
    let image = Image::resolve(source, &Platform::host())?;
    build(source, &image, path, &BuildOptions::new(size))
}

/// Whether a need of a test is met; says so when it is not, and fails when it must be.
pub fn met(need: &str, reason: Option<String>) -> bool {
    let Some(reason) = reason else { return true };
    let required = std::env::var("KNEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == need),
        "{need} is required, but {reason}"
    );
    eprintln!(
        "SKIP {}: {reason}",
        std::thread::current().name().unwrap_or("test")
    );
    false
}

fn lacks(program: &str) -> Option<String> {
    let error = Command::new(program).arg("-V").output().err()?;
    Some(format!("{program} cannot be run: {error}"))
}

/// e2fsck finds nothing to mend. False when there is no e2fsck.
pub fn fsck(disk: &Path) -> bool {
    if !met("fsck", lacks("e2fsck")) {
        return false;
    }
    let output = Command::new("e2fsck")
        .args(["-f", "-n"])
        .arg(disk)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "e2fsck: {}\n{text}", output.status);
    true
}

pub fn resize(disk: &Path, size: u64) -> bool {
    if !met(
        "fsck",
        lacks("resize2fs").filter(|_| which("resize2fs").is_none()),
    ) {
        return false;
    }
    let file = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
    file.set_len(size).unwrap();
    let output = Command::new("resize2fs").arg(disk).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    true
}

fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|part| part.join(program))
        .find(|path| path.exists())
}
