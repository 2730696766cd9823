//! What a run of `knest` left on the machine. Looks at the kernel's own tables, not at knest's
//! records: a record that forgets something would hide it.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;

use crate::wait;

/// The machine before the run, as far as `knest` could change it.
#[derive(Debug)]
pub struct Snapshot {
    directories: Vec<PathBuf>,
    before: Findings,
}

/// What there is, or what has come.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Findings {
    /// `PID program arguments` of processes that have to do with the directories.
    pub processes: BTreeSet<String>,
    /// Mounted network namespaces, and those that a process of `processes` is in.
    pub namespaces: BTreeSet<String>,
    /// TAP and bridge devices of this network namespace.
    pub devices: BTreeSet<String>,
    /// Files and directories below the directories.
    pub files: BTreeSet<PathBuf>,
    /// Mount points of this mount namespace.
    pub mounts: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at the machine. Processes count when their arguments, environment, working directory
    /// or open files name one of `directories`; files when they are below one.
    #[must_use]
    pub fn take(directories: &[&Path]) -> Self {
        let directories: Vec<PathBuf> = directories.iter().map(|&path| path.to_owned()).collect();
        let before = look(&directories);
        Self {
            directories,
            before,
        }
    }

    /// What has come since.
    #[must_use]
    pub fn since(&self) -> Findings {
        let now = look(&self.directories);
        Findings {
            processes: &now.processes - &self.before.processes,
            namespaces: &now.namespaces - &self.before.namespaces,
            devices: &now.devices - &self.before.devices,
            files: &now.files - &self.before.files,
            mounts: &now.mounts - &self.before.mounts,
        }
    }

    /// Panics unless all is as before within `limit`, `allowed` files (as below a directory of
    /// the snapshot's, by prefix) apart. A process that was killed takes a moment to go.
    pub fn assert_nothing_left(&self, limit: Duration, allowed: &[&Path]) {
        wait::until(
            "nothing left behind",
            limit,
            Duration::from_millis(200),
            || {
                let mut found = self.since();
                found
                    .files
                    .retain(|file| !allowed.iter().any(|prefix| file.starts_with(prefix)));
                if found == Findings::default() {
                    Ok(())
                } else {
                    Err(found)
                }
            },
        );
    }
}

fn look(directories: &[PathBuf]) -> Findings {
    let mut found = Findings::default();
    let own = std::process::id().to_string();
    let here = fs::read_link("/proc/self/ns/net").ok();
    for process in entries(Path::new("/proc")) {
        let pid = name(&process);
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        if !directories
            .iter()
            .any(|directory| concerns(&process, directory))
        {
            continue;
        }
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        found.processes.insert(format!("{pid} {arguments}"));
        let namespace = fs::read_link(process.join("ns/net")).ok();
        if let Some(namespace) = namespace.filter(|namespace| Some(namespace) != here.as_ref()) {
            found.namespaces.insert(namespace.display().to_string());
        }
    }
    for line in fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
    {
        // ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS … - TYPE SOURCE …
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = line
            .split_once(" - ")
            .and_then(|(_, rest)| rest.split(' ').next());
        if let Some(point) = fields.get(4) {
            if kind == Some("nsfs") {
                found.namespaces.insert((*point).to_owned());
            } else {
                found.mounts.insert((*point).to_owned());
            }
        }
    }
    for device in entries(Path::new("/sys/class/net")) {
        if device.join("tun_flags").exists() || device.join("bridge").exists() {
            found.devices.insert(name(&device));
        }
    }
    for directory in directories {
        walk(directory, &mut found.files);
    }
    found
}

/// Whether a process has to do with a directory. What can't be read (another user's process, one
/// that has just ended) does not count.
fn concerns(process: &Path, directory: &Path) -> bool {
    let needle = directory.as_os_str().as_bytes();
    let text = |file| fs::read(process.join(file)).unwrap_or_default();
    let link = |path: &Path| fs::read_link(path).is_ok_and(|target| target.starts_with(directory));
    contains(&text("cmdline"), needle)
        || contains(&text("environ"), needle)
        || link(&process.join("cwd"))
        || entries(&process.join("fd")).iter().any(|file| link(file))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn walk(directory: &Path, into: &mut BTreeSet<PathBuf>) {
    for path in entries(directory) {
        if path.is_dir() && !path.is_symlink() {
            walk(&path, into);
        }
        into.insert(path);
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(directory) else {
        return Vec::new();
    };
    list.filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Env;

    #[test]
    fn a_file_and_a_process_are_seen_and_their_end_too() {
        let env = Env::new();
        let snapshot = Snapshot::take(&[env.root()]);
        assert_eq!(snapshot.since(), Findings::default());

        let file = env.home().join("left");
        fs::write(&file, "").unwrap();
        let mut child = env.command("sleep").arg("60").spawn().unwrap();
        let found = snapshot.since();
        assert_eq!(found.files, BTreeSet::from([file.clone()]));
        assert_eq!(found.processes.len(), 1, "{found:?}");

        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(file).unwrap();
        snapshot.assert_nothing_left(Duration::from_secs(5), &[]);
    }

    #[test]
    #[should_panic(expected = "nothing left behind")]
    fn a_leftover_is_a_panic() {
        let env = Env::new();
        let snapshot = Snapshot::take(&[env.root()]);
        fs::write(env.home().join("left"), "").unwrap();
        snapshot.assert_nothing_left(Duration::ZERO, &[]);
    }
}
