//! A VM from a command's side: finding it, seeing to it that somebody supervises it, speaking with its
//! Cloud Hypervisor, waiting for its end.

use super::state::{UNWATCHED, VmDir, list};
use crate::cluster::name::VmName;
use crate::failure::{Failure, Kind, Result};
use crate::paths::Paths;
use crate::provider::local::daemon;
use crate::provider::local::life::{End, Life, Run};
use crate::provider::local::process::{Identity, tail};
use crate::provider::local::socket::SocketDir;
use crate::work;
use knest_vmm::Error;
use knest_vmm::hypervisor::Files;
use knest_vmm::process::Process;
use knest_vmm::vm::Vm;
use std::time::Duration;
use tokio::time::Instant;

/// Up to the boot of a guest; Cloud Hypervisor itself gives a boot two minutes.
const START: Duration = Duration::from_secs(150);
/// A supervisor that finds a running VM again.
const FIND: Duration = Duration::from_secs(20);
/// How long a supervisor may take to see an end and write it down.
const SETTLE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(25);
/// A VM that goes on is looked at this often, should anything else have become of it.
const LOOK: Duration = Duration::from_secs(5);

/// A VM that must be there.
pub(crate) fn existing(paths: &Paths, name: &VmName) -> Result<VmDir> {
    let dir = VmDir::of(paths, name);
    if dir.vm().exists() {
        return Ok(dir);
    }
    let known = list(paths)?;
    let names: Vec<&str> = known.iter().map(|dir| dir.name.as_str()).collect();
    let failure = Failure::usage(format!("there is no VM {name}"));
    Err(match names.is_empty() {
        true => failure.hint("make one: knest vm run IMAGE"),
        false => failure.hint(format!("there are: {}", names.join(", "))),
    })
}

/// Starts a VM that does not run, the lock on which the caller has; returns when its guest runs, or has
/// ended already by its own will.
pub(crate) async fn start(dir: &VmDir) -> Result<()> {
    dir.set_run_state(&Run::Starting)?;
    let arguments = ["--vm", dir.name.as_str()];
    let what = format!("starting VM {}", dir.name);
    let answer = || async move {
        match dir.run_state()? {
            Some(Run::Ended(end)) => Ok(end.failure.map(Failure::from)),
            Some(Run::Running { .. }) => served(dir).await.map(|()| None),
            _ => Err(Failure::host("it has not booted")),
        }
    };
    match daemon::launch(&what, dir.path(), &arguments, START, answer).await? {
        None => Ok(()),
        Some(failure) => Err(failure.while_doing(what)),
    }
}

/// Sees to it that a running VM has a supervisor, the one that lives or a new one, and that somebody
/// clears up after a VM that ended without.
pub(crate) async fn ensure_supervisor(dir: &VmDir) -> Result<()> {
    let runs = matches!(dir.run_state()?, Some(Run::Running { .. }));
    if !runs || daemon::living(dir.path()).is_some() {
        return Ok(());
    }
    let arguments = ["--vm", dir.name.as_str()];
    let what = format!("taking charge of VM {} again", dir.name);
    daemon::launch(&what, dir.path(), &arguments, FIND, || served(dir)).await
}

/// Whether somebody serves the console, which is the last thing that a supervisor sets up, or wrote down
/// how the VM ended.
async fn served(dir: &VmDir) -> Result<()> {
    match dir.run_state()? {
        Some(Run::Running { process }) if process.alive() => {}
        Some(Run::Running { .. }) => return Err(Failure::host("its end is not written down")),
        _ => return Ok(()),
    }
    let connected = SocketDir::open(dir.path())?.connect("console.sock").await;
    connected
        .map(drop)
        .map_err(|error| Failure::host("connecting to the console").because(error))
}

/// A running VM's Cloud Hypervisor.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) vm: Vm,
    /// Its socket's path leads through this.
    _sockets: SocketDir,
}

/// Cloud Hypervisor's files as this process finds them, for as long as the directory is open.
pub(super) fn files(dir: &VmDir, sockets: &SocketDir) -> Files {
    Files {
        events: dir.events(),
        serial_log: dir.serial_log(),
        vmm_log: dir.vmm_log(),
        ..Files::in_dir(&sockets.path())
    }
}

/// Speaks with the Cloud Hypervisor of a VM that must run, under supervision.
pub(crate) async fn open(dir: &VmDir) -> Result<Open> {
    ensure_supervisor(dir).await?;
    attach(dir).await
}

/// The same, supervised or not.
pub(crate) async fn attach(dir: &VmDir) -> Result<Open> {
    let Some(process) = dir.living()? else {
        return Err(not_running(dir)?);
    };
    let sockets = SocketDir::open(dir.path())?;
    let vm = Vm::attach(files(dir, &sockets), process.watched()).await;
    match vm {
        Ok(vm) => Ok(Open {
            vm,
            _sockets: sockets,
        }),
        Err(Error::NoProcess { .. }) => Err(not_running(dir)?),
        Err(error) => Err(failure(error)),
    }
}

/// What to say of a VM that should run and does not.
pub(crate) fn not_running(dir: &VmDir) -> Result<Failure> {
    let name = &dir.name;
    let what = match dir.run_state()? {
        Some(Run::Ended(end)) => format!("VM {name} does not run: {}", end.reason),
        Some(Run::Starting) => format!("VM {name} does not run yet"),
        _ => format!("VM {name} does not run"),
    };
    Ok(Failure::usage(what).hint(format!("to start it: knest vm start {name}")))
}

impl End {
    /// An end that nobody asked for is a failure, with the VM's last words.
    pub(crate) fn judge(self, dir: &VmDir) -> Result<()> {
        if self.clean {
            return Ok(());
        }
        Err(Failure::guest(format!("VM {}: {}", dir.name, self.reason))
            .evidence(tail(&dir.vmm_log(), 5))
            .evidence(tail(&dir.serial_log(), 10)))
    }
}

/// How it ended, `None` while it runs. One that ended while nobody watched is known as such once its
/// supervisor had the time to say more.
fn ended(dir: &VmDir) -> Result<Option<End>> {
    Ok(match dir.run_state()? {
        Some(Run::Ended(end)) => Some(end),
        Some(Run::Running { process }) if process.alive() => None,
        Some(Run::Running { .. }) if daemon::living(dir.path()).is_some() => None,
        Some(Run::Running { .. }) => Some(End::new(false, UNWATCHED)),
        Some(Run::Starting) => None,
        None => Some(End::new(true, "it was removed")),
    })
}

/// Whether it has ended, or never began.
pub(crate) fn has_ended(dir: &VmDir) -> Result<bool> {
    ended(dir).map(|end| end.is_some())
}

/// Gives a VM whose supervisor was killed another one. That it can't be had changes nothing about the
/// VM.
pub(crate) async fn keep_supervised(dir: &VmDir) {
    if let Err(failure) = ensure_supervisor(dir).await {
        tracing::warn!(%failure, "VM {} has no supervisor", dir.name);
    }
}

/// Waits until a VM ends, which may take years, and keeps it supervised meanwhile.
pub(crate) async fn when_ended(dir: &VmDir) -> Result<End> {
    loop {
        if let Some(end) = ended(dir)? {
            return Ok(end);
        }
        keep_supervised(dir).await;
        change(dir).await;
    }
}

/// Waits until a process of a VM that runs ends, which is when anything about it changes.
async fn change(dir: &VmDir) {
    let find = |identity: Option<Identity>| Process::attach(identity?.watched()).ok();
    let vm = find(dir.living().ok().flatten());
    let supervisor = find(daemon::living(dir.path()));
    match (vm, supervisor) {
        // Its end is about to be written down.
        (None, _) => tokio::time::sleep(POLL).await,
        (Some(vm), None) => {
            vm.wait_within(LOOK).await;
        }
        (Some(vm), Some(supervisor)) => tokio::select! {
            _ = vm.wait_within(LOOK) => {}
            _ = supervisor.wait_within(LOOK) => {}
        },
    }
}

/// Waits until the supervisor of a VM that ended has cleared up and is gone, with all of the VM if it is
/// to be `removed`, or as long as that may take.
pub(crate) async fn cleared(dir: &VmDir, removed: bool) {
    let deadline = Instant::now() + SETTLE;
    let left = || daemon::living(dir.path()).is_some() || (removed && dir.path().exists());
    while Instant::now() < deadline && left() {
        tokio::time::sleep(POLL).await;
    }
}

/// How a VM ended whose process is gone, and nothing of it left running: its supervisor clears up
/// within a moment, else it is done here.
pub(crate) async fn settled(dir: &VmDir) -> Result<Option<End>> {
    if let Some(end) = clearing(dir).await? {
        return Ok(Some(end));
    }
    let left = dir.clone();
    work::blocking(None, move |_| left.end_processes()).await?;
    ended(dir)
}

/// Gives a supervisor the time to clear up after a VM whose process is gone. The end of one that then
/// takes everything away by itself, once nobody reads in there any more.
async fn clearing(dir: &VmDir) -> Result<Option<End>> {
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline && daemon::living(dir.path()).is_some() {
        if let Some(end) = ended(dir)?
            && dir.load()?.is_some_and(|spec| spec.remove)
        {
            return Ok(Some(end));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(None)
}

/// Removes a VM that does not run, or never did, with all that belongs to it; the caller has its lock.
pub(crate) async fn discard(dir: &VmDir) -> Result<()> {
    if let Err(failure) = clearing(dir).await {
        // What can't be read is removed all the same.
        tracing::warn!(%failure, "VM {}", dir.name);
    }
    let dir = dir.clone();
    work::blocking(None, move |_| {
        dir.end_processes()?;
        dir.clear()
    })
    .await
}

/// What Cloud Hypervisor, or the way to it, failed with.
pub(crate) fn failure(error: Error) -> Failure {
    use knest_vmm::error::Kind as Vmm;
    if let Error::Died { death } = &error {
        return Failure::guest(format!("Cloud Hypervisor ended with {}", death.exit))
            .evidence(death.stderr_tail.clone())
            .evidence(death.serial_tail.clone());
    }
    let kind = match error.kind() {
        Vmm::NotCreated | Vmm::AlreadyCreated | Vmm::InvalidState | Vmm::Validation => Kind::Usage,
        Vmm::Busy => Kind::Timeout,
        Vmm::Locked | Vmm::Io => Kind::Host,
        _ => Kind::Guest,
    };
    let locked = error.kind() == Vmm::Locked;
    let failure = Failure::new(kind, "Cloud Hypervisor").because(error);
    match locked {
        true => failure.hint("another VM has that disk: stop it, or give this one a copy"),
        false => failure,
    }
}
