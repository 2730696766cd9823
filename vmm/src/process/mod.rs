//! A process that outlives its driver: spawned in a session of its own, watched by pidfd, found again
//! by a later driver. Knows nothing of Cloud Hypervisor.
//!
//! ```text
//! Command::spawn ──► Process ◄── Process::attach(Identity)      a later driver, by pid + start time
//!   setsid             │   ◄── Process::attach_peer(socket)     … or by who serves a socket
//!   stdin  /dev/null   │
//!   stdout O_APPEND    ├─ wait, exited, alive
//!   stderr O_APPEND    └─ terminate, kill        dropping it does neither
//! ```

mod exit;
mod identity;
mod spawn;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use exit::{Death, ExitReason};
pub use identity::Identity;
pub use spawn::Command;

use crate::error::{Error, Result};
use crate::sys;

/// A running or ended process. Clones watch the same one.
#[derive(Debug, Clone)]
pub struct Process(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pidfd: AsyncFd<OwnedFd>,
    identity: Identity,
    /// Whether this process may be reaped by us.
    child: bool,
    exit: Mutex<Option<ExitReason>>,
}

impl Process {
    /// Finds a process again by what an earlier driver wrote down.
    ///
    /// # Errors
    /// [`Error::NoProcess`] when it is gone, has ended, or its number is another process's now.
    pub fn attach(identity: Identity) -> Result<Self> {
        let gone = || Error::NoProcess { identity };
        let pid = identity.rustix_pid().ok_or_else(gone)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|error| {
            if error == rustix::io::Errno::SRCH {
                gone()
            } else {
                Error::io(format!("open process {identity}"), error)
            }
        })?;
        // Read after the pidfd is open: from here on the number can't pass to another process.
        match identity::Stat::of(identity.pid) {
            Some(stat) if stat.start_time == identity.start_time && !stat.zombie => {
                Self::new(pidfd, identity, false)
            }
            _ => Err(gone()),
        }
    }

    /// Finds the process that listens on the Unix socket at `path` (Linux 6.5 and later).
    ///
    /// # Errors
    /// When nothing listens there, or the kernel can't tell who does.
    pub fn attach_peer(path: &Path) -> Result<Self> {
        let ask = || format!("ask who serves {}", path.display());
        let stream = std::os::unix::net::UnixStream::connect(path)
            .map_err(|error| Error::io(ask(), error))?;
        let pidfd = sys::peer_pidfd(&stream).map_err(|error| Error::io(ask(), error))?;
        let peer = rustix::net::sockopt::socket_peercred(&stream)
            .map_err(|error| Error::io(ask(), error))?;
        let pid = identity::number(peer.pid);
        let stat = identity::Stat::of(pid).ok_or(Error::NoProcess {
            identity: Identity { pid, start_time: 0 },
        })?;
        Self::new(
            pidfd,
            Identity {
                pid,
                start_time: stat.start_time,
            },
            false,
        )
    }

    fn of_child(pid: Pid) -> Result<Self> {
        let number = identity::number(pid);
        let watch = || format!("watch child {number}");
        // Our own child's number stays taken until we reap it, so this can't hit another process.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
            .map_err(|error| Error::io(watch(), error))?;
        let start_time = identity::Stat::of(number)
            .ok_or_else(|| Error::io(watch(), io::Error::from(io::ErrorKind::NotFound)))?
            .start_time;
        let process = Self::new(
            pidfd,
            Identity {
                pid: number,
                start_time,
            },
            true,
        )?;
        // Reaps it though nobody waits.
        let reaper = process.clone();
        tokio::spawn(async move { reaper.wait().await });
        Ok(process)
    }

    fn new(pidfd: OwnedFd, identity: Identity, child: bool) -> Result<Self> {
        let pidfd = sys::watch(pidfd, Interest::READABLE)
            .map_err(|error| Error::io(format!("watch process {identity}"), error))?;
        Ok(Self(Arc::new(Inner {
            pidfd,
            identity,
            child,
            exit: Mutex::new(None),
        })))
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.identity.pid
    }

    /// What a later driver needs to find it again.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Whether `pid` is its number in its own pid namespace, which need not be this one.
    #[must_use]
    pub fn calls_itself(&self, pid: i64) -> bool {
        identity::number_of_its_own(self.pid()) == Some(pid)
    }

    /// Whether it still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.exited().is_none()
    }

    /// How it ended, if it has; asks the kernel, doesn't wait.
    #[must_use]
    pub fn exited(&self) -> Option<ExitReason> {
        let mut exit = self.0.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if exit.is_none() && self.has_ended() {
            *exit = Some(if self.0.child {
                self.reap()
            } else {
                self.look_up_exit()
            });
        }
        *exit
    }

    /// Waits until it ends. Without a deadline: a VM may run for years.
    pub async fn wait(&self) -> ExitReason {
        loop {
            if let Some(exit) = self.exited() {
                return exit;
            }
            match self.0.pidfd.readable().await {
                // A pidfd stays readable once its process has ended. When it has not, the mark is
                // stale and must go, or this would spin.
                Ok(mut guard) => {
                    if !self.has_ended() {
                        guard.clear_ready();
                    }
                }
                // Only when the runtime shuts down, and this task with it.
                Err(_) => return ExitReason::Unknown,
            }
        }
    }

    /// Waits until it ends, for at most `limit`.
    pub async fn wait_within(&self, limit: Duration) -> Option<ExitReason> {
        tokio::time::timeout(limit, self.wait())
            .await
            .ok()
            .or_else(|| self.exited())
    }

    /// Asks it to end (SIGTERM). Not an error when it has.
    ///
    /// # Errors
    /// When the signal may not be sent.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it (SIGKILL). Not an error when it has ended.
    ///
    /// # Errors
    /// When the signal may not be sent.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match rustix::process::pidfd_send_signal(self.0.pidfd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::io(
                format!("signal process {}", self.0.identity),
                error,
            )),
        }
    }

    fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.0.pidfd.get_ref(), PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    fn reap(&self) -> ExitReason {
        let fd = self.0.pidfd.get_ref().as_fd();
        match rustix::process::waitid(
            WaitId::PidFd(fd),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(Some(status)) => ExitReason::from_waitid(&status),
            // Someone else in this process reaped it, or SIGCHLD is ignored.
            _ => sys::pidfd_exit(fd).unwrap_or(ExitReason::Unknown),
        }
    }

    /// Somebody else's child tells how it ended through `/proc` until it is reaped, and through its
    /// pidfd from then on.
    fn look_up_exit(&self) -> ExitReason {
        let identity = self.0.identity;
        identity::Stat::of(identity.pid)
            .filter(|stat| stat.start_time == identity.start_time && stat.zombie)
            .and_then(|stat| stat.exit_status)
            .map(ExitReason::from_wait_status)
            .or_else(|| sys::pidfd_exit(self.0.pidfd.get_ref()))
            .unwrap_or(ExitReason::Unknown)
    }
}
