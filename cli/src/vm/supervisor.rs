//! A VM's supervisor: into its network namespace while there is one thread, then what has to last as
//! long as the VM does.

use super::config;
use super::daemons;
use super::handle::failure;
use super::spec::{NetSpec, VmSpec};
use super::state::{UNWATCHED, VmDir, VmLock};
use crate::cluster::name::VmName;
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::provider::local::life::{End, Life, Run};
use crate::provider::local::network::{self, Entry, Links, install_masquerade, tap_name};
use crate::provider::local::process::Identity;
use crate::provider::local::state::remove;
use crate::provider::local::{Report, daemon, need_cloud_hypervisor, need_nft};
use knest_vmm::console::Console;
use knest_vmm::error::Kind;
use knest_vmm::hypervisor::{Files, Launch};
use knest_vmm::log::Rotation;
use knest_vmm::virtiofsd::Virtiofsd;
use knest_vmm::vm::{RebootPolicy, Vm, Watched};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

/// How often a log's length is looked at; between two looks a guest writes a few MiB at most.
const ROTATE: Duration = Duration::from_secs(1);
/// How long a command may take to read how a VM ended that goes with everything.
const READ: Duration = Duration::from_secs(5);
/// Cloud Hypervisor that lives and does not answer is asked again after this time.
const BUSY: Duration = Duration::from_millis(500);
/// Bytes of Cloud Hypervisor's own log that are kept.
const VMM_LOG: u64 = 1 << 20;
/// Ten reboots a minute are no life; fewer may be somebody's tests.
const REBOOTS: RebootPolicy = RebootPolicy {
    count: 10,
    within: Duration::from_secs(60),
};

/// Supervises a VM until that ends: starts one that is to be started, or takes charge of one that runs.
/// To be called while the process has one thread.
pub(crate) fn run(paths: &Paths, name: &VmName) -> Result<()> {
    let dir = VmDir::of(paths, name);
    let lock = daemon::begin(dir.path())?;
    let spec = dir
        .load()?
        .ok_or_else(|| Failure::usage(format!("there is no VM {name}")))?;
    let living = dir.living()?;
    let end = match (dir.run_state()?, &living) {
        (Some(Run::Starting), _) | (Some(Run::Running { .. }), Some(_)) => {
            whole_life(&dir, &spec, paths, living.as_ref())
        }
        (Some(Run::Running { .. }), None) => End::new(false, UNWATCHED),
        (Some(Run::Ended(_)) | None, _) => {
            return Err(Failure::usage(format!("VM {name} is not to run")));
        }
    };
    tracing::info!(clean = end.clean, "{}", end.reason);
    farewell(&dir, &spec, end)?;
    drop(lock);
    Ok(())
}

fn whole_life(dir: &VmDir, spec: &VmSpec, paths: &Paths, living: Option<&Identity>) -> End {
    let life = || {
        if living.is_none() {
            // Begun by one that was killed before it wrote that down.
            dir.end_processes()?;
        }
        let living: Vec<Identity> = living.cloned().into_iter().collect();
        let entry = match spec.net {
            Some(NetSpec::User { .. }) => Some(network::enter(dir.path(), &living)?),
            _ => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .host("starting the runtime")?;
        runtime.block_on(live(dir, spec, paths, living.first(), entry))
    };
    life().unwrap_or_else(|failure| End {
        clean: false,
        reason: failure.to_string(),
        failure: Some(Report::from(&failure)),
    })
}

/// What is over when the VM runs is boxed, and so given back: this future, and the stack that it went
/// over, last as long as the VM.
async fn live(
    dir: &VmDir,
    spec: &VmSpec,
    paths: &Paths,
    living: Option<&Identity>,
    entry: Option<Entry>,
) -> Result<End> {
    if let Some(entry) = entry {
        Box::pin(network_up(dir, spec, entry)).await?;
    }
    let daemons = match spec.shares.is_empty() {
        true => vec![],
        false => {
            let program = daemons::find_virtiofsd(&paths.programs())?;
            Box::pin(daemons::start(&program, &spec.shares)).await?
        }
    };
    let vm = match living {
        Some(process) => Box::pin(attach(process)).await,
        None => Box::pin(start(dir, spec, paths, &daemons)).await,
    };
    let end = match vm {
        Ok(vm) => watch_over(&vm, spec).await,
        Err(failure) => Err(failure),
    };
    // After the VM: it loses what they share.
    for daemon in daemons {
        if let Err(error) = daemon.stop().await {
            tracing::warn!(%error, "a virtiofsd is left to its end");
        }
    }
    end
}

/// The namespace's inside. It is found done or done.
async fn network_up(dir: &VmDir, spec: &VmSpec, entry: Entry) -> Result<()> {
    let Some(NetSpec::User { range, address, .. }) = &spec.net else {
        return Ok(());
    };
    let nft = need_nft()?;
    let links = Links::open()?;
    links.ensure_bridge(*range).await?;
    install_masquerade(&nft, *range).await?;
    links.ensure_tap(&tap_name(*address)).await?;
    let (tell, _) = watch::channel(None);
    tokio::spawn(network::watch_way_out(
        entry,
        links,
        dir.path().to_owned(),
        tell,
    ));
    Ok(())
}

/// Named as this process and Cloud Hypervisor, which both work in the VM's directory, find them: so
/// neither its depth nor its characters matter.
fn files() -> Files {
    Files::in_dir(Path::new(""))
}

async fn start(dir: &VmDir, spec: &VmSpec, paths: &Paths, daemons: &[Virtiofsd]) -> Result<Vm> {
    let program = need_cloud_hypervisor(&paths.programs())?;
    let launch = Launch::new(program, Path::new(""));
    let vm = tokio::select! {
        vm = Vm::start(launch, config::render(spec)) => vm.map_err(failure)?,
        failed = daemons::one_fails(daemons) => return Err(failed),
    };
    let process = Identity::of(vm.identity().pid);
    let Some(process) = process else {
        // It ran for less time than it takes to look.
        let death = vm
            .death()
            .map(|death| death.to_string())
            .unwrap_or_default();
        return Err(Failure::guest(format!("Cloud Hypervisor {death}")));
    };
    tracing::info!(pid = process.pid, "started");
    dir.set_run_state(&Run::Running { process })?;
    Ok(vm)
}

/// Finds a living one again, however long it is busy.
async fn attach(process: &Identity) -> Result<Vm> {
    loop {
        match Vm::attach(files(), process.watched()).await {
            Ok(vm) => {
                tracing::info!(pid = process.pid, "found again");
                return Ok(vm);
            }
            Err(error) if error.kind() == Kind::Busy => tokio::time::sleep(BUSY).await,
            Err(error) => return Err(failure(error)),
        }
    }
}

async fn watch_over(vm: &Vm, spec: &VmSpec) -> Result<End> {
    let _console = Console::start(vm.client().clone(), Path::new("console.sock"))
        .host("serving the console")?;
    let logs = [
        Rotation::new(&vm.files().serial_log, spec.log_size),
        Rotation::new(&vm.files().vmm_log, VMM_LOG),
    ];
    let watched = tokio::select! {
        watched = vm.watch(REBOOTS) => watched.host("watching Cloud Hypervisor")?,
        never = rotate(&logs) => match never {},
    };
    vm.unlink_sockets().host("removing its sockets")?;
    Ok(end_of(&watched))
}

fn end_of(watched: &Watched) -> End {
    let clean = watched.death.is_clean() && !watched.looped;
    let reason = match watched.death.exit {
        _ if watched.looped => format!(
            "it was ended because it rebooted {} times within {} s",
            REBOOTS.count,
            REBOOTS.within.as_secs()
        ),
        _ if clean => "it is powered off".to_owned(),
        exit => format!("Cloud Hypervisor ended with {exit}"),
    };
    End::new(clean, reason)
}

/// Keeps the logs short, for ever. What goes wrong is told once, until it goes right again.
async fn rotate(logs: &[Rotation; 2]) -> std::convert::Infallible {
    let mut told = false;
    loop {
        tokio::time::sleep(ROTATE).await;
        let due = logs.iter().filter(|log| log.is_due()).cloned();
        let turns = due.map(|log| tokio::task::spawn_blocking(move || log.turn()));
        let mut right = true;
        for turn in turns {
            if let Ok(Err(error)) = turn.await {
                right = false;
                if !told {
                    let error = Failure::host("rotating a log").because(error);
                    tracing::warn!("{error}");
                }
            }
        }
        told = !right;
    }
}

/// Writes the end down, and takes away what was there for the VM's life only; all of it if so asked.
fn farewell(dir: &VmDir, spec: &VmSpec, end: End) -> Result<()> {
    let written = dir.set_run_state(&Run::Ended(end));
    if let Err(failure) = &written {
        // A full disk must not keep the rest from being cleared.
        tracing::error!(%failure, "its end is not written down");
    }
    network::leftover(dir.path())?;
    dir.end_processes()?;
    for (index, _) in spec.shares.iter().enumerate() {
        remove(&dir.path().join(config::share_socket(index)))?;
    }
    for socket in ["api.sock", "api.sock.lock", "console.sock"] {
        remove(&dir.path().join(socket))?;
    }
    if spec.remove {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .host("starting the runtime")?;
        // Whoever waits for the end reads it first.
        let turn = runtime.block_on(VmLock::acquire_within(dir, READ));
        dir.clear()?;
        drop(turn);
        return Ok(());
    }
    remove(&dir.path().join(daemon::WHO))
}
