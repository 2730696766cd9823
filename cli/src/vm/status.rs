//! What can be said of a VM: what is written of it, and what its Cloud Hypervisor answers in a moment.

use super::handle::files;
use super::spec::VmSpec;
use super::state::{UNWATCHED, VmDir};
use crate::failure::Result;
use crate::provider::local::daemon;
use crate::provider::local::life::{Life, Run};
use crate::provider::local::socket::SocketDir;
use knest_vmm::client::{Client, Timeouts};
use knest_vmm::error::Kind;
use knest_vmm::event::{EventLog, History};
use knest_vmm::info::{VmInfo, VmState};
use std::fmt;
use std::time::Duration;

/// A VM that does not answer is no reason to keep others waiting.
const LOOK: Duration = Duration::from_secs(1);

/// Where a VM stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Made, never started.
    Created,
    Starting,
    Running,
    Paused,
    /// Cloud Hypervisor runs, and its machine is shut down or deleted.
    Off,
    /// Cloud Hypervisor lives and does not answer.
    Busy,
    /// It powered itself off, or was stopped.
    Ended,
    /// It ended otherwise.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Off => "off",
            Self::Busy => "busy",
            Self::Ended => "ended",
            Self::Failed => "failed",
        })
    }
}

/// All that can be said.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) spec: VmSpec,
    pub(crate) state: State,
    /// Why it does not run.
    pub(crate) reason: Option<String>,
    /// Cloud Hypervisor's process.
    pub(crate) pid: Option<u32>,
    pub(crate) supervisor: Option<u32>,
    pub(crate) history: History,
    /// What Cloud Hypervisor says.
    pub(crate) info: Option<VmInfo>,
}

impl Status {
    /// Of a VM; `None` if it is gone.
    pub(crate) async fn of(dir: &VmDir) -> Result<Option<Self>> {
        let Some(spec) = dir.load()? else {
            return Ok(None);
        };
        let mut events = EventLog::new(dir.events());
        // They tell of its last life, and only of that.
        drop(events.read());
        let mut status = Self {
            spec,
            state: State::Created,
            reason: None,
            pid: None,
            supervisor: daemon::living(dir.path()).map(|process| process.pid),
            history: events.history().clone(),
            info: None,
        };
        match dir.run_state()? {
            None => {}
            Some(Run::Starting) if status.supervisor.is_some() => status.state = State::Starting,
            Some(Run::Starting) => status.fails("its start was interrupted"),
            Some(Run::Running { process }) if process.alive() => {
                status.pid = Some(process.pid);
                status.ask(dir).await?;
            }
            Some(Run::Running { .. }) => status.fails(UNWATCHED),
            Some(Run::Ended(end)) if !end.clean => status.fails(&end.reason),
            Some(Run::Ended(end)) => {
                status.state = State::Ended;
                status.reason = Some(end.reason);
            }
        }
        Ok(Some(status))
    }

    fn fails(&mut self, reason: &str) {
        self.state = State::Failed;
        self.reason = Some(reason.to_owned());
    }

    async fn ask(&mut self, dir: &VmDir) -> Result<()> {
        let sockets = SocketDir::open(dir.path())?;
        let timeouts = Timeouts {
            query: LOOK,
            ..Timeouts::default()
        };
        let client = Client::with_timeouts(files(dir, &sockets).api_socket, timeouts);
        let info = client.info().await;
        self.state = match &info {
            Ok(info) => match info.state {
                VmState::Paused => State::Paused,
                VmState::Created | VmState::Shutdown => State::Off,
                _ => State::Running,
            },
            Err(error) if error.kind() == Kind::NotCreated => State::Off,
            Err(_) => State::Busy,
        };
        self.info = info.ok();
        Ok(())
    }
}
