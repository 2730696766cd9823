//! Where `make images` leaves what VMs boot, and how a test's own environment gets at it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
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

/// The Kubernetes versions that there are images of, by the table in `docs/versions.md`; the newest,
/// which is the default, comes first.
#[must_use]
pub fn versions() -> Vec<&'static str> {
    let table = include_str!("../../docs/versions.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter(|row| row.starts_with("v1."))
        .filter_map(|row| row.split_whitespace().next())
        .collect()
}

/// Does what `make images KUBERNETES_VERSION=…` does, into the environment's own store: the machine's
/// is its user's. What is built comes from knest's cache, or stays there.
pub fn make(env: &Env, version: &str) {
    let status = Command::new(script("build.sh"))
        .env("KNEST", crate::env::knest())
        .env("KNEST_CACHE_DIR", cache())
        .env("KNEST_KUBERNETES_VERSION", version)
        .env("XDG_DATA_HOME", env.data())
        .env_remove("KNEST_KUBERNETES_BINARIES")
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "images of {version}"
    );
}

/// One of the scripts that build images.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../images")
        .join(name)
}

/// Packs a root file system into an OCI archive of that name, which is put beside it.
#[must_use]
pub fn pack(root: &Path, name: &str) -> PathBuf {
    let (layer, archive) = (root.with_extension("layer"), root.with_extension("tar"));
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-cf"]).arg(&layer);
    let status = tar.arg("-C").arg(root).arg(".").status();
    assert!(status.is_ok_and(|status| status.success()), "tar");
    let mut oci = Command::new(script("oci.sh"));
    let status = oci.arg(&archive).arg(name).arg(&layer).status();
    assert!(status.is_ok_and(|status| status.success()), "{name}");
    archive
}

/// An archive, below `directory`, of an image that has busybox and `init`, its first program, and
/// nothing else.
#[must_use]
pub fn shell(directory: &Path, name: &str, init: &str) -> PathBuf {
    let root = directory.join("image");
    let busybox = program("busybox").expect("busybox, which the lab needs too");
    for name in ["bin", "dev", "etc", "proc", "sys", "mnt"] {
        fs::create_dir_all(root.join(name)).expect("a directory");
    }
    fs::copy(busybox, root.join("bin/busybox")).expect("busybox");
    for name in [
        "sh", "mount", "cat", "chmod", "echo", "ls", "sleep", "sync", "tty", "setsid", "poweroff",
    ] {
        symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
    let path = root.join("init");
    fs::write(&path, init).expect("a script");
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("permissions");
    pack(&root, name)
}

/// Loads the machine's kernel into the environment's own store; the machine's is only read.
pub fn load_kernel(env: &Env) {
    let kernel = format!("oci:{}:knest.dev/kernel:latest", store().display());
    env.succeed(&["image", "load", &kernel]);
}

/// Lets a clean environment see the machine's images: the store only, so that disks are still
/// made from them in the environment's own cache.
pub fn link(env: &Env) {
    let own = env.data().join("knest");
    fs::create_dir_all(&own).expect("the environment's data");
    symlink(store(), own.join("images")).expect("a link to the image store");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_versions_is_read() {
        let versions = versions();
        assert!(versions.len() >= 3, "{versions:?}");
        assert!(versions.is_sorted_by(|a, b| a > b), "{versions:?}");
    }
}
