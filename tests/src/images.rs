//! Where `make images` leaves what VMs boot, and how a test's own environment gets at it.

use std::path::PathBuf;

use fs_err::os::unix::fs::symlink;

use crate::Env;
use crate::env::program;

/// knest's cache on this machine: `KNEST_CACHE_DIR`, then below `XDG_CACHE_HOME`, then below HOME.
#[must_use]
pub fn cache() -> PathBuf {
    let directory = |name| std::env::var_os(name).map(PathBuf::from);
    directory("KNEST_CACHE_DIR")
        .or_else(|| directory("XDG_CACHE_HOME").map(|cache| cache.join("knest")))
        .or_else(|| directory("HOME").map(|home| home.join(".cache/knest")))
        .unwrap_or_else(|| "/root/.cache/knest".into())
}

/// The image store that `make images` fills: knest's own, below `XDG_DATA_HOME`.
#[must_use]
pub fn store() -> PathBuf {
    let directory = |name| std::env::var_os(name).map(PathBuf::from);
    directory("XDG_DATA_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| "/root/.local/share".into())
        .join("knest/images")
}

/// Why there is no node image or kernel to boot, or `None`.
#[must_use]
pub fn missing() -> Option<String> {
    let store = store();
    let filled = store
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some());
    (!filled).then(|| {
        format!(
            "no images in {} (`make images` builds them)",
            store.display()
        )
    })
}

/// `kubectl`: on `PATH`, or the one that was built with the images.
#[must_use]
pub fn kubectl() -> Option<PathBuf> {
    program("kubectl").or_else(|| built("kubectl"))
}

/// A program that the images' build left in knest's cache; the one used last, if several versions
/// are there. `KNEST_KUBERNETES_BINARIES` goes first, as it does when the images are built.
#[must_use]
pub fn built(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("KNEST_KUBERNETES_BINARIES")
        .map(|directory| PathBuf::from(directory).join(name))
        .filter(|path| path.is_file());
    given.or_else(|| {
        let outputs = cache().join("build").read_dir().ok()?;
        let outputs = outputs.filter_map(|entry| Some(entry.ok()?.path()));
        let having = outputs.filter(|output| output.join(name).is_file());
        // The build touches an output whenever it takes it.
        let newest = having.max_by_key(|output| {
            let data = output.metadata();
            data.and_then(|data| data.modified()).ok()
        })?;
        Some(newest.join(name))
    })
}

/// Lets a clean environment see the machine's images: the store only, so that disks are still
/// made from them in the environment's own cache.
pub fn link(env: &Env) {
    let own = env.data().join("knest");
    fs_err::create_dir_all(&own).expect("the environment's data");
    symlink(store(), own.join("images")).expect("a link to the image store");
}
