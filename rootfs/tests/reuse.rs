//! What happens to a disk after it was built: the cache, and clones for more machines.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use knest_rootfs::{
    BuildOptions, Cache, CloneKind, DiskFormat, Error, Image, Platform, Wishes, clone_disk,
};
use support::tar::file;
use support::{build_at, image, needed};

const SIZE: u64 = 64 << 20;

#[test]
fn the_second_ask_finds_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path().join("disks")).unwrap();
    let source = image(&[vec![file("a", "1")]]);
    let image = Image::resolve(&source, &Platform::host()).unwrap();
    let builds = AtomicUsize::new(0);
    let progress = |_| {
        builds.fetch_add(1, Ordering::Relaxed);
    };
    let wishes = Wishes {
        cancel: None,
        progress: Some(&progress),
    };
    let options = BuildOptions {
        wishes,
        ..BuildOptions::new(SIZE)
    };
    let disks: Vec<_> = std::thread::scope(|scope| {
        let ask = || cache.disk(&source, &image, &options).unwrap();
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    assert_eq!(
        builds.load(Ordering::Relaxed),
        1,
        "three wait for the fourth"
    );
    assert!(disks.iter().all(|disk| *disk == disks[0]));
    assert_eq!((disks[0].size, disks[0].image), (SIZE, image.digest()));
    let larger = cache
        .disk(&source, &image, &BuildOptions::new(2 * SIZE))
        .unwrap();
    assert_ne!(larger.path, disks[0].path);
    let list = cache.list().unwrap();
    assert_eq!(list.len(), 2);
    assert!(cache.remove(&list[0]).unwrap());
    assert_eq!(cache.list().unwrap().len(), 1);
}

#[test]
fn a_failed_or_killed_build_leaves_no_disk() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let bad = image(&[vec![file("../a", "1")]]);
    let image_of_bad = Image::resolve(&bad, &Platform::host()).unwrap();
    assert!(
        cache
            .disk(&bad, &image_of_bad, &BuildOptions::new(SIZE))
            .is_err()
    );
    assert!(cache.list().unwrap().is_empty());
    // What a killed builder leaves, the next build removes.
    let torn = directory.path().join(".new-disk-abc");
    std::fs::write(&torn, "torn").unwrap();
    let good = image(&[vec![file("a", "1")]]);
    let image = Image::resolve(&good, &Platform::host()).unwrap();
    cache.disk(&good, &image, &BuildOptions::new(SIZE)).unwrap();
    assert!(!torn.exists());
}

/// A clone that reads from a disk keeps it, wherever it was moved to beside its first place.
#[test]
fn a_disk_that_a_clone_reads_from_stays() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path().join("disks")).unwrap();
    let machine = directory.path().join("machine");
    std::fs::create_dir(&machine).unwrap();
    let disk = cached(&cache, "a");
    let (new, clone) = (machine.join("new"), machine.join("disk"));
    let kind = cache
        .clone_disk(&disk, &new, &[CloneKind::Overlay])
        .unwrap();
    assert_eq!(kind, CloneKind::Overlay);
    std::fs::rename(&new, &clone).unwrap();
    let listed = cache.list().unwrap().remove(0);
    let refused = cache.remove(&listed);
    let Err(Error::InUse { by, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(by.canonicalize().unwrap(), clone.canonicalize().unwrap());
    let later = SystemTime::now() + Duration::from_secs(60);
    assert!(cache.prune(later, 0).unwrap().is_empty());
    assert!(disk.exists());
    std::fs::remove_file(&clone).unwrap();
    // A copy has all of it.
    cache.clone_disk(&disk, &clone, &[CloneKind::Copy]).unwrap();
    assert!(cache.remove(&listed).unwrap());
    assert_eq!(std::fs::read_dir(&machine).unwrap().count(), 1);
}

#[test]
fn what_nobody_asked_for_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let now = SystemTime::now();
    let disks = ["a", "b", "c"].map(|name| cached(&cache, name));
    for (disk, age) in disks.iter().zip([300, 200, 100]) {
        let file = std::fs::File::open(disk).unwrap();
        file.set_modified(now - Duration::from_secs(age)).unwrap();
    }
    let listed: Vec<_> = cache.list().unwrap();
    let order: Vec<_> = listed.iter().map(|disk| disk.path.clone()).collect();
    assert_eq!(order, disks);
    let before = now - Duration::from_secs(250);
    let removed = cache.prune(before, u64::MAX).unwrap();
    assert_eq!(removed.len(), 1, "by age");
    assert_eq!(removed[0].path, disks[0]);
    // Asking for one is using it.
    cached(&cache, "b");
    let most = listed[1].allocated;
    let removed = cache.prune(before, most).unwrap();
    assert_eq!(removed.len(), 1, "by size");
    assert_eq!(removed[0].path, disks[2]);
    assert!(disks[1].exists());
}

/// The cache's disk of an image of one file with this content.
fn cached(cache: &Cache, content: &str) -> std::path::PathBuf {
    let source = image(&[vec![file("a", content)]]);
    let image = Image::resolve(&source, &Platform::host()).unwrap();
    cache
        .disk(&source, &image, &BuildOptions::new(SIZE))
        .unwrap()
        .path
}

fn base(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("base.raw");
    build_at(&image(&[vec![file("a", vec![7; 100_000])]]), &path, SIZE).unwrap();
    path
}

#[test]
fn clones() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    let clone = directory.path().join("clone");
    let kind = clone_disk(&base, &clone, &CloneKind::ALL).unwrap();
    assert_ne!(kind, CloneKind::Copy, "a header can always be written");
    assert_eq!(
        std::fs::metadata(&clone).unwrap().permissions().mode() & 0o777,
        0o600
    );

    assert_eq!(
        clone_disk(&base, &clone, &[CloneKind::Copy])
            .unwrap()
            .format(),
        DiskFormat::Raw
    );
    assert!(std::fs::read(&base).unwrap() == std::fs::read(&clone).unwrap());
    let (sparse, full) = (
        std::fs::metadata(&clone).unwrap(),
        std::fs::metadata(&base).unwrap(),
    );
    assert!(
        sparse.blocks() <= full.blocks() + 64,
        "{} blocks",
        sparse.blocks()
    );

    let missing = clone_disk(&directory.path().join("none"), &clone, &CloneKind::ALL);
    assert!(matches!(missing, Err(Error::File { .. })), "{missing:?}");
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        2,
        "nothing else is left"
    );
}

#[test]
fn qemu_accepts_the_overlay() {
    let lacking = Command::new("qemu-img").arg("--version").output().err();
    if !needed(
        "qemu",
        lacking.map(|error| format!("qemu-img cannot be run: {error}")),
    ) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    let overlay = directory.path().join("overlay.qcow2");
    let kind = clone_disk(&base, &overlay, &[CloneKind::Overlay]).unwrap();
    assert_eq!(kind.format(), DiskFormat::Qcow2);
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .arg(&overlay)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {text} {output:?}"
        );
        text
    };
    run("qemu-img", &["check"]);
    let info: serde_json::Value =
        serde_json::from_str(&run("qemu-img", &["info", "--output=json"])).unwrap();
    assert_eq!(info["virtual-size"], SIZE);
    assert_eq!(
        info["backing-filename"],
        base.canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(info["backing-filename-format"], "raw");
    // Writes go to the overlay, and all else is read from the base.
    let before = std::fs::read(&base).unwrap();
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 0x5a 40M 64k"]);
    run(
        "qemu-io",
        &[
            "-f",
            "qcow2",
            "-c",
            "read -P 0x5a 40M 64k",
            "-c",
            "read -P 0 50M 64k",
        ],
    );
    run("qemu-img", &["check"]);
    assert!(
        before == std::fs::read(&base).unwrap(),
        "the base is as it was"
    );
    let raw = directory.path().join("raw");
    let arguments = [
        "convert",
        "-O",
        "raw",
        overlay.to_str().unwrap(),
        raw.to_str().unwrap(),
    ];
    assert!(
        Command::new("qemu-img")
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(std::fs::read(&raw).unwrap()[..40 << 20], before[..40 << 20]);
}
