//! Disks compared with the obvious merge, read back by the kernel and by e2fsprogs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::num::NonZero;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use knest_rootfs::source::Layout;
use knest_rootfs::{
    BlobSource, BuildOptions, Contents, Digest, Error, Image, Platform, ROOT_LABEL, Wishes, build,
};
use support::tar::{
    Dialect, Item, device, directory, fifo, file, hard_link, opaque, symlink, whiteout,
};
use support::{assert_same, build_at, debugfs, fsck, image, kernel, reference, resize};

const MIB: u64 = 1 << 20;

/// A disk is what the reference says, by every reader that this machine has.
fn check(disk: &Path, layers: &[Vec<Item>]) {
    let expected = reference::merge(layers).unwrap();
    fsck(disk);
    if let Some(found) = debugfs::listing(disk) {
        assert_same(&debugfs::without_values(&expected), &found);
    }
    if let Some(mounted) = kernel::Mounted::new(disk) {
        assert_same(&expected, &mounted.listing());
    }
}

fn build_and_check(layers: &[Vec<Item>], size: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    build_at(&image(layers), &path, size).unwrap();
    check(&path, layers);
    directory
}

/// `setfacl -m g:4:rx,m:rx`, in the kernel's exchange format.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\
    \x08\0\x05\0\x04\0\0\0\x10\0\x05\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Data with zero runs of all interesting lengths.
fn patchy() -> Vec<u8> {
    let mut data = vec![0; 400_000];
    for (start, length) in [
        (5000, 100),
        (20_000, 1),
        (70_000, 9000),
        (200_000, 4096),
        (399_999, 1),
    ] {
        data[start..start + length].fill(b'x');
    }
    data
}

fn base() -> Vec<Item> {
    let mut items = vec![
        directory("./").mode(0o755).at(1, 2),
        directory("etc").owner(1, 2),
        file("./etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
        file("/etc/absolute", "absolute"),
        file("no/parents/at/all", "implied"),
        symlink("bin", "usr/bin"),
        directory("usr"),
        directory("usr/bin"),
        file("usr/bin/sh", "#!").mode(0o755),
        file("usr/bin/su", "setuid").mode(0o4755),
        file("usr/bin/wall", "setgid").mode(0o2755).owner(0, 5),
        hard_link("usr/bin/bash", "usr/bin/sh"),
        hard_link("usr/bin/early", "usr/bin/later"),
        file("usr/bin/later", "linked before it came"),
        directory("tmp").mode(0o1777),
        directory("dev"),
        device("dev/null", b'3', 1, 3).mode(0o666),
        device("dev/loop0", b'4', 7, 0),
        device("dev/wide", b'3', 300, 70_000),
        device("dev/wide-minor", b'4', 8, 256),
        fifo("dev/initctl"),
        file("empty", ""),
        file("one", "1"),
        file("block", vec![b'b'; 4096]),
        file("block-and-one", vec![b'b'; 4097]),
        file("zeros", vec![0; 100_000]),
        file("patchy", patchy()),
        symlink("links/59", "t".repeat(59)),
        symlink("links/60", "t".repeat(60)),
        symlink("links/300", "t".repeat(300)),
        symlink("links/4095", "t".repeat(4095)),
        hard_link("links/again", "links/60"),
        file("n".repeat(255), "longest name"),
        file(
            format!("{}/{}/deep", "d".repeat(120), "e".repeat(200)),
            "pax path",
        ),
        file(format!("gnu/{}", "g".repeat(200)), "gnu path").dialect(Dialect::Gnu),
        symlink("gnu/link", "l".repeat(200)).dialect(Dialect::Gnu),
        file("gnu/owner", "big")
            .owner(4_000_000_000, 3_999_999_999)
            .dialect(Dialect::Gnu),
        file("gnu/old", "old").at(-86_400, 0).dialect(Dialect::Gnu),
        file(b"not-utf-8-\xff\xfe", "bytes"),
        file(format!("caf\u{e9}/{}", "\u{fc}".repeat(100)), "utf-8"),
        file("owner", "pax").owner(4_294_967_294, 2_097_153),
        file("times/nanoseconds", "").at(1_234_567_890, 123_456_789),
        file("times/1901", "").at(-2_147_483_648, 0),
        file("times/1969", "").at(-2, 500_000_000),
        file("times/2039", "").at(2_177_452_800, 1),
        file("times/2107", "").at(4_323_283_200, 2),
        file("times/2446", "").at(15_032_385_535, 999_999_999),
        file("xattrs/capability", "").xattr("security.capability", CAPABILITY),
        file("xattrs/binary", "")
            .xattr("user.b", *b"\0\n=\xff")
            .xattr("user.empty", *b""),
        file("xattrs/trusted", "").xattr("trusted.overlay.origin", *b"x"),
        file("xattrs/block", "")
            .xattr("user.long", vec![b'v'; 2000])
            .xattr("security.capability", CAPABILITY),
        directory("xattrs/acl")
            .xattr("system.posix_acl_access", ACL)
            .xattr("system.posix_acl_default", ACL),
        file("sparse/gnu", patchy()).dialect(Dialect::GnuSparse),
        file("sparse/0.0", patchy()).dialect(Dialect::PaxSparse00),
        file("sparse/0.1", patchy()).dialect(Dialect::PaxSparse01),
        file("sparse/1.0", patchy()).dialect(Dialect::PaxSparse10),
        file("duplicate", "first"),
        file("duplicate", "last wins"),
    ];
    let mut many = file("xattrs/many", "");
    for index in 0..30 {
        many = many.xattr(&format!("user.attribute{index}"), vec![b'z'; 60]);
    }
    items.push(many);
    // Many data runs: GNU's map then goes on in blocks of its own.
    let checkered: Vec<u8> = (0..200)
        .flat_map(|index| [u8::from(index % 2 == 0) * b'c'; 512])
        .collect();
    items.push(file("sparse/many", checkered.clone()).dialect(Dialect::GnuSparse));
    items.push(file("sparse/many-pax", checkered).dialect(Dialect::PaxSparse10));
    // More extents than an inode holds.
    let fragments: Vec<u8> = (0..400_usize)
        .flat_map(|index| [u8::from(index % 10 == 0) * b'f'; 4096])
        .collect();
    items.push(file("fragments", fragments));
    for name in ["gone", "replaced", "kept"] {
        items.push(directory(format!("lower/{name}")).mode(0o711));
        items.push(file(format!("lower/{name}/a"), name));
        items.push(file(format!("lower/{name}/b"), name));
        items.push(file(format!("lower/{name}/d"), name));
    }
    items.push(symlink("lower/points", "kept"));
    items
}

fn top() -> Vec<Item> {
    vec![
        whiteout("lower/gone"),
        // The mark comes after what it must not remove.
        file("lower/replaced/new", "stays"),
        opaque("lower/replaced"),
        directory("lower/kept").mode(0o700).owner(7, 8).at(5, 6),
        whiteout("lower/kept/b"),
        file("lower/kept/b", "whited out below, new here"),
        // And the other way round.
        file("lower/kept/d", "new here, whited out below"),
        whiteout("lower/kept/d"),
        whiteout("nothing/there"),
        file("bin/through-a-link", "lands in usr/bin"),
        hard_link("cross-layer", "usr/bin/sh"),
        file("etc/passwd/", "").mode(0o755),
        file("tmp", "a file over a directory"),
        directory("one"),
        file("one/below", "a directory over a file"),
        symlink("empty", "one"),
        file("zeros", "smaller"),
        file("usr/bin/later", "the other name keeps the old content"),
        // A directory over a symlink does not touch what the symlink points at.
        directory("lower/points"),
        opaque("lower/points"),
        whiteout("lower/points/a"),
        file("lower/points/mine", ""),
    ]
}

fn items() -> Vec<Vec<Item>> {
    let mut top = top();
    // A trailing slash makes an old-style directory; replaced here by an honest one.
    top.retain(|item| item.path != b"etc/passwd/");
    let third = vec![
        whiteout("cross-layer"),
        file("lower/kept/c", "third"),
        directory("lost+found").mode(0o711),
    ];
    vec![base(), top, third]
}

#[test]
fn an_image_of_every_rule() {
    let layers = items();
    let directory = build_and_check(&layers, 256 * MIB);
    let path = directory.path().join("disk.raw");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        1,
        "nothing else is left"
    );
}

/// The same image in a directory of another, which says so by a label: nothing else is on the disk.
#[test]
fn a_directory_of_an_image_as_the_root() {
    let below = |path: &[u8]| [b"./carried/by/", path].concat();
    let mut carried = items();
    for item in carried.iter_mut().flatten() {
        item.path = below(&item.path);
        if item.kind == b'1' {
            item.link = below(&item.link);
        }
    }
    carried[0].insert(0, file("bin/program", "of the image that carries it"));
    carried[0].push(file("carried/aside", vec![b'a'; 100_000]));
    carried[1].push(hard_link("outside", "carried/by/etc/absolute"));
    let source = image(&carried);
    let mut image = Image::resolve(&source, &Platform::host()).unwrap();
    let mut root = |name: &str| {
        let labels = &mut image.config.config.labels;
        labels.insert(ROOT_LABEL.to_owned(), name.to_owned());
        image.clone()
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let options = BuildOptions {
        required: &["usr/bin/sh"],
        ..BuildOptions::new(256 * MIB)
    };
    for name in ["/nowhere", "/carried/aside", "/.."] {
        let result = build(&source, &root(name), &path, &options);
        assert!(matches!(result, Err(Error::NoRoot(_))), "{result:?}");
        let result = Contents::read(&source, &root(name), Wishes::default());
        assert!(matches!(result, Err(Error::NoRoot(_))), "{result:?}");
    }
    let image = root("/carried/by");
    build(&source, &image, &path, &options).unwrap();
    check(&path, &items());
    // What was written for files that are not there is a hole again.
    let plain = directory.path().join("plain.raw");
    build_at(&support::image(&items()), &plain, 256 * MIB).unwrap();
    let allocated = |path| std::fs::metadata(path).unwrap().blocks() / 8;
    assert!(allocated(&path) <= allocated(&plain) + 4);
    let contents = Contents::read(&source, &image, Wishes::default()).unwrap();
    assert!(contents.has("usr/bin/sh") && !contents.has("bin/program"));
}

#[test]
fn equal_bytes_in_twenty_runs_with_any_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    let source = image(&items());
    let image = Image::resolve(&source, &Platform::host()).unwrap();
    equal_bytes(&source, &image, directory.path(), 128 * MIB);
}

fn equal_bytes(source: &dyn BlobSource, image: &Image, directory: &Path, size: u64) {
    let path = directory.join("again.raw");
    let mut first = None;
    for run in 0..20 {
        let threads = [1, 2, 8][run % 3];
        let options = BuildOptions {
            threads: NonZero::new(threads),
            ..BuildOptions::new(size)
        };
        build(source, image, &path, &options).unwrap();
        let found = content(&path);
        let expected = *first.get_or_insert(found);
        assert_eq!(found, expected, "run {run} with {threads} threads");
    }
    std::fs::remove_file(&path).unwrap();
}

/// A digest of a disk's blocks, zeros left out: most of a disk is holes.
fn content(disk: &Path) -> Digest {
    use std::io::{Read, Seek, SeekFrom};
    const BLOCK: u64 = 1 << 20;
    let mut file = std::fs::File::open(disk).unwrap();
    let length = file.metadata().unwrap().len();
    let mut digests = length.to_string();
    let mut block = Vec::new();
    let mut position = 0;
    while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(position)) {
        position = data / BLOCK * BLOCK;
        file.seek(SeekFrom::Start(position)).unwrap();
        block.clear();
        (&file).take(BLOCK).read_to_end(&mut block).unwrap();
        if block.iter().any(|&byte| byte != 0) {
            digests.push_str(&format!(" {position} {}", Digest::of(&block)));
        }
        position += BLOCK;
    }
    Digest::of(digests.as_bytes())
}

/// The image that `make bench` makes and measures, a gigabyte of Debian: by the long tier, where it
/// has been made.
#[test]
fn the_benchmark_image() {
    const SIZE: u64 = 4 << 30;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cache-dir");
    let output = std::process::Command::new(script).output().unwrap();
    let bench = Path::new(std::str::from_utf8(&output.stdout).unwrap().trim_end()).join("bench");
    let layout = bench.join("image/mixed");
    let reason = match std::env::var("KNEST_TEST").as_deref() {
        Ok("full") => (!layout.exists()).then(|| "`make bench` has not made its image".to_owned()),
        _ => Some("long; `KNEST_TEST=full make test` runs it".to_owned()),
    };
    if !support::needed("full", reason) {
        return;
    }
    let source = Layout::open(&layout, None).unwrap();
    let image = Image::resolve(&source, &Platform::host()).unwrap();
    let directory = tempfile::tempdir_in(&bench).unwrap();
    let path = directory.path().join("disk.raw");
    build(&source, &image, &path, &BuildOptions::new(SIZE)).unwrap();
    let layers: Vec<_> = image
        .layers
        .iter()
        .map(|layer| support::unpack::items(&source, layer))
        .collect();
    check(&path, &layers);
    equal_bytes(&source, &image, directory.path(), SIZE);
}

#[test]
fn twenty_thousand_names_in_one_directory() {
    let mut layer: Vec<_> = (0..20_000)
        .map(|index| file(format!("big/file-{index:06}-with-a-name"), ""))
        .collect();
    layer.extend((0..300).map(|index| directory(format!("subdirectories/{index:0200}"))));
    build_and_check(&[layer], 256 * MIB);
}

/// Enough leaves that the index needs a second level.
#[test]
fn twenty_thousand_long_names() {
    let name = |index| format!("big/{index:0200}");
    let layer: Vec<_> = (0..20_000).map(|index| file(name(index), "")).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    build_at(&image(&[layer]), &path, 256 * MIB).unwrap();
    fsck(&path);
    if let Some(mounted) = kernel::Mounted::new(&path) {
        for index in [0, 1, 777, 19_999] {
            assert!(mounted.path().join(name(index)).exists());
        }
        assert_eq!(
            std::fs::read_dir(mounted.path().join("big"))
                .unwrap()
                .count(),
            20_000
        );
    }
}

#[test]
fn a_sparse_file_of_five_gibibytes() {
    const SIZE: u64 = 5 << 30;
    // Written by hand: the reference would hold the file in memory.
    let mut head = support::tar::header(b"huge", b'S', 1024, 0o644, (0, 0), 0, b"", (0, 0), true);
    for (at, number) in [
        (386, 0),
        (398, 512),
        (410, SIZE - 512),
        (422, 512),
        (483, SIZE),
    ] {
        head[at..at + 11].copy_from_slice(format!("{number:011o}").as_bytes());
    }
    support::tar::checksum(&mut head);
    let tar = [head, vec![b'a'; 512], vec![b'z'; 512], vec![0; 1024]].concat();
    let layers = [(tar, knest_rootfs::Compression::Zstd)];
    let source = knest_rootfs::source::Memory::from_layers(&Platform::host(), layers).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    build_at(&source, &path, 64 * MIB).unwrap();
    fsck(&path);
    if let Some(mounted) = kernel::Mounted::new(&path) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::open(mounted.path().join("huge")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        let mut byte = [0];
        for (offset, expected) in [(0, b'a'), (512, 0), (SIZE - 513, 0), (SIZE - 1, b'z')] {
            file.read_exact_at(&mut byte, offset).unwrap();
            assert_eq!(byte[0], expected, "at {offset}");
        }
    }
}

/// One file over several groups, so that extents break at the copies of the superblock.
#[test]
fn a_file_across_groups() {
    let noise: Vec<u8> = (0..200_u32 << 20 >> 2)
        .flat_map(|n| (n | 1).to_le_bytes())
        .collect();
    build_and_check(&[vec![file("noise", noise)]], 1024 * MIB);
}

#[test]
fn the_kernel_can_write_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    build_at(&image(&items()), &path, 256 * MIB).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let Some(mounted) = kernel::Mounted::writable(&path) else {
        return;
    };
    let new = mounted.path().join("new");
    std::fs::create_dir(&new).unwrap();
    for index in 0..2000 {
        std::fs::write(new.join(format!("{index:0100}")), vec![1; index]).unwrap();
    }
    std::fs::remove_file(mounted.path().join("fragments")).unwrap();
    std::fs::remove_dir_all(mounted.path().join("sparse")).unwrap();
    std::fs::write(mounted.path().join("patchy"), "shorter").unwrap();
    drop(mounted);
    fsck(&path);
}

#[test]
fn resize2fs_grows_it() {
    let directory = tempfile::tempdir().unwrap();
    let layers = items();
    let path = directory.path().join("disk.raw");
    build_at(&image(&layers), &path, 200 * MIB).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    for size in [300 * MIB, 20 << 30] {
        if !resize(&path, size) {
            return;
        }
        check(&path, &layers);
    }
}

/// The size that the error names is enough, and one much smaller is not.
#[test]
fn too_small_says_what_would_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let noise = |seed: u32| -> Vec<u8> {
        (0..10_u32 << 20 >> 2)
            .flat_map(|n| (n ^ seed | 1).to_le_bytes())
            .collect()
    };
    let mut layers = vec![
        vec![file("hidden", noise(1)), file("a", noise(2))],
        vec![
            whiteout("hidden"),
            file("b", noise(3)),
            file("b2", noise(4)),
        ],
        (0..300)
            .map(|index| file(format!("small/{index}"), "tiny"))
            .collect(),
    ];
    layers[2].push(symlink("link", "t".repeat(100)));
    let source = image(&layers);
    for size in [8 * MIB, 24 * MIB] {
        let result = build_at(&source, &path, size);
        let Err(Error::TooSmall { needed, .. }) = result else {
            panic!("{result:?}")
        };
        assert!((35 * MIB..60 * MIB).contains(&needed), "{needed}");
        assert!(
            std::fs::read_dir(directory.path())
                .unwrap()
                .next()
                .is_none(),
            "nothing is left"
        );
        // Tight, so what the second layer hides must not take room.
        build_at(&source, &path, needed).unwrap();
        check(&path, &layers);
        std::fs::remove_file(&path).unwrap();
    }
    assert!(matches!(
        build_at(&source, &path, 4096),
        Err(Error::TooSmall { .. })
    ));
    assert!(matches!(
        build_at(&source, &path, 1 << 50),
        Err(Error::TooLarge { .. })
    ));
}

/// Space that only a hidden file took is a hole in the disk.
#[test]
fn hidden_files_take_no_space() {
    use std::os::unix::fs::MetadataExt;
    let noise = vec![b'x'; 30 << 20];
    let layers = [
        vec![file("hidden", noise.clone())],
        vec![whiteout("hidden")],
    ];
    let directory = build_and_check(&layers, 128 * MIB);
    let metadata = std::fs::metadata(directory.path().join("disk.raw")).unwrap();
    assert!(
        metadata.blocks() * 512 < 8 * MIB,
        "{} blocks",
        metadata.blocks()
    );
}
