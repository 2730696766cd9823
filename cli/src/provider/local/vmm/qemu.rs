//! QEMU, for machines where Cloud Hypervisor can't run: the same kernel, disk, seed, TAP and serial
//! log as its twin, and no feature of its own. It is spoken to over QMP.

use super::{Vmm, command_line};
use crate::failure::{Context, Failure, Result};
use crate::paths::find_program;
use crate::provider::local::machine::{DiskFormat, Machine};
use crate::provider::local::network::tap_name;
use crate::provider::local::process::tail;
use crate::provider::local::socket::SocketDir;
use crate::provider::local::state::{MachineDir, remove};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use knest_vmm::process::{Command, Process};
use qapi::futures::{QapiStream, QmpStreamTokio};
use qapi::qmp;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::time::Instant;

const SOCKET: &str = "qmp.sock";

/// A second one for whoever only listens: QEMU speaks to one at a time on each.
const EVENTS: &str = "events.sock";

/// How long QEMU may take to say that its guest runs; it is there in a fraction of a second.
const READY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    /// Software.
    Tcg,
}

/// The program, if it is installed.
pub(crate) fn find() -> Option<PathBuf> {
    find_program("qemu-system-x86_64", None, None)
}

/// QEMU.
#[derive(Debug)]
pub(crate) struct Qemu {
    pub(crate) program: PathBuf,
    pub(crate) accelerator: Accelerator,
}

#[async_trait]
impl Vmm for Qemu {
    async fn start(&self, machine: &Machine, dir: &MachineDir) -> Result<Process> {
        self.clean(dir)?;
        let sockets = SocketDir::open(dir.path())?;
        let process = Command {
            program: self.program.clone(),
            args: arguments(machine, dir, &sockets.path(), self.accelerator)
                .into_iter()
                .map(Into::into)
                .collect(),
            stdout: dir.vmm_log(),
            stderr: dir.vmm_log(),
            env_remove: vec![],
            keep: vec![],
        }
        .spawn()
        .host("starting QEMU")?;
        let guard = KillOnDrop(Some(process));
        let ended = async {
            match &guard.0 {
                Some(process) => process.wait().await.to_string(),
                None => String::new(),
            }
        };
        tokio::select! {
            exit = ended => {
                Err(Failure::host(format!("QEMU ended at once with {exit}"))
                    .evidence(tail(&dir.vmm_log(), 10)))
            }
            result = running(&sockets) => result,
        }?;
        guard
            .release()
            .ok_or_else(|| Failure::internal("QEMU's process was lost"))
    }

    async fn power_button(&self, dir: &MachineDir, _: &Process) -> Result<()> {
        let sockets = SocketDir::open(dir.path())?;
        let mut session = connect(&sockets, SOCKET).await.host("speaking to QEMU")?;
        let pressed = session.execute(qmp::system_powerdown {}).await;
        pressed.map(drop).host("pressing the power button")
    }

    async fn resets(&self, dir: &MachineDir) -> Result<BoxStream<'static, ()>> {
        let sockets = SocketDir::open(dir.path())?;
        let session = connect(&sockets, EVENTS).await.host("listening to QEMU")?;
        let (service, events) = session.into_parts();
        let resets = events.filter_map(move |event| {
            // Its half of the connection is held open for as long as events are taken.
            let _open = &service;
            let reset = matches!(event, Ok(qmp::Event::RESET { data, .. }) if data.guest);
            futures::future::ready(reset.then_some(()))
        });
        Ok(resets.boxed())
    }

    fn clean(&self, dir: &MachineDir) -> Result<()> {
        [SOCKET, EVENTS]
            .iter()
            .try_for_each(|socket| remove(&dir.path().join(socket)))
    }
}

type Half<T> = QmpStreamTokio<T>;
type Session = QapiStream<Half<ReadHalf<UnixStream>>, Half<WriteHalf<UnixStream>>>;

/// A QMP session past its greeting.
async fn connect(sockets: &SocketDir, socket: &str) -> std::io::Result<Session> {
    let (read, write) = tokio::io::split(sockets.connect(socket).await?);
    QmpStreamTokio::open_split(read, write)
        .await?
        .negotiate()
        .await
}

/// Asks until QEMU says that the guest runs.
async fn running(sockets: &SocketDir) -> Result<()> {
    let deadline = Instant::now() + READY;
    let mut last = String::from("no answer");
    while Instant::now() < deadline {
        let look = async {
            let status = connect(sockets, SOCKET)
                .await?
                .execute(qmp::query_status {})
                .await;
            status.map_err(std::io::Error::other)
        };
        match tokio::time::timeout_at(deadline, look).await {
            Ok(Ok(status)) if status.running => return Ok(()),
            Ok(Ok(status)) => last = format!("{:?}", status.status),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => {}
        }
        tokio::time::sleep(POLL).await;
    }
    let waited = READY.as_secs();
    Err(Failure::timeout(format!(
        "QEMU did not run its guest within {waited} s; last seen: {last}"
    )))
}

/// Whoever stops waiting for a start must not leave a QEMU behind.
struct KillOnDrop(Option<Process>);

impl KillOnDrop {
    fn release(mut self) -> Option<Process> {
        self.0.take()
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(process) = &self.0
            && let Err(error) = process.kill()
        {
            tracing::warn!(%error, "a QEMU was left behind");
        }
    }
}

/// A path inside an option whose parts are separated by commas.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn arguments(
    machine: &Machine,
    dir: &MachineDir,
    sockets: &Path,
    accelerator: Accelerator,
) -> Vec<String> {
    let emulated = accelerator == Accelerator::Tcg;
    let (accelerator, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg,thread=multi,tb-size=512", "max"),
    };
    let disk = escaped(&dir.path().join(&machine.disk.file));
    let format = match machine.disk.format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    };
    // The guest's flushes reach the disk, except under emulation: there etcd's many flushes are what
    // a starting cluster waits for, and such a cluster is for trying things out. It survives the
    // death of QEMU and of knest even so, but not that of the machine.
    let flush = if emulated { ",cache.no-flush=on" } else { "" };
    let seed = escaped(&dir.seed());
    let monitor = |id: &str, socket: &str| {
        let path = escaped(&sockets.join(socket));
        format!("socket,id={id},server=on,wait=off,path={path}")
    };
    [
        ("-name", machine.name.to_string()),
        ("-machine", "q35".into()),
        ("-accel", accelerator.into()),
        ("-cpu", cpu.into()),
        ("-smp", machine.cpus.to_string()),
        ("-m", format!("{}M", machine.memory >> 20)),
        ("-kernel", machine.kernel.display().to_string()),
        ("-append", command_line(emulated)),
        (
            "-blockdev",
            format!("driver=file,node-name=root-file,filename={disk},discard=unmap{flush}"),
        ),
        (
            "-blockdev",
            format!("driver={format},node-name=root,file=root-file,discard=unmap{flush}"),
        ),
        ("-device", "virtio-blk-pci,drive=root".into()),
        (
            "-blockdev",
            format!("driver=file,node-name=seed-file,filename={seed},read-only=on"),
        ),
        (
            "-blockdev",
            "driver=raw,node-name=seed,file=seed-file,read-only=on".into(),
        ),
        ("-device", "virtio-blk-pci,drive=seed".into()),
        (
            "-netdev",
            format!(
                "tap,id=net,ifname={},script=no,downscript=no",
                tap_name(machine.address)
            ),
        ),
        // Without a ROM: nothing boots from the network.
        (
            "-device",
            format!("virtio-net-pci,netdev=net,mac={},romfile=", machine.mac),
        ),
        ("-device", "virtio-rng-pci".into()),
        (
            "-chardev",
            format!(
                "file,id=serial,append=on,path={}",
                escaped(&dir.serial_log())
            ),
        ),
        ("-serial", "chardev:serial".into()),
        ("-chardev", monitor("qmp", SOCKET)),
        ("-mon", "chardev=qmp,mode=control".into()),
        ("-chardev", monitor("events", EVENTS)),
        ("-mon", "chardev=events,mode=control".into()),
        (
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
        ),
        ("-display", "none".into()),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .chain(["-nodefaults".into(), "-no-user-config".into()])
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::local::machine::testing;

    #[test]
    fn argv() {
        let (machine, dir) = testing::machine();
        let sockets = Path::new("/proc/1/fd/9");
        let tcg = arguments(&machine, &dir, sockets, Accelerator::Tcg);
        insta::assert_snapshot!(tcg.join(" ").replace(" -", "\n-"));
        let kvm = arguments(&machine, &dir, sockets, Accelerator::Kvm).join(" ");
        assert!(kvm.contains("-accel kvm -cpu host"));
        assert!(!kvm.contains("no-flush") && !kvm.contains("mitigations"));
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(escaped(Path::new("/a,b/c")), "/a,,b/c");
    }
}
