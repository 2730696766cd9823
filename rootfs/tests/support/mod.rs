//! What the tests of disks share: a writer of odd tar files, the obvious merge to compare with,
//! and two independent readers of the result.
//!
//! Nothing here uses the crate's own tar reader, merge or ext4 code.

#![allow(
    dead_code,
    unused_imports,
    clippy::allow_attributes,
    reason = "each test binary uses its part"
)]
#![allow(unreachable_pub, reason = "shared by including, not by a crate")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

pub mod debugfs;
pub mod kernel;
pub mod listing;
pub mod reference;
pub mod tar;
pub mod unpack;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

pub use listing::{Bytes, Found, Kind, Listing, assert_same};

use knest_rootfs::source::Memory;
use knest_rootfs::{BuildOptions, Compression, Disk, Image, Platform, Result, build};

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

/// Whether a need of a part of a test is met; says so once when it is not, and fails when it must
/// be. `make test` counts such a test as run in part.
pub fn met(need: &str, reason: Option<String>) -> bool {
    met_or("PARTLY", need, reason)
}

/// As [`met`], for a test that does nothing without: `make test` counts it as skipped.
pub fn needed(need: &str, reason: Option<String>) -> bool {
    met_or("SKIP", need, reason)
}

fn met_or(verdict: &str, need: &str, reason: Option<String>) -> bool {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let Some(reason) = reason else { return true };
    let required = std::env::var("KNEST_REQUIRE").unwrap_or_default();
    let mut required = required.split(',').map(str::trim);
    assert!(
        !required.any(|name| name == need || name == "all"),
        "{need} is required, but {reason}"
    );
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test");
    if SAID.lock().unwrap().insert(format!("{test} {need}")) {
        let line = format!("{verdict} {test}: {reason}");
        eprintln!("{line}");
        if let Some(path) = std::env::var_os("KNEST_SKIPS") {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.unwrap()
                .write_all(format!("{line}\n").as_bytes())
                .unwrap();
        }
    }
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
    if !needed(
        "fsck",
        lacks("resize2fs").filter(|_| which("resize2fs").is_none()),
    ) {
        return false;
    }
    let file = OpenOptions::new().write(true).open(disk).unwrap();
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
