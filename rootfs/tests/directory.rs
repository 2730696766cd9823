//! Disks of plain directories, by the library and by the program that images carry, compared with
//! the directory itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::ffi::OsStr;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use knest_rootfs::source::PlainDirectory;
use knest_rootfs::{
    BlobSource, BuildOptions, Error, Platform, Problem, Store, Wishes, build, build_from_directory,
};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat,
    utimensat,
};
use support::{Found, Kind, Listing, assert_same, debugfs, fsck, kernel, needed};

const SIZE: u64 = 128 << 20;
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\
    \x08\0\x05\0\x04\0\0\0\x10\0\x05\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";

/// Everything that a directory can have in it and this user may make.
fn fill(root: &Path) {
    let write = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("etc/hostname", b"node\n");
    write("empty", b"");
    write("zeros", &[0; 100_000]);
    write("usr/bin/tool", &vec![7; 5_000_000]);
    write("a/.wh.not-a-whiteout", b"a name like any other");
    write("a/.wh..wh..opq", b"");
    std::fs::hard_link(root.join("usr/bin/tool"), root.join("a/tool")).unwrap();
    std::fs::hard_link(root.join("usr/bin/tool"), root.join("zz-tool")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("t".repeat(300), root.join("long")).unwrap();
    std::fs::hard_link(root.join("long"), root.join("long-again")).unwrap();
    std::fs::write(root.join(OsStr::from_bytes(b"not-utf-8-\xff")), "bytes").unwrap();
    std::fs::write(root.join("n".repeat(255)), "longest").unwrap();
    for index in 0..3000 {
        write(&format!("many/{index:05}"), format!("{index}").as_bytes());
    }
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 30).unwrap();
    sparse.write_all_at(b"middle", 1 << 30).unwrap();
    sparse.write_all_at(&[9; 70_000], (2 << 30) - 5).unwrap();
    let mode = |path: &str, mode| {
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("usr/bin/tool", 0o4755);
    mode("usr", 0o1777);
    let fifo = FileType::Fifo;
    mknodat(CWD, root.join("fifo"), fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    if rustix::process::geteuid().is_root() {
        for (name, kind, device) in [
            ("null", FileType::CharacterDevice, makedev(1, 3)),
            ("wide", FileType::BlockDevice, makedev(300, 70_000)),
        ] {
            mknodat(
                CWD,
                root.join(name),
                kind,
                Mode::from_raw_mode(0o660),
                device,
            )
            .unwrap();
        }
        std::os::unix::fs::chown(root.join("empty"), Some(4_000_000_000), Some(7)).unwrap();
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let set = |path, name, value: &[u8]| {
            lsetxattr(root.join(path), name, value, XattrFlags::empty()).unwrap();
        };
        set("etc/hostname", "security.capability", &capability);
        set("a", "system.posix_acl_default", ACL);
        set("etc", "system.posix_acl_access", ACL);
        set("etc/hostname", "user.long", &[b'v'; 2000]);
        set("long", "trusted.of-a-symlink", b"x");
    }
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    for (path, moment) in [
        ("etc/hostname", time(-2, 500_000_000)),
        ("zeros", time(4_323_283_200, 123_456_789)),
        ("bin", time(5, 6)),
        ("etc", time(1_700_000_000, 1)),
    ] {
        let times = Timestamps {
            last_access: moment,
            last_modification: moment,
        };
        utimensat(CWD, root.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// What the disk of a directory has to show.
fn expected(root: &Path) -> Listing {
    let mut listing = kernel::listing(root);
    listing.remove(&b"socket"[..]);
    let found = Found {
        kind: Kind::Directory,
        mode: 0o700,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        xattrs: Default::default(),
        names: Default::default(),
    };
    listing.entry(b"lost+found".to_vec()).or_insert(found);
    for found in listing.values_mut() {
        found.xattrs.remove(&b"security.selinux"[..]);
    }
    listing
}

fn check(disk: &Path, root: &Path) {
    let expected = expected(root);
    fsck(disk);
    if let Some(found) = debugfs::listing(disk) {
        assert_same(&debugfs::without_values(&expected), &found);
    }
    if let Some(mounted) = kernel::Mounted::new(disk) {
        assert_same(&expected, &mounted.listing());
        let Ok(file) = std::fs::File::open(mounted.path().join("sparse")) else {
            return;
        };
        let mut bytes = [0; 6];
        file.read_exact_at(&mut bytes, 1 << 30).unwrap();
        assert_eq!(&bytes, b"middle");
    }
}

fn program(arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_knest-container-rootfs"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_directory_becomes_the_same_disk_with_any_number_of_threads() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("rootfs");
    fill(&root);
    let disk = work.path().join("disk.raw");
    let mut first = None;
    for threads in [1, 2, 8] {
        let options = BuildOptions {
            threads: NonZero::new(threads),
            ..BuildOptions::new(SIZE)
        };
        build_from_directory(&root, &disk, &options).unwrap();
        let bytes = std::fs::read(&disk).unwrap();
        let same = first.get_or_insert_with(|| bytes.clone()) == &bytes;
        assert!(same, "{threads} threads give other bytes");
    }
    check(&disk, &root);
}

/// Through a layer and the store: the same names, attributes and contents.
#[test]
fn a_directory_becomes_an_image() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("rootfs");
    fill(&root);
    let platform = Platform::host();
    let pack = || PlainDirectory::pack(&root, work.path(), &platform, Wishes::default());
    let refused = pack().unwrap_err();
    let Error::Inode { path, source } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(path, "a/.wh..wh..opq");
    assert!(matches!(source, Problem::Unpackable(_)), "{source:?}");
    // In a layer the sparse file is as long as it seems.
    for name in ["a/.wh.not-a-whiteout", "a/.wh..wh..opq", "sparse"] {
        std::fs::remove_file(root.join(name)).unwrap();
    }
    let (packed, again) = (pack().unwrap(), pack().unwrap());
    assert_eq!(packed.root(), again.root());
    let files = std::fs::read_dir(work.path()).unwrap().count();
    assert_eq!(files, 1, "what was packed has no name");
    let store = Store::open(work.path().join("store")).unwrap();
    let image = store
        .load(&packed, "plain", &platform, Wishes::default())
        .unwrap();
    let stored = store.resolve("plain").unwrap();
    let disk = work.path().join("disk.raw");
    build(&stored, &image, &disk, &BuildOptions::new(SIZE)).unwrap();
    check(&disk, &root);
}

#[test]
fn the_program_keeps_its_contract() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("rootfs");
    fill(&root);
    let disk = work.path().join("volume/rootfs.raw");
    std::fs::create_dir(disk.parent().unwrap()).unwrap();
    let size = SIZE.to_string();
    let from = OsStr::new("--from");
    let output = program(&[from, root.as_ref(), disk.as_ref(), size.as_ref()]);
    assert!(output.status.success(), "{output:?}");
    let metadata = std::fs::metadata(&disk).unwrap();
    assert_eq!(metadata.len(), SIZE);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o644);
    check(&disk, &root);
    // Again, as a restarted container does; and too small.
    let output = program(&[from, root.as_ref(), disk.as_ref(), "8388608".as_ref()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("bytes would do"), "{text}");
    assert_eq!(
        std::fs::metadata(&disk).unwrap().len(),
        SIZE,
        "the old one stays"
    );
    let files = std::fs::read_dir(disk.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "nothing else is left");
    for arguments in [
        &[][..],
        &[disk.as_ref()],
        &[disk.as_ref(), OsStr::new("8Gi")],
    ] {
        let output = program(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    let missing = [from, "/nonexistent".as_ref(), disk.as_ref(), size.as_ref()];
    let text = String::from_utf8(program(&missing).stderr).unwrap();
    assert!(text.contains("/nonexistent"), "{text}");
}

/// A block device that had something else on it.
#[test]
fn a_block_device_is_written_in_place() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("rootfs");
    fill(&root);
    let backing = work.path().join("device");
    let rubbish: Vec<u8> = (0..SIZE / 8).flat_map(u64::to_le_bytes).collect();
    std::fs::write(&backing, rubbish).unwrap();
    let output = Command::new("losetup")
        .args(["--find", "--show"])
        .arg(&backing)
        .output();
    let reason = match &output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("losetup cannot be run: {error}")),
    };
    if !needed("mount", reason) {
        return;
    }
    let device = String::from_utf8(output.unwrap().stdout).unwrap();
    let device = Path::new(device.trim_end());
    let built = build_from_directory(&root, device, &BuildOptions::new(SIZE));
    let large = build_from_directory(&root, device, &BuildOptions::new(2 * SIZE));
    let detached = Command::new("losetup").arg("-d").arg(device).status();
    assert!(detached.unwrap().success());
    built.unwrap();
    let Err(Error::File { source, .. }) = large else {
        panic!("{large:?}")
    };
    assert!(source.to_string().contains("134217728 bytes"), "{source}");
    check(&backing, &root);
}

#[test]
fn what_cannot_be_read_is_named() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk.raw");
    let file = work.path().join("file");
    std::fs::write(&file, "").unwrap();
    for root in [work.path().join("none"), file] {
        let result = build_from_directory(&root, &disk, &BuildOptions::new(SIZE));
        let Err(Error::File { path, .. }) = result else {
            panic!("{result:?}")
        };
        assert!(path.starts_with(&root));
        assert!(!disk.exists());
    }
}
