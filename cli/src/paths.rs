//! Where knest keeps things on this machine: the only reader of HOME and the XDG variables. It is
//! made once, by a command, and handed down.
//!
//! ```text
//! state/clusters/NAME/   $XDG_STATE_HOME/knest, ~/.local/state/knest    provider `local`'s clusters
//! state/vms/NAME/                                                       single VMs
//! state/hosted.json      where this user's clusters on host clusters are
//! config/defaults.yaml   $XDG_CONFIG_HOME/knest, ~/.config/knest         what `knest config` sets
//! config/registries.yaml                                                how registries are spoken to
//! data/images/           $XDG_DATA_HOME/knest,  ~/.local/share/knest    the image store
//! cache/disks/           $KNEST_CACHE_DIR, $XDG_CACHE_HOME/knest, ~/.cache/knest
//! cache/kernels/ cache/bin/ cache/checked/      disks and kernels are read by the clusters made of them
//! ```

use crate::failure::{Failure, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// knest's directories; none need exist yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) state: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) config: PathBuf,
    /// Where other tools keep what registries are told, the first that knows one decides.
    pub(crate) credentials: Vec<PathBuf>,
}

impl Paths {
    /// From this process's environment.
    pub(crate) fn from_env() -> Result<Self> {
        Self::resolve(|name| std::env::var_os(name))
    }

    /// From any environment. Relative paths are ignored, as the XDG specification asks.
    fn resolve(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let absolute = |name: &str| get(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let place = |xdg: &str, below_home: &str| {
            let base = absolute(xdg).or_else(|| absolute("HOME").map(|h| h.join(below_home)));
            base.map(|b| b.join("knest")).ok_or_else(|| {
                Failure::host(format!("neither {xdg} nor HOME is set to an absolute path"))
                    .hint("set HOME")
            })
        };
        Ok(Self {
            state: place("XDG_STATE_HOME", ".local/state")?,
            data: place("XDG_DATA_HOME", ".local/share")?,
            config: place("XDG_CONFIG_HOME", ".config")?,
            cache: match absolute("KNEST_CACHE_DIR") {
                Some(cache) => cache,
                None => place("XDG_CACHE_HOME", ".cache")?,
            },
            credentials: credentials(absolute),
        })
    }

    /// One directory a cluster.
    pub(crate) fn clusters(&self) -> PathBuf {
        self.state.join("clusters")
    }
    /// One directory a VM of its own.
    pub(crate) fn vms(&self) -> PathBuf {
        self.state.join("vms")
    }
    /// The image store.
    pub(crate) fn images(&self) -> PathBuf {
        self.data.join("images")
    }
    /// Base disks made from images.
    pub(crate) fn disks(&self) -> PathBuf {
        self.cache.join("disks")
    }
    /// Kernels taken out of images, by digest.
    pub(crate) fn kernels(&self) -> PathBuf {
        self.cache.join("kernels")
    }
    /// Which images are known to have what their role needs.
    pub(crate) fn checked(&self) -> PathBuf {
        self.cache.join("checked")
    }
    /// How registries are spoken to; need not exist.
    pub(crate) fn registries(&self) -> PathBuf {
        self.config.join("registries.yaml")
    }
    /// Programs that `knest setup` fetched.
    pub(crate) fn programs(&self) -> PathBuf {
        self.cache.join("bin")
    }
}

/// containers' `auth.json` and Docker's `config.json`, where those tools look for them.
fn credentials(absolute: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let below = |variable: &str, rest: &str| absolute(variable).map(|path| path.join(rest));
    let containers = "containers/auth.json";
    let named = [
        absolute("REGISTRY_AUTH_FILE"),
        below("XDG_RUNTIME_DIR", containers),
        below("XDG_CONFIG_HOME", containers)
            .or_else(|| below("HOME", ".config/containers/auth.json")),
        below("DOCKER_CONFIG", "config.json").or_else(|| below("HOME", ".docker/config.json")),
    ];
    named.into_iter().flatten().collect()
}

/// Finds a program: the path that `override_variable` names if it is set, then `PATH`, then
/// `beside`. The answer is executable for somebody.
pub(crate) fn find_program(
    name: &str,
    override_variable: Option<&str>,
    beside: Option<&Path>,
) -> Option<PathBuf> {
    if let Some(path) = override_variable
        .and_then(std::env::var_os)
        .filter(|p| !p.is_empty())
    {
        return Some(PathBuf::from(path)).filter(|p| executable(p));
    }
    // Where a plain user's PATH on Debian does not look, and nft is.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<_> = std::env::split_paths(&path)
        .filter(|p| p.is_absolute())
        .collect();
    let beside = beside.map(Path::to_owned);
    places
        .into_iter()
        .chain(system)
        .chain(beside)
        .map(|p| p.join(name))
        .find(|p| executable(p))
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs_err::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(variables: &[(&str, &str)]) -> Result<Paths> {
        Paths::resolve(|name| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn xdg_first_then_home() {
        let home = paths(&[("HOME", "/h")]).unwrap();
        assert_eq!(home.clusters(), Path::new("/h/.local/state/knest/clusters"));
        assert_eq!(home.images(), Path::new("/h/.local/share/knest/images"));
        assert_eq!(home.disks(), Path::new("/h/.cache/knest/disks"));
        let xdg = paths(&[
            ("HOME", "/h"),
            ("XDG_STATE_HOME", "/s"),
            ("XDG_CACHE_HOME", "c"),
        ]);
        let xdg = xdg.unwrap();
        assert_eq!(xdg.state, Path::new("/s/knest"));
        assert_eq!(
            xdg.cache,
            Path::new("/h/.cache/knest"),
            "a relative path is ignored"
        );
        let own = paths(&[("HOME", "/h"), ("KNEST_CACHE_DIR", "/c")]).unwrap();
        assert_eq!(own.cache, Path::new("/c"));
        let files = ["/h/.config/containers/auth.json", "/h/.docker/config.json"];
        assert_eq!(own.credentials, files.map(PathBuf::from));
        assert_eq!(
            own.registries(),
            Path::new("/h/.config/knest/registries.yaml")
        );
    }

    #[test]
    fn no_home_is_an_error() {
        assert!(paths(&[]).is_err());
        assert!(paths(&[("HOME", "relative")]).is_err());
    }
}
