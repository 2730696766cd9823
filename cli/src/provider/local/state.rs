//! The state directory: what lies where, and how it is read and written. Every file that provider
//! `local` makes for a cluster is in this list; nothing lies outside it.
//!
//! ```text
//! $XDG_STATE_HOME/knest/clusters/NAME/      0700
//!   record.json         the cluster's record, versioned; holds secrets. No record, no cluster.
//!   lock                flock: held by the command that changes the cluster; who holds it
//!   supervisor.lock     flock: held by the supervisor for as long as it lives
//!   supervisor.json     identity of the supervisor's process
//!   supervisor.sock     its control socket: one JSON line there, one back
//!   supervisor.log      its standard output and error
//!   network.json        the namespace, and the process that connects it with the world
//!   pasta.log           what that process says
//!   machines/NODE/
//!     machine.json      what the machine should be; without it the directory is rubbish
//!     run.json          its VMM's process, or how it ended
//!     disk.raw | disk.qcow2    the root disk, a clone of cache/disks
//!     seed.img          its NoCloud volume; holds secrets until it is sealed
//!     serial.log        all that it wrote to ttyS0
//!     vmm.log           its VMM's standard output and error
//!     api.sock, events.json (Cloud Hypervisor) | qmp.sock, events.sock, resets.json (QEMU)
//! ```
//!
//! JSON files are written whole: a temporary file beside them (`.FILE.tmp`), synced, renamed, the
//! directory synced.

use crate::cluster::name::{ClusterName, NodeName};
use crate::cluster::record::Record;
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::provider::local::daemon::{LOG, WHO};
use crate::provider::local::network::NETWORK;
use fs_err::os::unix::fs::OpenOptionsExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A file that knest wrote is never longer.
const JSON_MAX: u64 = 16 << 20;

/// A cluster's directory, there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterDir {
    pub(crate) name: ClusterName,
    path: PathBuf,
}

/// A machine's directory, there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineDir {
    pub(crate) name: NodeName,
    path: PathBuf,
}

impl ClusterDir {
    pub(crate) fn of(paths: &Paths, name: &ClusterName) -> Self {
        Self {
            name: name.clone(),
            path: paths.clusters().join(name.as_str()),
        }
    }
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    pub(crate) fn record(&self) -> PathBuf {
        self.path.join("record.json")
    }
    pub(crate) fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }
    pub(crate) fn supervisor(&self) -> PathBuf {
        self.path.join(WHO)
    }
    pub(crate) fn supervisor_socket(&self) -> PathBuf {
        self.path.join("supervisor.sock")
    }
    pub(crate) fn supervisor_log(&self) -> PathBuf {
        self.path.join(LOG)
    }
    pub(crate) fn network(&self) -> PathBuf {
        self.path.join(NETWORK)
    }
    pub(crate) fn machine(&self, name: &NodeName) -> MachineDir {
        MachineDir {
            name: name.clone(),
            path: self.path.join("machines").join(name.as_str()),
        }
    }

    /// Makes the directory, for its owner alone.
    pub(crate) fn create(&self) -> Result<()> {
        create_private(&self.path)
    }

    /// The machines that have a directory, complete or not, sorted.
    pub(crate) fn machines(&self) -> Result<Vec<MachineDir>> {
        let names = directories(&self.path.join("machines"))?;
        Ok(names
            .iter()
            .filter_map(|n| n.parse().ok())
            .map(|n| self.machine(&n))
            .collect())
    }

    /// The record, `None` without one; a newer knest's is refused.
    pub(crate) fn load(&self) -> Result<Option<Record>> {
        let path = self.record();
        let Some(value) = read_json::<serde_json::Value>(&path)? else {
            return Ok(None);
        };
        Record::read(value, path.display()).map(Some)
    }

    /// Removes what `keep` does not name, the record last of all: until then the cluster is still
    /// known and its removal can be taken up again.
    pub(crate) fn clear(&self, keep: &[PathBuf]) -> Result<()> {
        let what = format!("emptying {}", self.path.display());
        let entries = match fs_err::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.host(&what)?,
        };
        let mut paths = vec![];
        for entry in entries {
            paths.push(entry.host(&what)?.path());
        }
        paths.retain(|p| !keep.contains(p));
        paths.sort_by_key(|p| *p == self.record());
        paths.iter().try_for_each(|p| remove(p))
    }
}

impl MachineDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    pub(crate) fn machine(&self) -> PathBuf {
        self.path.join("machine.json")
    }
    pub(crate) fn seed(&self) -> PathBuf {
        self.path.join("seed.img")
    }
    pub(crate) fn serial_log(&self) -> PathBuf {
        self.path.join("serial.log")
    }
    pub(crate) fn vmm_log(&self) -> PathBuf {
        self.path.join("vmm.log")
    }
    pub(crate) fn events(&self) -> PathBuf {
        self.path.join("events.json")
    }
    pub(crate) fn resets(&self) -> PathBuf {
        self.path.join("resets.json")
    }
    pub(crate) fn create(&self) -> Result<()> {
        create_private(&self.path)
    }
    /// Removes the directory and all in it, `machine.json` first: what is left is rubbish.
    pub(crate) fn remove(&self) -> Result<()> {
        remove(&self.machine())?;
        remove(&self.path)
    }
}

/// The clusters that have a record, sorted.
pub(crate) fn clusters(paths: &Paths) -> Result<Vec<ClusterName>> {
    let names = directories(&paths.clusters())?;
    let names = names.iter().filter_map(|n| n.parse().ok());
    Ok(names
        .filter(|n| ClusterDir::of(paths, n).record().exists())
        .collect())
}

/// Names of the directories in one, sorted; none if it is not there.
pub(crate) fn directories(path: &Path) -> Result<Vec<String>> {
    let what = format!("listing {}", path.display());
    let entries = match fs_err::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        other => other.host(&what)?,
    };
    let mut names = vec![];
    for entry in entries {
        let entry = entry.host(&what)?;
        if entry.file_type().host(&what)?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

pub(crate) fn create_private(path: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .host(format!("making the directory {}", path.display()))
}

/// Removes a file or a directory with all in it; an absent one is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let directory = fs_err::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let result = if directory {
        fs_err::remove_dir_all(path)
    } else {
        fs_err::remove_file(path)
    };
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.host("removing what belonged to the cluster"),
    }
}

/// Reads a JSON file; `None` if it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    use std::io::Read;
    let file = match fs_err::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.host("reading the cluster's state")?,
    };
    let mut bytes = vec![];
    file.take(JSON_MAX)
        .read_to_end(&mut bytes)
        .host(format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| {
            Failure::host(format!("{} is damaged", path.display()))
                .because(e)
                .hint("remove that file, then knest delete clears up what it described")
        })
        .map(Some)
}

/// Writes a JSON file: whole or not at all, durably, for its owner alone.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let what = "writing the cluster's state";
    let text = serde_json::to_vec_pretty(value)
        .map_err(|e| Failure::internal(format!("rendering {}", path.display())).because(e))?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::internal(format!(
            "{} names no file",
            path.display()
        )));
    };
    let temporary = directory.join(format!(".{}.tmp", name.display()));
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary).host(what)?;
    file.write_all(&text).host(what)?;
    file.sync_all().host(what)?;
    fs_err::rename(&temporary, path).host(what)?;
    fs_err::File::open(directory)
        .and_then(|d| d.sync_all())
        .host(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(root: &Path) -> ClusterDir {
        let paths = Paths {
            state: root.into(),
            data: root.join("data"),
            cache: root.join("cache"),
            ..Paths::default()
        };
        ClusterDir::of(&paths, &"demo".parse().unwrap())
    }

    #[test]
    fn json_is_private_and_leaves_no_temporary_file() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let dir = dir(root.path());
        dir.create().unwrap();
        assert_eq!(read_json::<u32>(&dir.network()).unwrap(), None);
        write_json(&dir.network(), &7).unwrap();
        write_json(&dir.network(), &8).unwrap();
        assert_eq!(read_json::<u32>(&dir.network()).unwrap(), Some(8));
        let mode = |p: &Path| fs_err::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.network()), 0o600);
        assert_eq!(mode(dir.path()), 0o700);
        let names: Vec<_> = fs_err::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_newer_record_is_refused_and_a_damaged_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let dir = dir(root.path());
        dir.create().unwrap();
        assert_eq!(dir.load().unwrap(), None);
        fs_err::write(dir.record(), "{\"version\": 99}").unwrap();
        assert!(dir.load().unwrap_err().to_string().contains("version 99"));
        fs_err::write(dir.record(), "{\"vers").unwrap();
        assert!(
            dir.load()
                .unwrap_err()
                .to_string()
                .contains("record.json is damaged")
        );
    }

    #[test]
    fn clearing_keeps_what_it_should() {
        let root = tempfile::tempdir().unwrap();
        let dir = dir(root.path());
        let machine = dir.machine(&"demo-worker-1".parse().unwrap());
        machine.create().unwrap();
        for path in [dir.record(), dir.lock(), dir.network(), machine.seed()] {
            fs_err::write(path, "x").unwrap();
        }
        assert_eq!(dir.machines().unwrap(), [machine]);
        dir.clear(&[dir.record(), dir.lock()]).unwrap();
        assert!(dir.record().exists() && dir.lock().exists());
        assert!(!dir.network().exists());
        assert_eq!(dir.machines().unwrap(), []);
        dir.clear(&[]).unwrap();
        assert!(fs_err::read_dir(dir.path()).unwrap().next().is_none());
    }
}
