//! What hollow nodes are made of: the hollow kubelet and the node image of the same Kubernetes, as
//! the disk that knest itself makes of it. Both are this machine's, and neither is written to.

use std::path::{Path, PathBuf};

use fs_err as fs;
use knest_rootfs::{BuildOptions, Cache, Image, Platform, Store};

use crate::images;

/// The programs that they are started with.
pub(crate) const PROGRAMS: [&str; 5] = ["bash", "ip", "nsenter", "setpriv", "unshare"];

/// What knest gives a node unless it is told otherwise, so that the disk may be there already.
const SIZE: u64 = 8 << 30;

/// Why there can be no hollow node here, or `None`.
pub(crate) fn missing() -> Option<String> {
    let Some(kubelet) = kubelet() else {
        let hint = "`images/build.sh hollow` builds it";
        return Some(format!("hollow-kubelet is not built ({hint})"));
    };
    let image = image(&kubelet);
    if let Err(error) = Store::open(images::store()).and_then(|store| store.resolve(&image)) {
        return Some(format!("{image}: {error} (`make images` builds it)"));
    }
    let devices = "/dev/loop-control";
    let opened = fs::File::open(devices);
    opened.err().map(|error| error.to_string())
}

/// The hollow kubelet.
pub(super) fn kubelet() -> Option<PathBuf> {
    images::built("hollow-kubelet")
}

/// The node image's disk; made now if it was not before, which takes seconds.
pub(super) fn disk() -> PathBuf {
    let image = image(&kubelet().expect("the hollow kubelet"));
    let made = || {
        let source = Store::open(images::store())?.resolve(&image)?;
        let found = Image::resolve(&source, &Platform::host())?;
        let cache = Cache::open(images::cache().join("disks"))?;
        cache.disk(&source, &found, &BuildOptions::new(SIZE))
    };
    made()
        .unwrap_or_else(|error: knest_rootfs::Error| panic!("{image}: {error}"))
        .path
}

/// The node image of the kubelet's version.
fn image(kubelet: &Path) -> String {
    let version = fs::read_to_string(kubelet.with_extension("version")).unwrap_or_default();
    let repository = std::env::var("KNEST_IMAGE_REPOSITORY");
    let repository = repository.unwrap_or_else(|_| "knest.dev".to_owned());
    format!("{repository}/node:{}", version.trim())
}
