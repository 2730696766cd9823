//! The machines of one cluster: started, watched, stopped. Operations come one at a time; what a
//! machine's end leads to counts as one.

use super::policy;
use crate::cluster::name::NodeName;
use crate::cluster::spec::{Role, VmmKind};
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::provider::local::life::{End, Life, Run};
use crate::provider::local::machine::{Machine, with_log};
use crate::provider::local::network::{API_PORT, Links, tap_name};
use crate::provider::local::process::{Identity, tail};
use crate::provider::local::state::{ClusterDir, MachineDir, remove};
use crate::provider::local::vmm::{self, Vmm};
use futures::StreamExt;
use futures::future::join_all;
use knest_vmm::process::{Death, ExitReason, Process};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

/// How long a guest that leaves may take to power itself off.
const POWER_OFF: Duration = Duration::from_secs(10);
/// How long a VMM may take to press the button.
const BUTTON: Duration = Duration::from_secs(3);
/// How long a killed VMM may take to be gone.
const KILL: Duration = Duration::from_secs(10);

/// Shared by everything in the supervisor.
#[derive(Clone)]
pub(super) struct Machines(Arc<Inner>);

struct Inner {
    dir: ClusterDir,
    paths: Paths,
    links: Links,
    /// Held during an operation.
    busy: Mutex<()>,
    running: StdMutex<BTreeMap<NodeName, Process>>,
    restarts: StdMutex<BTreeMap<NodeName, Vec<Instant>>>,
    control_planes: watch::Sender<Vec<SocketAddr>>,
}

impl Machines {
    pub(super) fn new(dir: ClusterDir, paths: Paths, links: Links) -> Self {
        Self(Arc::new(Inner {
            dir,
            paths,
            links,
            busy: Mutex::new(()),
            running: StdMutex::default(),
            restarts: StdMutex::default(),
            control_planes: watch::channel(vec![]).0,
        }))
    }

    /// Where the API servers are.
    pub(super) fn control_planes(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.0.control_planes.subscribe()
    }

    /// Takes charge of what an earlier supervisor left: living VMMs are watched, ended ones dealt
    /// with, TAPs of no machine removed.
    pub(super) async fn adopt(&self) -> Result<()> {
        let _busy = self.0.busy.lock().await;
        let mut taps = vec![];
        for dir in self.0.dir.machines()? {
            let Some(machine) = dir.load()? else { continue };
            taps.push(tap_name(machine.address));
            match dir.run_state()? {
                Some(Run::Running { process }) => match attach(&process) {
                    Some(attached) => {
                        tracing::info!(machine = %machine.name, pid = process.pid, "found again");
                        self.watch(&machine.name, attached);
                        self.count_reboots(&machine);
                    }
                    None => self.ended(&dir, &machine, "its VMM", ExitReason::Unknown)?,
                },
                Some(Run::Starting) => {
                    self.ended(&dir, &machine, "its start", ExitReason::Unknown)?;
                }
                Some(Run::Ended(_)) | None => {}
            }
        }
        for name in self.0.links.names().await? {
            if name.starts_with("tap") && !taps.contains(&name) {
                self.0.links.remove(&name).await?;
            }
        }
        self.refresh(&[])
    }

    /// Starts machines, all at once, unless they run. Every one is tried; the first failure is told.
    pub(super) async fn start(&self, names: &[NodeName]) -> Result<()> {
        let _busy = self.0.busy.lock().await;
        self.refresh(&[])?;
        let results = join_all(names.iter().map(|name| self.start_one(name))).await;
        results.into_iter().collect()
    }

    /// Stops machines: by their power button, and for good. Their directories stay.
    pub(super) async fn remove(&self, names: &[NodeName]) -> Result<()> {
        self.stop(names, POWER_OFF).await
    }

    /// Stops machines, all at once: by their power button, and whoever is not off in time without.
    /// They get no more connections.
    pub(super) async fn stop(&self, names: &[NodeName], patience: Duration) -> Result<()> {
        let _busy = self.0.busy.lock().await;
        self.refresh(names)?;
        let results = join_all(names.iter().map(|name| self.stop_one(name, patience))).await;
        results.into_iter().collect()
    }

    /// Stops every machine without asking it.
    pub(super) async fn stop_all(&self) -> Result<()> {
        let names: Vec<NodeName> = self.0.dir.machines()?.into_iter().map(|d| d.name).collect();
        self.stop(&names, Duration::ZERO).await
    }

    async fn start_one(&self, name: &NodeName) -> Result<()> {
        if self.process(name).is_some_and(|p| p.alive()) {
            return Ok(());
        }
        let dir = self.0.dir.machine(name);
        let Some(machine) = dir.load()? else {
            return Err(Failure::internal(format!(
                "machine {name} was never described"
            )));
        };
        dir.set_run_state(&Run::Starting)?;
        remove(&dir.resets())?;
        let started = async {
            self.0.links.ensure_tap(&tap_name(machine.address)).await?;
            self.vmm(machine.vmm)?.start(&machine, &dir).await
        };
        let outcome = match started.await {
            Ok(process) => match Identity::of(process.pid()) {
                Some(identity) => Ok((process, identity)),
                None => Err(Failure::guest(reason(
                    &dir,
                    "its VMM",
                    process.wait().await,
                ))),
            },
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok((process, identity)) => {
                tracing::info!(machine = %name, pid = identity.pid, "started");
                dir.set_run_state(&Run::Running { process: identity })?;
                self.watch(name, process);
                self.count_reboots(&machine);
                Ok(())
            }
            Err(failure) => {
                dir.set_run_state(&Run::Ended(End::new(false, failure.to_string())))?;
                Err(failure
                    .while_doing(format!("starting machine {name}"))
                    .evidence(tail(&dir.serial_log(), 10)))
            }
        }
    }

    async fn stop_one(&self, name: &NodeName, patience: Duration) -> Result<()> {
        let dir = self.0.dir.machine(name);
        let Some(machine) = dir.load()? else {
            return Ok(());
        };
        // Taken out first: the end that follows is no news.
        let process = self.running(|running| running.remove(name));
        let vmm = self.vmm(machine.vmm);
        let mut refused = false;
        if let Some(process) = process {
            if !patience.is_zero()
                && let Ok(vmm) = &vmm
            {
                let pressed = tokio::time::timeout(BUTTON, vmm.power_button(&dir, &process)).await;
                let off = match pressed {
                    Ok(Ok(())) => process.wait_within(patience).await,
                    _ => None,
                };
                refused = off.is_none();
            }
            process.kill().host(format!("stopping machine {name}"))?;
            if process.wait_within(KILL).await.is_none() {
                return Err(Failure::timeout(format!(
                    "the VMM of machine {name} (process {}) was still there {} s after SIGKILL",
                    process.pid(),
                    KILL.as_secs()
                )));
            }
            tracing::info!(machine = %name, refused, "stopped");
            let reason = match refused {
                true => format!(
                    "it was not off within {} s and was killed",
                    patience.as_secs()
                ),
                false => "it was stopped".into(),
            };
            dir.set_run_state(&Run::Ended(End::new(!refused, reason)))?;
        }
        if let Ok(vmm) = vmm {
            vmm.clean(&dir)?;
        }
        self.0.links.remove(&tap_name(machine.address)).await
    }

    fn watch(&self, name: &NodeName, process: Process) {
        self.running(|running| running.insert(name.clone(), process.clone()));
        let (machines, name) = (self.clone(), name.clone());
        tokio::spawn(async move {
            let exit = process.wait().await;
            let _busy = machines.0.busy.lock().await;
            let ours = machines.running(|running| {
                let same = running
                    .get(&name)
                    .is_some_and(|p| p.identity() == process.identity());
                if same { running.remove(&name) } else { None }
            });
            if ours.is_none() {
                return;
            }
            let dir = machines.0.dir.machine(&name);
            let told = match dir.load() {
                Ok(Some(machine)) => {
                    machines.ended(&dir, &machine, &format!("{}", machine.vmm), exit)
                }
                Ok(None) => Ok(()),
                Err(failure) => Err(failure),
            };
            if let Err(failure) = told {
                tracing::error!(machine = %name, %failure, "its end could not be dealt with");
            }
        });
    }

    /// Writes down how often the guest of a machine that is not yet a node begins anew, where its VMM
    /// only tells and does not write it down itself.
    fn count_reboots(&self, machine: &Machine) {
        if machine.sealed {
            return;
        }
        let (machines, name, kind) = (self.clone(), machine.name.clone(), machine.vmm);
        tokio::spawn(async move {
            let dir = machines.0.dir.machine(&name);
            let Ok(vmm) = machines.vmm(kind) else { return };
            let Ok(mut resets) = vmm.resets(&dir).await else {
                tracing::warn!(machine = %name, "its reboots go unseen");
                return;
            };
            while resets.next().await.is_some() {
                tracing::warn!(machine = %name, "its guest began anew");
                let _busy = machines.0.busy.lock().await;
                if dir.machine().exists()
                    && let Err(failure) = dir.count_reboot()
                {
                    tracing::error!(machine = %name, %failure, "a reboot was not written down");
                }
            }
        });
    }

    /// Writes an end down and, where the policy says so, has the machine started again.
    fn ended(
        &self,
        dir: &MachineDir,
        machine: &Machine,
        who: &str,
        exit: ExitReason,
    ) -> Result<()> {
        // Cloud Hypervisor's exit code alone does not tell a power-off from a processor that failed.
        let death = Death {
            exit,
            stderr_tail: tail(&dir.vmm_log(), 5),
            serial_tail: String::new(),
        };
        let clean = death.is_clean();
        let reason = if clean {
            "it powered itself off".into()
        } else {
            reason(dir, who, exit)
        };
        tracing::warn!(machine = %machine.name, %reason, "ended");
        dir.set_run_state(&Run::Ended(End::new(clean, reason)))?;
        if let Ok(vmm) = self.vmm(machine.vmm) {
            vmm.clean(dir)?;
        }
        let again = {
            let mut restarts = self
                .0
                .restarts
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let before = restarts.entry(machine.name.clone()).or_default();
            policy::restart(clean, machine.sealed, before, Instant::now())
        };
        if let Some(pause) = again {
            let (machines, name) = (self.clone(), machine.name.clone());
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                // It may have been removed meanwhile.
                if machines.0.dir.machine(&name).machine().exists()
                    && let Err(failure) = machines.start(&[name]).await
                {
                    tracing::error!(%failure, "not started again");
                }
            });
        }
        Ok(())
    }

    /// Tells the balancer which machines are control planes, those apart that are being stopped.
    fn refresh(&self, stopping: &[NodeName]) -> Result<()> {
        let mut addresses = vec![];
        for dir in self.0.dir.machines()? {
            if let Some(machine) = dir.load()?
                && machine.role == Role::ControlPlane
                && !stopping.contains(&machine.name)
            {
                addresses.push(SocketAddr::from((machine.address, API_PORT)));
            }
        }
        self.0.control_planes.send_replace(addresses);
        Ok(())
    }

    fn vmm(&self, kind: VmmKind) -> Result<Box<dyn Vmm>> {
        vmm::find(kind, &self.0.paths)
    }

    fn process(&self, name: &NodeName) -> Option<Process> {
        self.running(|running| running.get(name).cloned())
    }

    fn running<T>(&self, act: impl FnOnce(&mut BTreeMap<NodeName, Process>) -> T) -> T {
        act(&mut self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}

fn attach(identity: &Identity) -> Option<Process> {
    if identity.alive() {
        Process::attach(identity.watched()).ok()
    } else {
        None
    }
}

fn reason(dir: &MachineDir, who: &str, exit: ExitReason) -> String {
    let what = match exit {
        ExitReason::Unknown => format!("{who} ended while nobody watched"),
        exit => format!("{who} ended with {exit}"),
    };
    with_log(&what, &tail(&dir.vmm_log(), 5))
}
