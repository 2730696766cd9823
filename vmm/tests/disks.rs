//! Disks that can't be had, under the real Cloud Hypervisor: refused with their cause, and nothing left.
#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod support;

use std::path::{Path, PathBuf};

use knest_vmm::device::DiskConfig;
use knest_vmm::error::{Error, Kind};
use knest_vmm::shutdown::Ladder;
use knest_vmm::vm::{State, Vm};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use support::Bench;
use support::guest::Guest;

fn image(directory: &Path) -> PathBuf {
    let image = directory.join("disk.img");
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(4 << 20).unwrap();
    image
}

async fn start(bench: &Bench, disk: DiskConfig) -> Result<Vm, Error> {
    let mut config = bench.config(Guest::Spin);
    config.disks = vec![disk];
    let vm = Vm::start(bench.launch(), config).await;
    if vm.is_err() {
        assert!(!bench.path().join("api.sock").exists());
        assert_eq!(support::processes_of(bench.path()), Vec::<i32>::new());
    }
    vm
}

#[tokio::test]
async fn a_locked_image_is_called_so() {
    let (Some(first), Some(second)) = (Bench::new("a_locked_image"), Bench::new("a_locked_image"))
    else {
        return;
    };
    let image = image(first.path());
    let vm = start(&first, DiskConfig::raw(&image)).await.unwrap();
    let error = start(&second, DiskConfig::raw(&image)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Locked, "{error:?}");
    // Its death frees it.
    vm.kill().await.unwrap();
    let vm = start(&second, DiskConfig::raw(&image)).await.unwrap();
    vm.kill().await.unwrap();
}

#[tokio::test]
async fn what_is_no_disk_is_refused_with_its_cause() {
    let Some(bench) = Bench::new("what_is_no_disk") else {
        return;
    };
    for (path, cause) in [
        ("/nowhere.img", "No such file"),
        ("/tmp", "Is a directory"),
        ("/dev/full", ""),
    ] {
        let error = start(&bench, DiskConfig::raw(path)).await.unwrap_err();
        let Error::Api {
            call: "vm.boot",
            source,
        } = error
        else {
            panic!("{path}: {error:?}")
        };
        assert!(source.to_string().contains(cause), "{path}: {source}");
    }
}

/// A mount that its directory's removal must not find.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ended = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// In a mount namespace of the test's own, which goes with its thread and its children.
#[tokio::test]
async fn a_disk_that_can_only_be_read_is_refused_for_writing() {
    let test = "a_disk_that_can_only_be_read";
    let Some(bench) = Bench::new(test) else {
        return;
    };
    let place = bench.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let none = None::<&str>;
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| mount(Some("disk"), &place, Some("tmpfs"), MsFlags::empty(), none));
    if let Err(error) = mounted {
        return support::skip(test, &format!("no mount namespace: {error}"));
    }
    let _mounted = Mounted(&place);
    let image = image(&place);
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &place, none, flags, none).unwrap();
    let error = start(&bench, DiskConfig::raw(&image)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Io, "{error:?}");
    assert!(error.to_string().contains("vm.boot"), "{error}");
    let disk = DiskConfig::raw(&image).read_only();
    let vm = start(&bench, disk).await.unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Running);
    let outcome = vm.stop(&Ladder::forced()).await.unwrap();
    assert!(outcome.exit.is_success(), "{outcome:?}");
}
