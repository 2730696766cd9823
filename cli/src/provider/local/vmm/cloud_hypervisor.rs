//! Cloud Hypervisor, which knest is about; `knest-vmm` drives it.

use super::{Vmm, command_line};
use crate::failure::{Context, Failure, Result};
use crate::paths::find_program;
use crate::provider::local::machine::{DiskFormat, Machine};
use crate::provider::local::network::tap_name;
use crate::provider::local::socket::SocketDir;
use crate::provider::local::state::{MachineDir, remove};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use knest_vmm::config::{ConsoleConfig, CpusConfig, MemoryConfig, Payload, SerialConfig, VmConfig};
use knest_vmm::device::{DiskConfig, NetConfig};
use knest_vmm::hypervisor::{Files, Launch};
use knest_vmm::process::Process;
use knest_vmm::vm::Vm;
use std::path::{Path, PathBuf};

/// The program: `$KNEST_CLOUD_HYPERVISOR`, then `PATH`, then what `knest setup` fetched.
pub(crate) fn find(programs: &Path) -> Option<PathBuf> {
    find_program(
        "cloud-hypervisor",
        Some("KNEST_CLOUD_HYPERVISOR"),
        Some(programs),
    )
}

/// The same where nothing can stand in for it.
pub(crate) fn need(programs: &Path) -> Result<PathBuf> {
    find(programs).ok_or_else(|| {
        Failure::host("cloud-hypervisor is not installed").hint("knest setup fetches it")
    })
}

/// Cloud Hypervisor.
#[derive(Debug)]
pub(crate) struct CloudHypervisor {
    pub(crate) program: PathBuf,
}

/// The machine's files as Cloud Hypervisor is told of them: by a path short enough for a socket and
/// free of what its option parser splits at.
fn files(sockets: &SocketDir, dir: &MachineDir) -> Files {
    Files {
        serial_log: dir.serial_log(),
        vmm_log: dir.vmm_log(),
        ..Files::in_dir(&sockets.path())
    }
}

#[async_trait]
impl Vmm for CloudHypervisor {
    async fn start(&self, machine: &Machine, dir: &MachineDir) -> Result<Process> {
        self.clean(dir)?;
        let sockets = SocketDir::open(dir.path())?;
        let mut launch = Launch::new(&self.program, dir.path());
        launch.files = files(&sockets, dir);
        let vm = Vm::start(launch, config(machine, dir))
            .await
            .map_err(|error| {
                Failure::host("starting Cloud Hypervisor").because(error).hint(
                "knest doctor says whether this host's KVM boots stock kernels; where it does not, \
                 use --vmm qemu",
            )
            })?;
        Ok(vm.process().clone())
    }

    async fn power_button(&self, dir: &MachineDir, process: &Process) -> Result<()> {
        let sockets = SocketDir::open(dir.path())?;
        let vm = Vm::attach(files(&sockets, dir), process.identity()).await;
        vm.host("speaking to Cloud Hypervisor")?
            .power_button()
            .await
            .host("pressing the power button")
    }

    async fn resets(&self, _: &MachineDir) -> Result<BoxStream<'static, ()>> {
        Ok(futures::stream::empty().boxed())
    }

    fn clean(&self, dir: &MachineDir) -> Result<()> {
        ["api.sock", "api.sock.lock"]
            .iter()
            .try_for_each(|f| remove(&dir.path().join(f)))
    }
}

fn config(machine: &Machine, dir: &MachineDir) -> VmConfig {
    let path = dir.path().join(&machine.disk.file);
    let root = match machine.disk.format {
        DiskFormat::Raw => DiskConfig::raw(path),
        DiskFormat::Qcow2 => DiskConfig::qcow2(path),
    };
    VmConfig {
        cpus: Some(CpusConfig::fixed(machine.cpus)),
        memory: Some(MemoryConfig::of(machine.memory)),
        payload: Some(Payload::kernel(&machine.kernel, command_line(false))),
        disks: vec![root, DiskConfig::raw(dir.seed()).read_only()],
        net: vec![NetConfig::tap(
            tap_name(machine.address),
            machine.mac.clone(),
        )],
        // Onto the VMM's standard output, which appends to the serial log over every reboot.
        serial: Some(SerialConfig::Tty),
        console: Some(ConsoleConfig::off()),
        ..VmConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::local::machine::testing;

    #[test]
    fn the_machine_as_cloud_hypervisor_is_asked_for_it() {
        let (machine, dir) = testing::machine();
        let body = serde_json::to_string_pretty(&config(&machine, &dir)).unwrap();
        insta::assert_snapshot!(body);
    }
}
