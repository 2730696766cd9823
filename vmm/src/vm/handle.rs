//! The handle: making a VM, finding it again, its states.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use hyper::body::Bytes;

use super::State;
use crate::client::{Client, Timeouts};
use crate::config::{SerialConfig, VmConfig};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, EventLog, History};
use crate::hypervisor::{Files, Hypervisor, KillOnDrop, Launch};
use crate::info::{VmInfo, VmState};
use crate::process::{Death, ExitReason, Identity, Process};
use crate::request::{self, Request};
use crate::shutdown::{self, Ladder, Outcome};
use crate::validate;

/// A VM. Dropping the handle leaves it running; a later process finds it again by
/// [`Vm::attach`].
#[derive(Debug)]
pub struct Vm {
    hypervisor: Hypervisor,
    config: Mutex<VmConfig>,
    events: Mutex<EventLog>,
    /// Whether the machine has booted, as far as this handle's own calls tell: events lag a moment
    /// behind the calls that cause them.
    has_booted: Mutex<Option<bool>>,
}

impl Vm {
    /// Starts Cloud Hypervisor, creates the machine and boots it. On any failure, and when this future
    /// is dropped, the process is killed and its sockets are removed; its logs stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] before anything is started; those of [`Hypervisor::spawn`]; what Cloud
    /// Hypervisor says of `vm.create` and `vm.boot`; [`Error::Died`] with the last lines of stderr
    /// and of the serial log.
    pub async fn start(launch: Launch, config: VmConfig) -> Result<Self> {
        let vm = Self::create(launch, config).await?;
        let guard = KillOnDrop::new(vm.process(), vm.files());
        let booted = vm.call(&request::vm_boot()).await;
        guard.settle(booted).await?;
        vm.note_booted(true);
        Ok(vm)
    }

    /// Starts Cloud Hypervisor and creates the machine, without booting it. Fails like
    /// [`Vm::start`].
    ///
    /// # Errors
    /// As [`Vm::start`].
    pub async fn create(launch: Launch, config: VmConfig) -> Result<Self> {
        validate::settle(validate::problems(&config))?;
        let hypervisor = Hypervisor::spawn(launch).await?;
        let vm = Self::of(hypervisor, config);
        let guard = KillOnDrop::new(vm.process(), vm.files());
        let created = match vm.hypervisor.capabilities().check(&vm.config()) {
            // A fresh process holds no machine, so there is nothing to delete first.
            Ok(()) => vm.call(&request::vm_create(&vm.config())).await.map(drop),
            Err(error) => Err(error),
        };
        guard.settle(created).await?;
        vm.note_booted(false);
        Ok(vm)
    }

    /// Starts Cloud Hypervisor without a machine, to restore or receive one.
    ///
    /// # Errors
    /// As [`Hypervisor::spawn`].
    pub async fn empty(launch: Launch) -> Result<Self> {
        Ok(Self::of(
            Hypervisor::spawn(launch).await?,
            VmConfig::default(),
        ))
    }

    /// Finds a VM again that an earlier driver started.
    ///
    /// # Errors
    /// As [`Hypervisor::attach`].
    pub async fn attach(files: Files, identity: Identity) -> Result<Self> {
        Self::adopt(Hypervisor::attach(files, identity, Timeouts::default()).await?).await
    }

    /// Finds a VM again by its socket alone (Linux 6.5 and later).
    ///
    /// # Errors
    /// As [`Hypervisor::attach_socket`].
    pub async fn attach_socket(files: Files) -> Result<Self> {
        Self::adopt(Hypervisor::attach_socket(files, Timeouts::default()).await?).await
    }

    async fn adopt(hypervisor: Hypervisor) -> Result<Self> {
        let config = match hypervisor.client().info().await {
            Ok(info) => info.config,
            Err(error) if error.kind() == Kind::NotCreated => VmConfig::default(),
            Err(error) => return Err(error),
        };
        Ok(Self::of(hypervisor, config))
    }

    fn of(hypervisor: Hypervisor, config: VmConfig) -> Self {
        let events = Mutex::new(EventLog::new(&hypervisor.files().events));
        Self {
            hypervisor,
            config: Mutex::new(config),
            events,
            has_booted: Mutex::new(None),
        }
    }

    /// Boots the machine. After a refusal it is `Created` again, with the devices added since (but not
    /// those on descriptors, which are spent), and can be booted when its cause is gone.
    ///
    /// # Errors
    /// What Cloud Hypervisor says of it; [`Error::Died`].
    pub async fn boot(&self) -> Result<()> {
        let state = self.state().await?;
        if !matches!(state, State::Created | State::Stopped) {
            return Err(self.wrong_state("boot", state));
        }
        let Err(refusal) = self.call(&request::vm_boot()).await else {
            self.note_booted(true);
            return Ok(());
        };
        // Only an answered refusal: after a time-out the boot may still be under way.
        if matches!(refusal, Error::Api { .. }) {
            self.create_again().await?;
        }
        Err(refusal)
    }

    /// The configuration it was created with, and the devices added since by typed calls; after an
    /// attach, the one that Cloud Hypervisor reports.
    #[must_use]
    pub fn config(&self) -> VmConfig {
        self.config
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes a device that came or went, so that a machine created anew is the same one.
    pub(super) fn note_config(&self, change: impl FnOnce(&mut VmConfig)) {
        change(&mut self.config.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes note of a machine that came from elsewhere and has booted there.
    pub(super) fn arrived(&self, config: VmConfig) {
        self.note_config(|noted| *noted = config);
        self.note_booted(true);
    }

    fn wrong_state(&self, verb: &'static str, state: State) -> Error {
        let state = match state {
            State::Ended(exit) => {
                let death = Box::new(self.files().death(exit));
                return Error::Died { death };
            }
            State::Running => VmState::Running,
            State::Paused => VmState::Paused,
            State::Other(state) => state,
            State::Empty | State::Created | State::Stopped => VmState::Created,
        };
        Error::WrongState { verb, state }
    }

    async fn create_again(&self) -> Result<()> {
        let config = self.config();
        // A failed create or boot leaves its configuration behind; without one this does nothing.
        self.call(&request::vm_delete()).await?;
        self.note_booted(false);
        self.call(&request::vm_create(&config)).await.map(drop)
    }

    fn note_booted(&self, booted: bool) {
        *self
            .has_booted
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(booted);
    }

    fn has_booted(&self) -> Result<bool> {
        let noted = *self
            .has_booted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        noted.map_or_else(|| Ok(self.history()?.has_booted), Ok)
    }

    /// Makes any call, and tells a death for what it is: a call that fails because Cloud Hypervisor
    /// ended fails with [`Error::Died`].
    ///
    /// # Errors
    /// As [`Client::call`], and [`Error::Died`].
    pub async fn call(&self, request: &Request) -> Result<Bytes> {
        let result = self.client().call(request).await;
        self.or_death(result).await
    }

    pub(super) async fn or_death<T>(&self, result: Result<T>) -> Result<T> {
        // A connection breaks a moment before its process is gone.
        const MOMENT: std::time::Duration = std::time::Duration::from_millis(200);
        match result {
            Err(error @ Error::Transport { .. }) => {
                match self.process().wait_within(MOMENT).await {
                    Some(exit) => Err(Error::Died {
                        death: Box::new(self.files().death(exit)),
                    }),
                    None => Err(error),
                }
            }
            // A panicking VMM thread may answer this before the process is gone.
            Err(Error::Api { call, source }) if source.root().contains("closed channel") => {
                match self.process().wait_within(MOMENT).await {
                    Some(exit) => Err(Error::Died {
                        death: Box::new(self.files().death(exit)),
                    }),
                    None => Err(Error::Api { call, source }),
                }
            }
            other => other,
        }
    }

    /// Where it stands now.
    ///
    /// # Errors
    /// When Cloud Hypervisor lives and doesn't answer: kind `Busy`.
    pub async fn state(&self) -> Result<State> {
        if let Some(exit) = self.process().exited() {
            return Ok(State::Ended(exit));
        }
        match self.info().await {
            Ok(info) => self.state_of(&info),
            Err(error) if error.kind() == Kind::NotCreated => Ok(State::Empty),
            Err(Error::Died { death }) => Ok(State::Ended(death.exit)),
            Err(error) => Err(error),
        }
    }

    fn state_of(&self, info: &VmInfo) -> Result<State> {
        Ok(match info.state {
            VmState::Running => State::Running,
            VmState::Paused => State::Paused,
            VmState::Created | VmState::Shutdown => {
                if self.has_booted()? {
                    State::Stopped
                } else {
                    State::Created
                }
            }
            other => State::Other(other),
        })
    }

    /// `vm.info`.
    ///
    /// # Errors
    /// As [`Client::query`], and [`Error::Died`].
    pub async fn info(&self) -> Result<VmInfo> {
        let result = self.client().info().await;
        self.or_death(result).await
    }

    /// The events since the last call of this function (or of one that looks at history).
    ///
    /// # Errors
    /// When the event file can't be read.
    pub fn events(&self) -> Result<Vec<Event>> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read()
    }

    /// What the events say so far: reboots, panics. They lag a moment behind the calls that cause
    /// them.
    ///
    /// # Errors
    /// When the event file can't be read.
    pub fn history(&self) -> Result<History> {
        // A reader of its own, so that nobody's events get lost; the file is small.
        let path: PathBuf = self.files().events.clone();
        let mut log = EventLog::new(path);
        log.read()?;
        Ok(log.history().clone())
    }

    /// What a later driver needs to find it again, with [`Vm::files`].
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.process().identity()
    }

    /// Whether the process runs. A busy VM is alive.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.process().alive()
    }

    /// Waits until the process ends, however long that takes.
    pub async fn wait(&self) -> ExitReason {
        self.process().wait().await
    }

    /// How it ended, with the last lines of its logs, if it has.
    #[must_use]
    pub fn death(&self) -> Option<Death> {
        self.process().exited().map(|exit| self.files().death(exit))
    }

    /// Stops it rung by rung, removes its sockets.
    ///
    /// # Errors
    /// [`Error::Unstoppable`] when even the last rung did not end it.
    pub async fn stop(&self, ladder: &Ladder) -> Result<Outcome> {
        let outcome = shutdown::descend(&self.hypervisor, ladder).await?;
        self.unlink_sockets()?;
        Ok(outcome)
    }

    /// Kills it and removes its sockets.
    ///
    /// # Errors
    /// [`Error::Unstoppable`] when it is still there after five seconds.
    pub async fn kill(&self) -> Result<Death> {
        let death = self.hypervisor.kill().await?;
        self.unlink_sockets()?;
        Ok(death)
    }

    /// Removes the API, serial and vsock sockets, which a killed Cloud Hypervisor leaves behind.
    ///
    /// # Errors
    /// When one is there and can't be removed.
    pub fn unlink_sockets(&self) -> Result<()> {
        self.files().unlink_sockets()?;
        let config = self.config();
        if let Some(SerialConfig::Socket { socket }) = &config.serial {
            crate::hypervisor::unlink(socket)?;
        }
        if let Some(vsock) = &config.vsock {
            crate::hypervisor::unlink(&vsock.socket)?;
        }
        Ok(())
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.hypervisor.process()
    }

    /// Its API.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.hypervisor.client()
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &Files {
        self.hypervisor.files()
    }

    /// Its Cloud Hypervisor.
    #[must_use]
    pub fn hypervisor(&self) -> &Hypervisor {
        &self.hypervisor
    }
}
