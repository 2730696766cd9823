//! What takes the kernel, where it may be asked: reading a disk through a loop mount, and a file
//! system that is soon full.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use knest_rootfs::Digest;

use super::{Bytes, Found, Kind, Listing, met, needed};

/// A file system mounted somewhere; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    /// `None`, and a word about it, where mounting is not possible; the test has more to look at.
    pub fn new(disk: &Path) -> Option<Mounted> {
        let mounted = Mounted::of("ext4", disk, "loop,ro");
        met("mount", mounted.as_ref().err().cloned())
            .then_some(mounted)?
            .ok()
    }

    /// To be written to. `None` where a test can do nothing.
    pub fn writable(disk: &Path) -> Option<Mounted> {
        Mounted::needed(Mounted::of("ext4", disk, "loop,rw"))
    }

    /// An empty file system in memory. `None` where a test can do nothing.
    pub fn memory() -> Option<Mounted> {
        Mounted::needed(Mounted::of("tmpfs", Path::new("none"), "size=1g"))
    }

    fn needed(mounted: Result<Mounted, String>) -> Option<Mounted> {
        needed("mount", mounted.as_ref().err().cloned())
            .then_some(mounted)?
            .ok()
    }

    /// Makes it full after so many bytes.
    pub fn limit(&self, bytes: u64) {
        let options = format!("remount,size={bytes}");
        let mount = Command::new("mount")
            .args(["-o", &options])
            .arg(self.path())
            .status();
        assert!(mount.unwrap().success(), "{options}");
    }

    fn of(kind: &str, what: &Path, options: &str) -> Result<Mounted, String> {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new("mount")
            .args(["-t", kind, "-o", options])
            .args([what, directory.path()])
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(Mounted { directory }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("mount cannot be run: {error}")),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn listing(&self) -> Listing {
        listing(self.path())
    }
}

/// Everything below a directory.
pub fn listing(directory: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut names: BTreeMap<u64, BTreeSet<Bytes>> = BTreeMap::new();
    let mut ahead = vec![PathBuf::new()];
    while let Some(relative) = ahead.pop() {
        let path = directory.join(&relative);
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let name = relative.into_os_string().into_vec();
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path).unwrap() {
                let child = entry.unwrap().file_name();
                ahead.push(PathBuf::from(std::ffi::OsString::from_vec(name.clone())).join(child));
            }
        } else {
            names
                .entry(metadata.ino())
                .or_default()
                .insert(name.clone());
        }
        listing.insert(name, found(&path, &metadata));
    }
    for paths in names.values() {
        for path in paths {
            listing.get_mut(path).unwrap().names = paths.clone();
        }
    }
    listing
}

impl Drop for Mounted {
    /// Between fork and exec, another test's child holds whatever this program has open.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let output = Command::new("umount").arg(self.path()).output().unwrap();
            if output.status.success() || std::thread::panicking() {
                return;
            }
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("busy") && Instant::now() < deadline, "{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn found(path: &Path, metadata: &std::fs::Metadata) -> Found {
    let device = metadata.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let kind = match metadata.mode() & 0o170_000 {
        0o040_000 => Kind::Directory,
        0o100_000 => Kind::File(metadata.len(), digest(path)),
        0o120_000 => Kind::Symlink(
            std::fs::read_link(path)
                .unwrap()
                .into_os_string()
                .into_vec(),
        ),
        0o020_000 => Kind::CharDevice(major, minor),
        0o060_000 => Kind::BlockDevice(major, minor),
        _ => Kind::Fifo,
    };
    Found {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (
            metadata.mtime(),
            u32::try_from(metadata.mtime_nsec()).unwrap(),
        ),
        xattrs: xattrs(path),
        names: BTreeSet::new(),
    }
}

/// Files of gigabytes are holes nearly all through; their first bytes and size must do.
fn digest(path: &Path) -> String {
    if std::fs::metadata(path).unwrap().len() > 1 << 30 {
        return "large, not hashed".into();
    }
    Digest::of(&std::fs::read(path).unwrap()).to_string()
}

fn xattrs(path: &Path) -> BTreeMap<Bytes, Bytes> {
    // ext4's limit, more or less.
    let mut list = [0; 8192];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap();
    list[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = [0; 8192];
            let length =
                rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}
