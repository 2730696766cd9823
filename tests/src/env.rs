//! A clean place to run `knest` in: its own HOME and XDG directories below one temporary
//! directory, no kubeconfig of the machine's, and the binary under test.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;
use tempfile::TempDir;

/// Variables of the machine that would change what `knest` does.
const AMBIENT: [&str; 10] = [
    "DOCKER_CONFIG",
    "KNEST_CACHE_DIR",
    "KNEST_IMAGE_REPOSITORY",
    "KUBECONFIG",
    "REGISTRY_AUTH_FILE",
    "XDG_CONFIG_HOME",
    "NO_COLOR",
    "CLICOLOR_FORCE",
    "RUST_LOG",
    "RUST_BACKTRACE",
];

/// `STORE PLACE COMMAND…`: puts the image store into its place and devices that everyone may open
/// over those that root alone may, in this mount namespace only, and runs the command.
const OPEN_DEVICES: &str = r#"
    mount --bind "$1" "$2"; shift 2
    mount -t tmpfs -o mode=755 devices /mnt
    for device in /dev/net/tun /dev/kvm; do
        [ -c "$device" ] || continue
        copy=/mnt/${device##*/}
        mknod -m 666 "$copy" c $((0x$(stat -c %t "$device"))) $((0x$(stat -c %T "$device")))
        mount --bind "$copy" "$device"
    done
    exec "$@"
"#;

/// One test's home directory. Removed on drop; if the test panicked, what is small enough to be
/// read is copied first, see [`Env::keep`].
///
/// ```text
/// ROOT/home            HOME; the kubeconfig is ROOT/home/.kube/config
/// ROOT/state           XDG_STATE_HOME
/// ROOT/cache           XDG_CACHE_HOME
/// ROOT/data            XDG_DATA_HOME
/// ROOT/run             XDG_RUNTIME_DIR, 0700
/// ROOT/tmp             TMPDIR
/// ```
#[derive(Debug)]
pub struct Env {
    path: PathBuf,
    extra: Vec<(String, OsString)>,
    user: Option<u32>,
    _root: TempDir,
}

impl Env {
    /// Makes the directories. The path is short, since sockets live below it (107 bytes at most).
    #[must_use]
    pub fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("kn-")
            .tempdir()
            .expect("a temporary directory");
        let path = root.path().to_owned();
        for name in ["home", "state", "cache", "data", "run", "tmp"] {
            fs::create_dir(path.join(name)).expect("a directory of the test's");
        }
        restrict(&path.join("run"));
        Self {
            _root: root,
            path,
            extra: Vec::new(),
            user: None,
        }
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.extra.push((name.to_owned(), value.into()));
        self
    }

    /// The same for a user of this number, who need not exist; only root can do that. `knest` then
    /// runs as that user, in a mount namespace where the devices are open to everyone and the
    /// machine's image store, which may be out of the user's reach, is in its place.
    #[must_use]
    pub fn owned_by(mut self, user: u32) -> Self {
        let binary = self.path.join("knest");
        fs::copy(knest(), &binary).expect("a copy of the binary that the user can reach");
        fs::create_dir_all(self.data().join("knest/images")).expect("a place for the image store");
        let mut chown = Command::new("chown");
        chown
            .args(["-R", &format!("{user}:{user}")])
            .arg(&self.path);
        assert!(
            chown.status().is_ok_and(|status| status.success()),
            "chown to {user}"
        );
        self.user = Some(user);
        self
    }

    /// The directory that everything is below.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// Copies what is small enough to be read into the directory that `KNEST_TEST_KEEP` names, and
    /// says where. Done by itself when a test panics; earlier where it cleans up first.
    pub fn keep(&self) {
        let Some(keep) = std::env::var_os("KNEST_TEST_KEEP") else {
            return;
        };
        let to = Path::new(&keep).join(self.path.file_name().unwrap_or_default());
        if to.exists() {
            return;
        }
        match copy(&self.path, &to) {
            Ok(()) => println!("kept for reading: {}", to.display()),
            Err(error) => println!("not kept for reading: {error}"),
        }
    }

    /// What HOME is.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// What `XDG_STATE_HOME` is.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// What `XDG_CACHE_HOME` is.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// What `XDG_DATA_HOME` is.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Where `knest` merges contexts.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.home().join(".kube/config")
    }

    /// `knest` with these arguments, in this environment.
    pub fn knest<I, S>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = match self.user {
            None => self.command(knest()),
            Some(user) => self.as_user(user),
        };
        command.args(args);
        command
    }

    /// Runs `knest` with these arguments, which has to succeed; returns its standard output.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.knest(arguments).stdin(Stdio::null()).output();
        let output = output.expect("knest starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn as_user(&self, user: u32) -> Command {
        let mut command = self.command("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-eu",
                "-c",
                OPEN_DEVICES,
                "sh",
            ])
            .arg(crate::images::store())
            .arg(self.data().join("knest/images"))
            .args(["setpriv", "--clear-groups"])
            .args([format!("--reuid={user}"), format!("--regid={user}")])
            .arg(self.path.join("knest"));
        command
    }

    /// Any program in this environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for name in AMBIENT {
            command.env_remove(name);
        }
        command
            .env("HOME", self.home())
            .env("XDG_STATE_HOME", self.state())
            .env("XDG_CACHE_HOME", self.cache())
            .env("XDG_DATA_HOME", self.data())
            .env("XDG_RUNTIME_DIR", self.path.join("run"))
            .env("TMPDIR", self.path.join("tmp"))
            .envs(self.extra.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home());
        command
    }
}

impl Default for Env {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
    }
}

/// What a person reads; disks are larger, and a failed test is read, not booted again.
const WORTH_KEEPING: u64 = 16 << 20;

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() && entry.metadata()?.len() <= WORTH_KEEPING {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The binary under test: `KNEST_BIN`, then beside this test in cargo's target directory, then on
/// `PATH`. Panics when there is none.
#[must_use]
pub fn knest() -> PathBuf {
    if let Some(path) = std::env::var_os("KNEST_BIN") {
        return path.into();
    }
    let built = std::env::current_exe()
        .ok()
        .and_then(|test| Some(test.parent()?.parent()?.join("knest")))
        .filter(|path| path.is_file());
    built
        .or_else(|| program("knest"))
        .expect("knest: `cargo build` it, or name it in KNEST_BIN")
}

/// A program on `PATH`, or in the places where system programs are and a user's `PATH` is not.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/qemu", "/usr/libexec"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// The Cloud Hypervisor that `knest` would take, apart from one in its cache.
#[must_use]
pub fn cloud_hypervisor() -> Option<PathBuf> {
    std::env::var_os("KNEST_CLOUD_HYPERVISOR")
        .map(PathBuf::from)
        .or_else(|| program("cloud-hypervisor"))
}

fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, PermissionsExt::from_mode(0o700)).expect("permissions");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_machine_leaks_in() {
        let env = Env::new();
        let output = env.command("env").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let home = format!("HOME={}", env.home().display());
        assert!(text.lines().any(|line| line == home), "{text}");
        assert!(!text.contains("KUBECONFIG="), "{text}");
    }

    #[test]
    fn directories_go_with_the_environment() {
        let env = Env::new();
        let root = env.root().to_owned();
        assert!(root.join("run").is_dir());
        drop(env);
        assert!(!root.exists());
    }

    #[test]
    fn programs_are_found_outside_path_too() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program-at-all").is_none());
    }
}
