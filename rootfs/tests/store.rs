//! The image store and the sources that feed it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use knest_rootfs::source::{self, Archive, Memory};
use knest_rootfs::{
    BlobSource, Compression, Contents, Error, Image, Platform, Store, Wishes, read_file,
};

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn image() -> Memory {
    let base = tar(&[
        ("sbin/init", b"old"),
        ("vmlinux", b"kernel"),
        ("gone", b"x"),
    ]);
    let top = tar(&[("sbin/init", b"new"), (".wh.gone", b"")]);
    let layers = [(base, Compression::Zstd), (top, Compression::Gzip)];
    Memory::from_layers(&Platform::host(), layers).unwrap()
}

fn blobs(store: &Path) -> usize {
    std::fs::read_dir(store.join("blobs/sha256"))
        .unwrap()
        .count()
}

#[test]
fn load_list_resolve_remove() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path).unwrap();
    let wishes = Wishes::default();
    let node = store
        .load(&image(), "knest.dev/node:v1", &Platform::host(), wishes)
        .unwrap();
    assert_eq!(blobs(&path), 4);
    let kernel = tar(&[("vmlinux", b"another")]);
    let kernel = [(kernel, Compression::None)];
    let kernel = Memory::from_layers(&Platform::host(), kernel).unwrap();
    store
        .load(&kernel, "knest.dev/kernel:v1", &Platform::host(), wishes)
        .unwrap();
    store
        .load(&image(), "knest.dev/node:again", &Platform::host(), wishes)
        .unwrap();
    assert_eq!(blobs(&path), 7, "equal blobs are stored once");

    let names: Vec<_> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|named| named.name)
        .collect();
    assert_eq!(
        names,
        [
            "knest.dev/kernel:v1",
            "knest.dev/node:again",
            "knest.dev/node:v1"
        ]
    );
    let source = store.resolve("knest.dev/node:v1").unwrap();
    assert_eq!(
        Image::resolve(&source, &Platform::host()).unwrap().digest(),
        node.digest()
    );
    let missing = store.resolve("knest.dev/node:v2");
    assert!(matches!(missing, Err(Error::NoImage { available, .. }) if available.len() == 3));

    assert!(store.remove("knest.dev/node:v1").unwrap());
    assert_eq!(blobs(&path), 7, "the other name still needs them");
    assert!(store.remove("knest.dev/node:again").unwrap());
    assert!(!store.remove("knest.dev/node:again").unwrap());
    assert_eq!(blobs(&path), 3);
    assert_eq!(Store::open(&path).unwrap().list().unwrap().len(), 1);
}

#[test]
fn a_name_moves_to_the_new_image() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let platform = Platform::host();
    store
        .load(&image(), "a", &platform, Wishes::default())
        .unwrap();
    let other = [(tar(&[("f", b"f")]), Compression::None)];
    let other = Memory::from_layers(&platform, other).unwrap();
    let image = store
        .load(&other, "a", &platform, Wishes::default())
        .unwrap();
    let list = store.list().unwrap();
    assert_eq!((list.len(), list[0].digest()), (1, image.digest()));
}

#[test]
fn a_bad_or_cancelled_load_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let platform = Platform::host();
    let mut bad = image();
    let layer = Image::resolve(&bad, &platform).unwrap().layers[1]
        .blob
        .clone();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut *bad.open(&layer).unwrap(), &mut bytes).unwrap();
    bytes[20] ^= 1;
    bad.tamper(layer.digest, bytes);
    let result = store.load(&bad, "a", &platform, Wishes::default());
    assert!(
        matches!(result, Err(Error::DigestMismatch { .. })),
        "{result:?}"
    );
    bad.forget(layer.digest);
    let result = store.load(&bad, "a", &platform, Wishes::default());
    assert!(
        matches!(result, Err(Error::MissingBlob { .. })),
        "{result:?}"
    );
    let stop = AtomicBool::new(true);
    let wishes = Wishes {
        cancel: Some(&stop),
        progress: None,
    };
    let result = store.load(&image(), "a", &platform, wishes);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    assert!(store.list().unwrap().is_empty());
    let leftovers = std::fs::read_dir(directory.path().join("blobs/sha256")).unwrap();
    let hidden = leftovers.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.')
    });
    assert_eq!(hidden.count(), 0);
}

#[test]
fn questions_to_an_image() {
    let (source, platform) = (image(), Platform::host());
    let image = Image::resolve(&source, &platform).unwrap();
    let contents = Contents::read(&source, &image, Wishes::default()).unwrap();
    assert!(contents.has("/sbin/init") && contents.has("vmlinux"));
    assert!(!contents.has("/gone") && !contents.has("/usr/bin/kubelet"));
    let read = |path, limit| read_file(&source, &image, path, limit, Wishes::default());
    assert_eq!(read("/sbin/init", 100).unwrap(), b"new");
    assert_eq!(read("/vmlinux", 6).unwrap(), b"kernel");
    assert!(matches!(read("/vmlinux", 5), Err(Error::TooLong { .. })));
    assert!(matches!(read("/gone", 100), Err(Error::NoSuchFile(_))));
    assert!(matches!(read("/sbin", 100), Err(Error::NoSuchFile(_))));
}

/// The same image as an OCI archive, a docker archive with links and packed layers, and a layout.
#[test]
fn every_source_gives_the_same_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let platform = Platform::host();
    let image = store
        .load(&image(), "a", &platform, Wishes::default())
        .unwrap();
    let layout = directory.path().join("store");
    let read = |digest| std::fs::read(layout.join("blobs/sha256").join(digest)).unwrap();

    let oci = directory.path().join("oci.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&oci).unwrap());
    builder.append_dir_all(".", &layout).unwrap();
    builder.finish().unwrap();

    let docker = directory.path().join("docker.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&docker).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    let list = serde_json::json!([{
        "Config": "config.json", "RepoTags": ["a:latest"], "Layers": ["0/layer.tar", "1/layer.tar"],
    }]);
    add("config.json", &read(image.config_descriptor.digest.hex()));
    add("stored/layer.tar", &read(image.layers[0].blob.digest.hex()));
    add("1/layer.tar", &read(image.layers[1].blob.digest.hex()));
    add("manifest.json", list.to_string().as_bytes());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    builder
        .append_link(&mut header, "0/layer.tar", "../stored/layer.tar")
        .unwrap();
    builder.finish().unwrap();

    let references = [
        format!("oci:{}:a", layout.display()),
        format!("oci-archive:{}", oci.display()),
        format!("docker-archive:{}:a:latest", docker.display()),
        docker.display().to_string(),
    ];
    for reference in references {
        let source = source::open(&reference).unwrap();
        let image = Image::resolve(&*source, &platform).unwrap();
        let bytes = read_file(&*source, &image, "sbin/init", 9, Wishes::default()).unwrap();
        assert_eq!(bytes, b"new", "{reference}");
    }
    let unknown = Archive::open(&docker, Some("b"));
    assert!(matches!(unknown, Err(Error::NoImage { .. })), "{unknown:?}");
    let nothing = source::open(&format!("{}/nothing", directory.path().display()));
    assert!(matches!(nothing, Err(Error::File { .. })), "{nothing:?}");
}

/// The machine's store as another user sees it: root's files, each of which may be read.
#[test]
fn whoever_may_only_read_lists_and_resolves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path).unwrap();
    let platform = Platform::host();
    let stored = store
        .load(&image(), "a", &platform, Wishes::default())
        .unwrap();
    for lock in [true, false] {
        if !lock {
            std::fs::remove_file(path.join(".lock")).unwrap();
        }
        read_only(&path, || {
            let store = Store::open(&path).unwrap();
            assert_eq!(store.list().unwrap().len(), 1);
            let found = store.resolve("a").unwrap();
            let found = Image::resolve(&found, &platform).unwrap();
            assert_eq!(found.digest(), stored.digest());
            let refused = store.load(&image(), "b", &platform, Wishes::default());
            assert!(matches!(refused, Err(Error::File { .. })), "{refused:?}");
            assert!(store.remove("a").is_err());
        });
    }
}

/// Runs on a thread that has given up the privilege to write where its user may not.
fn read_only(path: &Path, act: impl FnOnce() + Send) {
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    let files = [path.join(".lock"), path.join(".copying")];
    for file in files.iter().filter(|file| file.exists()) {
        std::fs::set_permissions(file, mode(0o444)).unwrap();
    }
    std::fs::set_permissions(path, mode(0o555)).unwrap();
    let without_privilege = || {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let mut held = capabilities(None).unwrap();
        held.effective.remove(CapabilitySet::DAC_OVERRIDE);
        set_capabilities(None, held).unwrap();
        act();
    };
    std::thread::scope(|scope| scope.spawn(without_privilege).join()).unwrap();
    std::fs::set_permissions(path, mode(0o755)).unwrap();
}
