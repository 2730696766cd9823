//! Keeping a daemon on its listening socket.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Flavor, Sandbox, Share, argv};
use crate::error::{Error, Result};
use crate::hypervisor::{KILL_LIMIT, unlink};
use crate::process::{Command, ExitReason, Process};
use crate::validate::{Problem, SOCKET_PATH, settle};

/// The pause before a daemon that failed is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A daemon that served this long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(10);

/// A shared directory with a daemon behind it. Dropping it leaves the running daemon to the VM, but
/// starts no other; [`Virtiofsd::stop`] ends it. A later driver starts one anew on the same path, and
/// Cloud Hypervisor's next connection finds that one.
#[derive(Debug)]
pub struct Virtiofsd {
    share: Share,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    process: Process,
    respawns: u64,
    last: Option<ExitReason>,
}

impl Virtiofsd {
    /// Listens on the share's socket and starts a daemon on it. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`Error::SocketPath`], [`Error::Invalid`] for what the C daemon can't do, [`Error::Io`] for the
    /// socket, [`Error::Spawn`].
    pub fn start(share: Share) -> Result<Self> {
        check(&share)?;
        unlink(&share.socket)?;
        let listener = UnixListener::bind(&share.socket)
            .map_err(|source| Error::io(format!("listen on {}", share.socket.display()), source))?;
        let process = spawn(&share, &listener)?;
        let shared = Arc::new(Mutex::new(Shared {
            process,
            respawns: 0,
            last: None,
        }));
        let task = tokio::spawn(keep(share.clone(), listener, Arc::clone(&shared)));
        Ok(Self {
            share,
            shared,
            task,
        })
    }

    /// The share.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// The daemon that runs now, or the last one.
    #[must_use]
    pub fn process(&self) -> Process {
        self.lock().process.clone()
    }

    /// How often a daemon was started again: once a reboot of the guest is usual.
    #[must_use]
    pub fn respawns(&self) -> u64 {
        self.lock().respawns
    }

    /// How the last daemon that ended did so.
    #[must_use]
    pub fn last_exit(&self) -> Option<ExitReason> {
        self.lock().last
    }

    /// Ends the daemon, starts no other, and removes the socket. End the VM first: it loses the
    /// directory.
    ///
    /// # Errors
    /// [`Error::Unstoppable`], [`Error::Io`].
    pub async fn stop(mut self) -> Result<()> {
        self.task.abort();
        // Once it is over nothing is started any more.
        let _aborted = (&mut self.task).await;
        let process = self.process();
        process.terminate()?;
        if process
            .wait_within(Duration::from_millis(500))
            .await
            .is_none()
        {
            process.kill()?;
            let pid = process.pid();
            process
                .wait_within(KILL_LIMIT)
                .await
                .ok_or(Error::Unstoppable { pid })?;
        }
        unlink(&self.share.socket)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Virtiofsd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a daemon again whenever one ends: at once after it served, later and later when it fails.
async fn keep(share: Share, listener: UnixListener, shared: Arc<Mutex<Shared>>) {
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pause = FIRST_PAUSE;
    let mut begun = Instant::now();
    loop {
        let process = lock().process.clone();
        let exit = process.wait().await;
        lock().last = Some(exit);
        if exit.is_success() || begun.elapsed() > SETTLED {
            pause = FIRST_PAUSE;
        } else {
            tracing::warn!(%exit, share = %share.directory.display(), "virtiofsd failed");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        begun = Instant::now();
        loop {
            match spawn(&share, &listener) {
                Ok(process) => {
                    let mut shared = lock();
                    shared.process = process;
                    shared.respawns += 1;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "virtiofsd can't be started again");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

fn spawn(share: &Share, listener: &UnixListener) -> Result<Process> {
    let copy = listener
        .try_clone()
        .map_err(|source| Error::io(format!("copy {}", share.socket.display()), source))?;
    let copy = OwnedFd::from(copy);
    Command {
        program: share.program.clone(),
        args: argv(share, copy.as_raw_fd()),
        stdout: share.log.clone(),
        stderr: share.log.clone(),
        env_remove: vec!["RUST_BACKTRACE".into(), "RUST_LIB_BACKTRACE".into()],
        keep: vec![copy],
    }
    .spawn()
}

/// Asks `program` which virtiofsd it is, for at most `limit`.
///
/// # Errors
/// [`Error::Spawn`], [`Error::Deadline`].
pub async fn flavor(program: &Path, limit: Duration) -> Result<Flavor> {
    let mut command = tokio::process::Command::new(program);
    command
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(limit, command.output())
        .await
        .map_err(|_| Error::Deadline {
            what: "an answer to --version",
            waited: limit,
            last: format!("{} still runs", program.display()),
        })?
        .map_err(|source| Error::Spawn {
            argv: vec![program.display().to_string(), "--version".to_owned()],
            source,
        })?;
    // QEMU's: "virtiofsd version 7.2.22 (Debian …)"; the other: "virtiofsd 1.14.0".
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(if text.contains("virtiofsd version") {
        Flavor::C
    } else {
        Flavor::Rust
    })
}

fn check(share: &Share) -> Result<()> {
    if share.socket.as_os_str().len() > SOCKET_PATH {
        return Err(Error::SocketPath {
            path: share.socket.clone(),
        });
    }
    let mut problems = Vec::new();
    let mut wrong = |field: &str, reason: &str| {
        problems.push(Problem {
            field: field.to_owned(),
            reason: reason.to_owned(),
        });
    };
    if share.flavor == Flavor::C {
        if share.read_only {
            wrong("read_only", "QEMU's virtiofsd can't share read-only");
        }
        if share.sandbox == Sandbox::None {
            wrong("sandbox", "QEMU's virtiofsd always has one");
        }
        if share.directory.to_string_lossy().contains(',') {
            wrong("directory", "QEMU's virtiofsd can't take a comma in it");
        }
    }
    settle(problems)
}
