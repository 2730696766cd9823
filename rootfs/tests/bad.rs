//! Input that nobody should make: each ends in an error that says where, without panic or file.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use knest_rootfs::source::Memory;
use knest_rootfs::{
    BlobSource, BuildOptions, Compression, Digest, Error, Image, Layer, Platform, Problem, Result,
    Store, Wishes, build,
};
use support::tar::{Item, device, directory, file, hard_link, header, symlink, whiteout, write};
use support::{build_at, image, kernel};

const SIZE: u64 = 64 << 20;

/// Builds; whatever comes of it, nothing but a finished disk is left.
fn attempt(source: &Memory) -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let result = build_at(source, &directory.path().join("disk.raw"), SIZE);
    let files = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(
        files,
        usize::from(result.is_ok()),
        "files left after {result:?}"
    );
    result.map(drop)
}

fn from_tar(tar: Vec<u8>, compression: Compression) -> Memory {
    Memory::from_layers(&Platform::host(), [(tar, compression)]).unwrap()
}

fn read(source: &Memory, layer: &Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut *source.open(&layer.blob).unwrap(), &mut bytes).unwrap();
    bytes
}

fn only_layer(source: &Memory) -> Digest {
    let image = Image::resolve(source, &Platform::host()).unwrap();
    image.layers[0].blob.digest
}

/// The layer's rule that was broken, and the path that broke it.
fn problem(items: &[Item]) -> (Problem, String) {
    let image = image(&[items.to_vec()]);
    match attempt(&image) {
        Err(Error::Layer {
            layer,
            path,
            source,
        }) => {
            assert_eq!(layer, only_layer(&image), "{path}");
            (source, path)
        }
        Err(Error::Inode { path, source }) => (source, path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_that_break_a_rule() {
    let long = "n".repeat(256);
    let chain: Vec<_> = (0..2100).map(|_| "d").collect();
    type Expected = fn(&Problem) -> bool;
    let table: Vec<(Vec<Item>, Expected, &str)> = vec![
        (
            vec![file("a/../b", "")],
            |p| matches!(p, Problem::Escapes),
            "a/../b",
        ),
        (
            vec![file("../etc/passwd", "")],
            |p| matches!(p, Problem::Escapes),
            "../etc",
        ),
        (
            vec![hard_link("a", "../b")],
            |p| matches!(p, Problem::Escapes),
            "a",
        ),
        (vec![file(&long, "")], |p| matches!(p, Problem::Name), "nnn"),
        (
            vec![file(chain.join("/"), "")],
            |p| matches!(p, Problem::Name),
            "d/d",
        ),
        (
            vec![symlink("./", "a")],
            |p| matches!(p, Problem::Name),
            "./",
        ),
        (
            vec![hard_link("a", "b")],
            |p| matches!(p, Problem::LinkToNowhere(_)),
            "a",
        ),
        (
            vec![hard_link("a", "a")],
            |p| matches!(p, Problem::LinkToNowhere(_)),
            "a",
        ),
        (
            vec![directory("d"), hard_link("a", "d")],
            |p| matches!(p, Problem::LinkToDirectory(_)),
            "a",
        ),
        (
            vec![file("f", ""), file("f/below", "")],
            |p| matches!(p, Problem::Parent),
            "f/below",
        ),
        (
            vec![symlink("l", "l"), file("l/below", "")],
            |p| matches!(p, Problem::Parent),
            "l/below",
        ),
        (
            vec![symlink("s", "")],
            |p| matches!(p, Problem::SymlinkTarget(0)),
            "s",
        ),
        (
            vec![symlink("s", "t".repeat(4096))],
            |p| matches!(p, Problem::SymlinkTarget(4096)),
            "s",
        ),
        (
            vec![file("x/.wh.", "")],
            |p| matches!(p, Problem::Header(_)),
            "x/.wh.",
        ),
        (
            vec![file("x/.wh...", "")],
            |p| matches!(p, Problem::Header(_)),
            "x/.wh",
        ),
        (
            vec![file("f", "").xattr("user.big", vec![1; 5000])],
            |p| matches!(p, Problem::Xattrs(5008)),
            "f",
        ),
        (
            vec![file("f", "").xattr("system.posix_acl_access", *b"rubbish")],
            |p| matches!(p, Problem::Acl),
            "f",
        ),
        (
            vec![file("lost+found", "")],
            |p| matches!(p, Problem::LostAndFound),
            "lost+found",
        ),
        (
            vec![Item {
                kind: b'Z',
                ..file("f", "")
            }],
            |p| matches!(p, Problem::EntryType('Z')),
            "f",
        ),
    ];
    for (items, expected, place) in table {
        let (problem, path) = problem(&items);
        assert!(expected(&problem), "{place}: {problem:?}");
        assert!(path.contains(place), "{path:?} should contain {place:?}");
    }
    // More names for one file than ext4 can count.
    let mut links = vec![file("f", "")];
    links.extend((0..65_000).map(|index| hard_link(format!("d/{index}"), "f")));
    assert!(matches!(problem(&links).0, Problem::TooManyLinks));
    assert!(attempt(&image(&[vec![device("d", b'3', 0, 0)]])).is_ok());
}

#[test]
fn damaged_tar_files() {
    let good = write(&[file("a", vec![1; 3000]), file("b", "2")]);
    let with = |at: usize, bytes: &[u8]| {
        let mut tar = good.clone();
        tar[at..at + bytes.len()].copy_from_slice(bytes);
        support::tar::checksum(&mut tar[..512]);
        tar
    };
    let mut broken_sum = good.clone();
    broken_sum[0] = b'z';
    let with_records = |records: &[u8], body: &str| {
        let mut tar = header(b"x", b'x', records.len(), 0, (0, 0), 0, b"", (0, 0), false);
        tar.extend_from_slice(records);
        tar.resize(tar.len().next_multiple_of(512), 0);
        tar.extend(write(&[file("f", body)]));
        tar
    };
    let pax = |records: &[u8]| with_records(records, "");
    // Maps of sparse files: in PAX records the data runs' number is only claimed, in PAX 1.0 the
    // map itself follows it, and GNU's goes on while a flag says so.
    let runs_0 = pax(b"22 GNU.sparse.size=10\n35 GNU.sparse.numblocks=4294967296\n");
    let runs_1 = with_records(
        b"22 GNU.sparse.major=1\n26 GNU.sparse.realsize=10\n",
        "4294967296\n0\n10\n",
    );
    let mut endless = header(b"f", b'S', 0, 0, (0, 0), 0, b"", (0, 0), true);
    endless[482] = 1;
    support::tar::checksum(&mut endless);
    for _ in 0..100 {
        let mut block = [b'0'; 512];
        block[504] = 1;
        endless.extend(block);
    }
    let mut huge_extension = header(b"x", b'x', 2 << 20, 0, (0, 0), 0, b"", (0, 0), false);
    huge_extension.resize(3 << 20, b'1');
    let cases = [
        ("cut in a body", good[..2000].to_vec()),
        ("cut in a header", good[..700].to_vec()),
        ("checksum", broken_sum),
        (
            "negative size",
            with(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ),
        (
            "huge size",
            with(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        ),
        ("not a number", with(124, b"0000000x000\0")),
        ("owner beyond 32 bits", with(108, b"\x80\0\0\x01\0\0\0\0")),
        ("pax length", pax(b"99 a=b\n")),
        ("pax size", pax(b"12 size=-10\n")),
        ("pax time", pax(b"12 mtime=xx\n")),
        ("sparse without a size", pax(b"23 GNU.sparse.offset=0\n")),
        ("sparse unknown", pax(b"23 GNU.sparse.future=0\n")),
        ("2^32 data runs, claimed", runs_0),
        ("2^32 data runs, to come", runs_1),
        ("data runs without end", endless),
        ("extension of 2 MiB", huge_extension),
        ("not a tar file", vec![b'x'; 4096]),
    ];
    for (name, tar) in cases {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let source = from_tar(tar.clone(), compression);
            let result = attempt(&source);
            let digest = only_layer(&source);
            assert!(
                matches!(result, Err(Error::Layer { layer, .. }) if layer == digest),
                "{name}: {result:?}"
            );
        }
    }
    // Some writers leave the end mark out.
    for length in [good.len() - 1024, good.len() - 512] {
        assert!(attempt(&from_tar(good[..length].to_vec(), Compression::None)).is_ok());
    }
    assert!(attempt(&from_tar(Vec::new(), Compression::None)).is_ok());
}

#[test]
fn blobs_that_are_not_what_they_are_called() {
    let platform = Platform::host();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let tar = write(&[file("a", vec![1; 100_000]), file("b", "2")]);
        let mut source = from_tar(tar, compression);
        let layer = Image::resolve(&source, &platform).unwrap().layers[0].clone();
        let good = read(&source, &layer);
        let digest = layer.blob.digest;

        source.tamper(digest, good[..good.len() / 2].to_vec());
        let result = attempt(&source);
        assert!(
            matches!(result, Err(Error::SizeMismatch { .. })),
            "truncated: {result:?}"
        );

        source.tamper(digest, [&good[..], b"more"].concat());
        let result = attempt(&source);
        assert!(
            matches!(result, Err(Error::SizeMismatch { .. })),
            "longer: {result:?}"
        );

        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            source.tamper(digest, bytes);
            let result = attempt(&source);
            assert!(
                matches!(result, Err(Error::DigestMismatch { .. })),
                "{at}: {result:?}"
            );
        }

        source.forget(digest);
        let result = attempt(&source);
        assert!(
            matches!(result, Err(Error::MissingBlob { .. })),
            "missing: {result:?}"
        );
    }
}

/// The documents of a good image, to be changed.
fn documents() -> (Memory, serde_json::Value, serde_json::Value) {
    let source = from_tar(write(&[file("a", "1")]), Compression::Gzip);
    let image = Image::resolve(&source, &Platform::host()).unwrap();
    let parse = |descriptor| {
        let mut blob = source.open(descriptor).unwrap();
        serde_json::from_reader(&mut *blob).unwrap()
    };
    let (manifest, config) = (parse(&image.manifest), parse(&image.config_descriptor));
    drop(image);
    (source, manifest, config)
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn documents_that_are_wrong() {
    type Change = fn(&mut serde_json::Value);
    type Expected = fn(&Error) -> bool;
    let manifests: [(Change, Expected); 9] = [
        (
            |m| {
                let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
                m["layers"][0]["mediaType"] = encrypted.into();
            },
            |e| matches!(e, Error::MediaType { .. }),
        ),
        (
            |m| m["layers"][0]["mediaType"] = "application/octet-stream".into(),
            |e| matches!(e, Error::MediaType { .. }),
        ),
        (
            |m| m["schemaVersion"] = 1.into(),
            |e| matches!(e, Error::MediaType { .. }),
        ),
        (
            |m| m["mediaType"] = "text/plain".into(),
            |e| matches!(e, Error::MediaType { .. }),
        ),
        (
            |m| m["config"]["digest"] = "sha256:0".into(),
            |e| matches!(e, Error::Malformed { .. }),
        ),
        (
            |m| m["config"]["digest"] = format!("sha256:{}", "0".repeat(64)).into(),
            |e| matches!(e, Error::MissingBlob { .. }),
        ),
        (
            |m| m["config"]["size"] = 100_000_000.into(),
            |e| matches!(e, Error::TooLong { .. }),
        ),
        (
            |m| m["config"]["size"] = 1.into(),
            |e| matches!(e, Error::SizeMismatch { .. }),
        ),
        (
            |m| m["layers"] = serde_json::json!([]),
            |e| matches!(e, Error::Malformed { .. }),
        ),
    ];
    for (number, (change, expected)) in manifests.into_iter().enumerate() {
        let (mut source, mut manifest, _) = documents();
        change(&mut manifest);
        source.set_root(manifest.to_string().into_bytes(), MANIFEST);
        let error = attempt(&source).unwrap_err();
        assert!(expected(&error), "manifest {number}: {error:?}");
    }
    let configs: [(Change, Expected); 4] = [
        (
            |c| c["architecture"] = "vax".into(),
            |e| matches!(e, Error::NoPlatform { .. }),
        ),
        (
            |c| c["os"] = "windows".into(),
            |e| matches!(e, Error::NoPlatform { .. }),
        ),
        (
            |c| c["rootfs"]["diff_ids"][0] = format!("sha256:{}", "0".repeat(64)).into(),
            |e| matches!(e, Error::DigestMismatch { what, .. } if what.contains("diff id")),
        ),
        (
            |c| c["rootfs"]["diff_ids"] = "none".into(),
            |e| matches!(e, Error::Malformed { .. }),
        ),
    ];
    for (number, (change, expected)) in configs.into_iter().enumerate() {
        let (mut source, mut manifest, mut config) = documents();
        change(&mut config);
        let config = source.add(config.to_string().into_bytes(), "application/json");
        manifest["config"]["digest"] = config.digest.to_string().into();
        manifest["config"]["size"] = config.size.into();
        source.set_root(manifest.to_string().into_bytes(), MANIFEST);
        let error = attempt(&source).unwrap_err();
        assert!(expected(&error), "config {number}: {error:?}");
    }
    let (mut source, ..) = documents();
    source.set_root(b"not json".to_vec(), MANIFEST);
    assert!(matches!(attempt(&source), Err(Error::Malformed { .. })));
}

#[test]
fn an_index_chooses_by_platform() {
    let (mut source, manifest, _) = documents();
    let manifest = source.add(manifest.to_string().into_bytes(), MANIFEST);
    let entry = |os: &str, architecture: &str| {
        serde_json::json!({
            "mediaType": MANIFEST, "digest": manifest.digest.to_string(), "size": manifest.size,
            "platform": { "os": os, "architecture": architecture },
        })
    };
    let host = Platform::host();
    let mut index = |entries: Vec<serde_json::Value>| {
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
        source.set_root(index.to_string().into_bytes(), INDEX);
        Image::resolve(&source, &host)
    };
    let attestation = entry("unknown", "unknown");
    let vax = entry("linux", "vax");
    let image = index(vec![
        attestation.clone(),
        vax.clone(),
        entry("linux", &host.architecture),
    ]);
    assert_eq!(image.unwrap().digest(), manifest.digest);
    let result = index(vec![attestation, vax]);
    let Err(Error::NoPlatform { available, .. }) = result else {
        panic!("{result:?}")
    };
    assert_eq!(available, ["linux/vax"]);
    assert!(index(Vec::new()).is_err());
    // Indexes that point at each other end somewhere.
    let mut inner = entry("linux", &host.architecture);
    for _ in 0..10 {
        let document = serde_json::json!({ "schemaVersion": 2, "manifests": [inner] });
        let outer = source.add(document.to_string().into_bytes(), INDEX);
        inner = serde_json::json!({
            "mediaType": INDEX, "digest": outer.digest.to_string(), "size": outer.size,
        });
    }
    let document = serde_json::json!({ "schemaVersion": 2, "manifests": [inner] });
    source.set_root(document.to_string().into_bytes(), INDEX);
    assert!(matches!(
        Image::resolve(&source, &host),
        Err(Error::Malformed { .. })
    ));
}

#[test]
fn cancelling_stops_and_leaves_nothing() {
    let items: Vec<_> = (0..50)
        .map(|index| file(format!("{index}"), noise(index)))
        .collect();
    let source = image(&[items.clone(), items]);
    let image = Image::resolve(&source, &Platform::host()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let stop = AtomicBool::new(false);
    let seen = Mutex::new(Vec::new());
    let progress = |progress| {
        seen.lock().unwrap().push(progress);
        stop.store(true, Ordering::Relaxed);
    };
    let wishes = Wishes {
        cancel: Some(&stop),
        progress: Some(&progress),
    };
    let options = BuildOptions {
        wishes,
        ..BuildOptions::new(512 << 20)
    };
    let result = build(&source, &image, &path, &options);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let total: u64 = image.layers.iter().map(|layer| layer.blob.size).sum();
    for progress in seen.into_inner().unwrap() {
        assert_eq!(progress.total, total);
        assert!(progress.done < total);
    }
}

#[test]
fn what_is_required_must_be_there() {
    let items = [
        directory("usr"),
        symlink("sbin", "usr/sbin"),
        file("usr/sbin/init", ""),
    ];
    let source = image(&[items.to_vec()]);
    let image = Image::resolve(&source, &Platform::host()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let attempt = |required: &[&str]| {
        build(
            &source,
            &image,
            &path,
            &BuildOptions {
                required,
                ..BuildOptions::new(SIZE)
            },
        )
    };
    let result = attempt(&["/sbin/init", "/usr/bin/kubelet"]);
    let Err(Error::NoSuchFile(missing)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(missing, "/usr/bin/kubelet");
    assert!(!path.exists());
    attempt(&["/sbin/init", "usr"]).unwrap();
}

#[test]
fn progress_ends_at_the_total() {
    let source = image(&[vec![file("a", noise(1))], vec![file("b", noise(2))]]);
    let image = Image::resolve(&source, &Platform::host()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let last = Mutex::new(None);
    let progress = |progress| *last.lock().unwrap() = Some(progress);
    let wishes = Wishes {
        cancel: None,
        progress: Some(&progress),
    };
    let threads = std::num::NonZero::new(1);
    let options = BuildOptions {
        wishes,
        threads,
        ..BuildOptions::new(SIZE)
    };
    build(
        &source,
        &image,
        &directory.path().join("disk.raw"),
        &options,
    )
    .unwrap();
    let last = last.into_inner().unwrap().unwrap();
    assert_eq!(last.done, last.total);
}

/// Bytes that do not compress.
fn noise(seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..100_000).flat_map(|_| next()).collect()
}

#[test]
fn a_destination_that_cannot_be_written() {
    let source = image(&[vec![file("a", "")]]);
    let result = build_at(&source, Path::new("/nonexistent/directory/disk.raw"), SIZE);
    assert!(matches!(result, Err(Error::File { .. })), "{result:?}");
}

/// A bomb costs time, but neither memory nor more disk than was asked for.
#[test]
fn what_unpacks_a_thousandfold() {
    const UNPACKED: usize = 256 << 20;
    let tar = write(&[file("bomb", vec![b'x'; UNPACKED])]);
    let unpacked = UNPACKED as u64;
    let source = from_tar(tar, Compression::Gzip);
    let packed = Image::resolve(&source, &Platform::host()).unwrap().layers[0]
        .blob
        .size;
    assert!(packed < unpacked / 100, "{packed}");
    let result = attempt(&source);
    let Err(Error::TooSmall { needed, .. }) = result else {
        panic!("{result:?}")
    };
    assert!((unpacked..unpacked * 2).contains(&needed), "{needed}");
}

/// The file system fills up at every page that a disk takes: under bodies, in the second attempt,
/// under tables, directories and superblocks.
#[test]
fn a_full_disk_at_every_stage() {
    let Some(place) = kernel::Mounted::memory() else {
        return;
    };
    let path = place.path().join("disk.raw");
    let roomy = vec![
        vec![file("a", noise(1)), file("b", noise(2))],
        (0..600)
            .map(|index| directory(format!("names/{index:060}")))
            .collect(),
        vec![
            file("c", noise(3)).xattr("user.long", vec![1; 2000]),
            symlink("long", "t".repeat(100)),
        ],
    ];
    // What is hidden takes room in the first attempt only.
    let tight = vec![
        [roomy[0].clone(), vec![file("hidden", noise(4).repeat(20))]].concat(),
        [roomy[1].clone(), vec![whiteout("hidden")]].concat(),
    ];
    let (mut unwritten_bodies, mut unwritten_metadata) = (0, 0);
    for (layers, size) in [(&roomy, 16 << 20), (&tight, 10 << 20)] {
        let source = image(layers);
        place.limit(1 << 30);
        build_at(&source, &path, size).unwrap();
        let whole = std::fs::metadata(&path).unwrap();
        let pages = std::os::unix::fs::MetadataExt::blocks(&whole) / 8;
        std::fs::remove_file(&path).unwrap();
        let bodies = (1..pages - 100).step_by(40);
        for limit in bodies.chain(pages - 100..pages) {
            place.limit(limit * 4096);
            let error = build_at(&source, &path, size).unwrap_err();
            let cause = match &error {
                Error::Layer {
                    path,
                    source: Problem::Disk(cause),
                    ..
                } if !path.is_empty() => {
                    unwritten_bodies += 1;
                    cause
                }
                Error::File {
                    doing: "write",
                    source,
                    ..
                } => {
                    unwritten_metadata += 1;
                    source
                }
                _ => panic!("at {limit} of {pages} pages: {error:?}"),
            };
            assert_eq!(cause.kind(), std::io::ErrorKind::StorageFull, "{error:?}");
            let left = std::fs::read_dir(place.path()).unwrap().count();
            assert_eq!(left, 0, "after {error:?}");
        }
    }
    assert!(unwritten_bodies > 5 && unwritten_metadata > 5);
}

/// The same under the store: what is there is whole, the name means nothing, and with room again it
/// goes well.
#[test]
fn a_full_disk_under_the_store() {
    let Some(place) = kernel::Mounted::memory() else {
        return;
    };
    let directory = place.path().join("store");
    let store = Store::open(&directory).unwrap();
    let source = image(&[vec![file("a", noise(1))], vec![file("b", noise(2))]]);
    let load = || store.load(&source, "image", &Platform::host(), Wishes::default());
    let used = |path: &Path| -> u64 {
        let files = std::fs::read_dir(path).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    };
    let (blobs, partial) = (directory.join("blobs/sha256"), directory.join("partial"));
    for pages in (4..200).step_by(7) {
        place.limit(pages * 4096);
        let error = load().unwrap_err();
        let Error::File { source: cause, .. } = &error else {
            panic!("with {pages} pages: {error:?}")
        };
        assert_eq!(cause.kind(), std::io::ErrorKind::StorageFull, "{error:?}");
        assert!(store.list().unwrap().is_empty());
        for blob in std::fs::read_dir(&blobs).unwrap() {
            let path = blob.unwrap().path();
            let name = format!("sha256:{}", path.file_name().unwrap().display());
            assert_eq!(Digest::of(&std::fs::read(&path).unwrap()).to_string(), name);
        }
        if partial.exists() {
            assert_eq!(used(&partial), 0, "with {pages} pages");
        }
    }
    place.limit(1 << 30);
    load().unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
}
