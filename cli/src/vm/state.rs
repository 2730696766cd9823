//! One VM's directory: what lies where, and what became of the VM. Everything that belongs to a VM is
//! in this list; nothing lies outside it but the disks that its user named.
//!
//! ```text
//! $XDG_STATE_HOME/knest/vms/NAME/      0700; the working directory of all its processes
//!   vm.json             what the VM should be, versioned. No vm.json, no VM.
//!   run.json            its process, or how it ended; see provider/local/life
//!   lock                flock: held by the command that makes, starts or removes it, and who that is
//!   supervisor.{lock,json,log}      see provider/local/daemon
//!   disk.raw | disk.qcow2           the root disk, a clone of cache/disks (from an image only)
//!   seed.img            its NoCloud volume (--cloud-init, --net user)
//!   network.json, pasta.log         --net user
//!   share-N.sock, share-N.log       --share: the listener of its virtiofsd, and what that says
//!   console.sock        hvc0, for any number of readers: bytes, both ways
//!   api.sock, events.json, vmm.log  Cloud Hypervisor's
//!   serial.log          all that it wrote to ttyS0; older pieces in serial.log.OFFSET
//! ```

use crate::cluster::name::VmName;
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::provider::local::life::Life;
use crate::provider::local::lock::{self, FileLock};
use crate::provider::local::process::{Identity, marked};
use crate::provider::local::state::{create_private, directories, read_json, remove, write_json};
use crate::vm::spec::{VERSION, VmSpec};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// What is said of an end that no supervisor saw.
pub(super) const UNWATCHED: &str = "Cloud Hypervisor ended while nobody watched";

const POLL: Duration = Duration::from_millis(20);

/// A VM's directory, there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VmDir {
    pub(crate) name: VmName,
    path: PathBuf,
}

impl Life for VmDir {
    fn run(&self) -> PathBuf {
        self.path.join("run.json")
    }
}

impl VmDir {
    pub(crate) fn of(paths: &Paths, name: &VmName) -> Self {
        Self {
            name: name.clone(),
            path: paths.vms().join(name.as_str()),
        }
    }
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    pub(crate) fn vm(&self) -> PathBuf {
        self.path.join("vm.json")
    }
    fn lock(&self) -> PathBuf {
        self.path.join("lock")
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

    /// What the VM should be, `None` if there is none; a newer knest's is refused.
    pub(crate) fn load(&self) -> Result<Option<VmSpec>> {
        let path = self.vm();
        let Some(value) = read_json::<serde_json::Value>(&path)? else {
            return Ok(None);
        };
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(VERSION.into()) {
            let found = version.map_or_else(|| "no".to_owned(), |v| v.to_string());
            return Err(Failure::host(format!(
                "{} has version {found}; this knest knows {VERSION}",
                path.display()
            ))
            .hint("use the knest that made this VM"));
        }
        serde_json::from_value(value)
            .host(format!("reading {}", path.display()))
            .map(Some)
    }
    pub(crate) fn save(&self, spec: &VmSpec) -> Result<()> {
        write_json(&self.vm(), spec)
    }

    /// Ends every process that bears its mark, but this one. Blocks.
    pub(crate) fn end_processes(&self) -> Result<()> {
        marked(&self.path).iter().try_for_each(Identity::end)
    }

    /// Removes all that is in it, `vm.json` last, and it: until then the VM is still known and its
    /// removal can be taken up again. `lock` stays for its holder to remove.
    pub(crate) fn clear(&self) -> Result<()> {
        let what = || format!("emptying {}", self.path.display());
        let entries = match fs_err::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.host(what())?,
        };
        let mut paths = vec![];
        for entry in entries {
            paths.push(entry.host(what())?.path());
        }
        paths.retain(|p| *p != self.lock());
        paths.sort_by_key(|p| *p == self.vm());
        paths.iter().try_for_each(|p| remove(p))
    }
}

/// The VMs that there are, sorted.
pub(crate) fn list(paths: &Paths) -> Result<Vec<VmDir>> {
    let names = directories(&paths.vms())?;
    let dirs = names
        .iter()
        .filter_map(|n| Some(VmDir::of(paths, &n.parse().ok()?)));
    Ok(dirs.filter(|dir| dir.vm().exists()).collect())
}

/// The lock on a VM; it takes the directory with it if no VM is left in there.
#[derive(Debug)]
pub(crate) struct VmLock {
    dir: VmDir,
    held: FileLock,
}

impl VmLock {
    /// Takes it, or says who has it.
    pub(crate) fn acquire(dir: &VmDir) -> Result<Self> {
        create_private(dir.path())?;
        let held = lock::acquire(&dir.lock()).map_err(|failure| {
            failure
                .while_doing(format!("VM {} is being worked on", dir.name))
                .hint("wait for that command, or stop it with Ctrl-C")
        })?;
        Ok(Self {
            dir: dir.clone(),
            held,
        })
    }

    /// Takes it as soon as whoever has it lets go, within this time.
    pub(crate) async fn acquire_within(dir: &VmDir, limit: Duration) -> Result<Self> {
        let deadline = Instant::now() + limit;
        loop {
            match Self::acquire(dir) {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                other => return other,
            }
        }
    }
}

impl Drop for VmLock {
    fn drop(&mut self) {
        self.held.disown();
        if !self.dir.vm().exists() {
            drop(fs_err::remove_file(self.dir.lock()));
            // Refused while anything is in it, and rightly so.
            drop(fs_err::remove_dir(self.dir.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::local::life::Run;
    use crate::vm::spec::testing::spec;

    fn dir(root: &Path) -> (Paths, VmDir) {
        let paths = Paths {
            state: root.into(),
            data: root.join("data"),
            cache: root.join("cache"),
            ..Paths::default()
        };
        let dir = VmDir::of(&paths, &"demo".parse().unwrap());
        (paths, dir)
    }

    #[tokio::test]
    async fn a_vm_is_there_from_its_description_to_its_removal() {
        let root = tempfile::tempdir().unwrap();
        let (paths, dir) = dir(root.path());
        let lock = VmLock::acquire(&dir).unwrap();
        assert!(VmLock::acquire(&dir).is_err());
        assert_eq!(list(&paths).unwrap(), []);
        dir.save(&spec()).unwrap();
        drop(lock);
        assert_eq!(dir.load().unwrap().unwrap(), spec());
        assert_eq!(list(&paths).unwrap(), std::slice::from_ref(&dir));
        let own = Identity::own().unwrap();
        dir.set_run_state(&Run::Running {
            process: own.clone(),
        })
        .unwrap();
        assert_eq!(dir.living().unwrap(), Some(own));
        let lock = VmLock::acquire_within(&dir, Duration::ZERO).await.unwrap();
        dir.clear().unwrap();
        drop(lock);
        assert!(!dir.path().exists());
        assert!(dir.load().unwrap().is_none());
    }

    #[test]
    fn a_newer_description_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (_, dir) = dir(root.path());
        create_private(dir.path()).unwrap();
        fs_err::write(dir.vm(), "{\"version\": 99}").unwrap();
        assert!(dir.load().unwrap_err().to_string().contains("version 99"));
    }
}
