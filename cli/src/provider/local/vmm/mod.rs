//! The programs that run machines, as the supervisor sees them. Whatever differs between them is in
//! the twin files; a process is a process, so watching one and ending it is the supervisor's.

mod cloud_hypervisor;
mod qemu;

pub(crate) use cloud_hypervisor::{
    CloudHypervisor, find as find_cloud_hypervisor, need as need_cloud_hypervisor,
};
pub(crate) use qemu::{Accelerator, Qemu, find as find_qemu};

use super::kvm;
use super::machine::Machine;
use super::state::MachineDir;
use crate::cluster::spec::VmmKind;
use crate::failure::{Failure, Result};
use crate::paths::Paths;
use async_trait::async_trait;
use futures::stream::BoxStream;
use knest_vmm::process::Process;

/// A program that runs machines.
#[async_trait]
pub(crate) trait Vmm: Send + Sync {
    /// Starts a machine; returns when its guest runs. Its TAP is there and up. If this fails or is
    /// dropped, no process is left.
    async fn start(&self, machine: &Machine, dir: &MachineDir) -> Result<Process>;

    /// Presses the power button; the guest does what it likes about that.
    async fn power_button(&self, dir: &MachineDir, process: &Process) -> Result<()>;

    /// Tells each time its guest begins anew while the VMM runs on; ends with the VMM. Nothing where
    /// the VMM writes its events into the machine's directory.
    async fn resets(&self, dir: &MachineDir) -> Result<BoxStream<'static, ()>>;

    /// Removes what a VMM that was killed leaves behind, its logs apart.
    fn clean(&self, dir: &MachineDir) -> Result<()>;
}

/// The kernel's command line. Under software emulation the guest's mitigations cost much and guard
/// against nothing: there is no speculation to attack.
fn command_line(emulated: bool) -> String {
    let mut line = String::from("console=ttyS0 root=/dev/vda rw quiet");
    if emulated {
        line.push_str(" mitigations=off");
    }
    line
}

/// The VMM of a kind on this host.
pub(crate) fn find(kind: VmmKind, paths: &Paths) -> Result<Box<dyn Vmm>> {
    match kind {
        VmmKind::CloudHypervisor => match find_cloud_hypervisor(&paths.programs()) {
            Some(program) => Ok(Box::new(CloudHypervisor { program })),
            None => Err(Failure::host("cloud-hypervisor is not installed")
                .hint("knest setup fetches it; where that is no way, --vmm qemu")),
        },
        VmmKind::Qemu => match find_qemu() {
            Some(program) => Ok(Box::new(Qemu {
                program,
                accelerator: kvm::accelerator(),
            })),
            None => Err(Failure::host("qemu-system-x86_64 is not installed")
                .hint("install qemu-system-x86")),
        },
    }
}
