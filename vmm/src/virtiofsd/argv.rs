//! What is shared and how, and the arguments that come of it.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Which virtiofsd it is; their options differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// The one in Rust, 1.x.
    Rust,
    /// QEMU's, up to 7.2: root only, never read-only, always in a sandbox.
    C,
}

/// What the guest's cache may keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cache {
    /// For a second; good when the host writes too.
    #[default]
    Auto,
    /// For ever; only when the guest alone writes.
    Always,
    /// Nothing.
    Never,
}

/// What keeps a daemon inside its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Namespaces of its own; also without privileges, where user namespaces are allowed.
    Namespace,
    /// chroot; root only, and works inside most containers.
    Chroot,
    /// Nothing. Only the Rust one.
    None,
}

/// A directory to share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The daemon's program. Finding it is the caller's business.
    pub program: PathBuf,
    /// Which one it is; [`super::flavor`] asks it.
    pub flavor: Flavor,
    /// The directory.
    pub directory: PathBuf,
    /// The socket, which Cloud Hypervisor's [`crate::device::FsConfig`] names too.
    pub socket: PathBuf,
    /// The daemon's log; appended to.
    pub log: PathBuf,
    /// The guest can't write. The Rust one refuses to by itself; the C one can't, and is refused here.
    pub read_only: bool,
    /// What the guest's cache may keep.
    pub cache: Cache,
    /// What keeps the daemon inside.
    pub sandbox: Sandbox,
    /// Pass extended attributes through.
    pub xattr: bool,
    /// Threads of its pool; 0 serves in one.
    pub threads: usize,
}

impl Share {
    /// `directory` through `program`, in namespaces, writable, with extended attributes.
    #[must_use]
    pub fn new(
        program: impl Into<PathBuf>,
        flavor: Flavor,
        directory: impl Into<PathBuf>,
        socket: impl Into<PathBuf>,
    ) -> Self {
        let socket = socket.into();
        Self {
            program: program.into(),
            flavor,
            directory: directory.into(),
            log: socket.with_extension("log"),
            socket,
            read_only: false,
            cache: Cache::Auto,
            sandbox: Sandbox::Namespace,
            xattr: true,
            threads: 0,
        }
    }
}

/// The arguments for `share` with its listening socket as descriptor `fd`.
#[must_use]
pub fn argv(share: &Share, fd: RawFd) -> Vec<OsString> {
    let with = |name: &str, value: &std::path::Path| {
        let mut arg = OsString::from(name);
        arg.push(value);
        arg
    };
    let sandbox = match share.sandbox {
        Sandbox::Namespace => "namespace",
        Sandbox::Chroot => "chroot",
        Sandbox::None => "none",
    };
    let mut args: Vec<OsString> = vec![format!("--fd={fd}").into()];
    match share.flavor {
        Flavor::Rust => {
            let cache = match share.cache {
                Cache::Auto => "auto",
                Cache::Always => "always",
                Cache::Never => "never",
            };
            args.push(with("--shared-dir=", &share.directory));
            args.push(format!("--cache={cache}").into());
            args.push(format!("--sandbox={sandbox}").into());
            args.push(format!("--thread-pool-size={}", share.threads).into());
            if share.xattr {
                args.push("--xattr".into());
            }
            if share.read_only {
                args.push("--readonly".into());
            }
        }
        Flavor::C => {
            let cache = match share.cache {
                Cache::Auto => "auto",
                Cache::Always => "always",
                Cache::Never => "none",
            };
            let xattr = if share.xattr { "xattr" } else { "no_xattr" };
            for option in [
                format!("cache={cache}"),
                format!("sandbox={sandbox}"),
                xattr.into(),
            ] {
                args.extend(["-o".into(), option.into()]);
            }
            args.extend(["-o".into(), with("source=", &share.directory)]);
            args.push(format!("--thread-pool-size={}", share.threads).into());
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flavor_has_its_own_words() {
        let mut share = Share::new("/bin/virtiofsd", Flavor::Rust, "/srv", "/run/fs.sock");
        share.read_only = true;
        assert_eq!(
            argv(&share, 7),
            [
                "--fd=7",
                "--shared-dir=/srv",
                "--cache=auto",
                "--sandbox=namespace",
                "--thread-pool-size=0",
                "--xattr",
                "--readonly"
            ]
        );
        share.flavor = Flavor::C;
        share.cache = Cache::Never;
        assert_eq!(
            argv(&share, 7),
            [
                "--fd=7",
                "-o",
                "cache=none",
                "-o",
                "sandbox=namespace",
                "-o",
                "xattr",
                "-o",
                "source=/srv",
                "--thread-pool-size=0"
            ]
        );
    }
}
