//! One machine's files: what it should be (`machine.json`, written before anything is started) and
//! what can be said of it.

use super::life::{Life, Run};
use super::process::tail;
use super::state::{MachineDir, read_json, write_json};
use crate::cluster::name::NodeName;
use crate::cluster::spec::{Role, VmmKind};
use crate::failure::{Context, Result};
use crate::provider::{MachineState, MachineStatus};
use knest_vmm::event::EventLog;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The layout's version.
pub(crate) const VERSION: u32 = 1;

/// Console lines in a status.
const CONSOLE_LINES: usize = 25;

/// `machine.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) version: u32,
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    pub(crate) vmm: VmmKind,
    pub(crate) cpus: u32,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: String,
    /// A PVH `vmlinux`.
    pub(crate) kernel: PathBuf,
    pub(crate) disk: Disk,
    /// Its seed holds no secret any more: it has been a Ready node, and is worth starting again
    /// after a crash.
    pub(crate) sealed: bool,
}

/// The root disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Disk {
    /// Below the machine's directory.
    pub(crate) file: String,
    pub(crate) format: DiskFormat,
}

/// What is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DiskFormat {
    Raw,
    /// An overlay over a base disk in the cache.
    Qcow2,
}

impl Life for MachineDir {
    fn run(&self) -> PathBuf {
        self.path().join("run.json")
    }
}

impl MachineDir {
    /// What the machine should be; `None` if this directory is rubbish.
    pub(crate) fn load(&self) -> Result<Option<Machine>> {
        read_json(&self.machine())
    }
    pub(crate) fn save(&self, machine: &Machine) -> Result<()> {
        write_json(&self.machine(), machine)
    }

    /// Whether its VMM has ended and nobody wrote down how.
    pub(crate) fn ended_unseen(&self) -> Result<bool> {
        Ok(matches!(self.run_state()?, Some(Run::Running { process }) if !process.alive()))
    }

    fn has_disk(&self) -> Result<bool> {
        let machine = self.load()?;
        Ok(machine.is_some_and(|m| self.path().join(m.disk.file).exists()))
    }

    /// Notes that its guest began anew, where the VMM does not write that down itself.
    pub(crate) fn count_reboot(&self) -> Result<()> {
        let before: u64 = read_json(&self.resets())?.unwrap_or_default();
        write_json(&self.resets(), &(before + 1))
    }

    /// How often its guest began anew before it was a Ready node.
    fn reboots(&self) -> Result<u64> {
        if self.load()?.is_none_or(|machine| machine.sealed) {
            return Ok(0);
        }
        let told: u64 = read_json(&self.resets())?.unwrap_or_default();
        let mut log = EventLog::new(self.events());
        log.read().host(format!("machine {}", self.name))?;
        Ok(told.max(log.history().reboots))
    }

    /// What can be said of it without asking anybody.
    pub(crate) fn status(&self) -> Result<MachineStatus> {
        let stopped = |reason: String| match self.has_disk() {
            Ok(false) => MachineState::Lost {
                reason: format!("{reason}; its disk is gone"),
            },
            _ => MachineState::Stopped { reason },
        };
        let state = match self.run_state()? {
            None => stopped("never started".into()),
            Some(Run::Starting) => stopped("its start was interrupted".into()),
            Some(Run::Running { process }) if process.alive() => MachineState::Running,
            Some(Run::Running { .. }) => {
                let last = tail(&self.vmm_log(), 5);
                stopped(with_log("its VMM ended while nobody watched", &last))
            }
            Some(Run::Ended(end)) => stopped(end.reason),
        };
        Ok(MachineStatus {
            name: self.name.clone(),
            state,
            reboots: self.reboots()?,
            console_tail: tail(&self.serial_log(), CONSOLE_LINES),
        })
    }
}

/// A reason and a VMM's last words, on one line each.
pub(crate) fn with_log(reason: &str, log: &str) -> String {
    if log.is_empty() {
        reason.to_owned()
    } else {
        format!("{reason}; its last words:\n{log}")
    }
}

/// A machine to try things with.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::paths::Paths;
    use crate::provider::local::state::ClusterDir;

    pub(crate) fn machine() -> (Machine, MachineDir) {
        let paths = Paths {
            state: "/s".into(),
            data: "/d".into(),
            cache: "/c".into(),
            ..Paths::default()
        };
        let name: NodeName = "demo-worker-2".parse().unwrap();
        let dir = ClusterDir::of(&paths, &"demo".parse().unwrap()).machine(&name);
        let machine = Machine {
            version: VERSION,
            name,
            role: Role::Worker,
            vmm: VmmKind::Qemu,
            cpus: 2,
            memory: 2 << 30,
            address: Ipv4Addr::new(10, 4, 0, 11),
            mac: "02:6b:0a:04:00:0b".into(),
            kernel: "/c/kernels/abc/vmlinux".into(),
            disk: Disk {
                file: "disk.qcow2".into(),
                format: DiskFormat::Qcow2,
            },
            sealed: false,
        };
        (machine, dir)
    }
}
