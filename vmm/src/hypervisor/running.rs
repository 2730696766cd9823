//! The running process: started, found again, killed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::files::{check_paths, clear_stale};
use super::{ApiSocket, Files, KILL_LIMIT, KillOnDrop, Launch, argv};
use crate::capability::{Capabilities, Version};
use crate::client::{Client, Timeouts};
use crate::error::{Error, Kind, Result};
use crate::info::VmmPing;
use crate::process::{Command, Death, Identity, Process};
use crate::wait::Ticker;

/// How often a starting Cloud Hypervisor is asked whether it is ready: until it listens, an asking is
/// one system call that fails.
const READY_POLL: Duration = Duration::from_micros(100);
/// One that takes longer than this is asked less often.
const USUAL: Duration = Duration::from_millis(20);
const LATE_POLL: Duration = Duration::from_millis(1);

/// A running Cloud Hypervisor. Dropping it leaves it running.
#[derive(Debug, Clone)]
pub struct Hypervisor {
    process: Process,
    client: Client,
    capabilities: Capabilities,
    files: Files,
}

impl Hypervisor {
    /// Starts Cloud Hypervisor and waits until it answers. On any failure, and when this future is
    /// dropped, the process is killed and its sockets are removed.
    ///
    /// # Errors
    /// [`Error::SocketPath`] and [`Error::Invalid`] for paths that can't work, [`Error::Spawn`],
    /// [`Error::Died`] when it ends instead of answering, [`Error::NotReady`] when it does neither,
    /// [`Error::Io`] when another process serves the socket.
    pub async fn spawn(launch: Launch) -> Result<Self> {
        check_paths(&launch.files)?;
        clear_stale(&launch.files)?;
        let listener = match launch.api_socket {
            ApiSocket::Own => None,
            ApiSocket::Inherited => Some(listen(&launch.files.api_socket)?),
        };
        let args = argv(&launch, listener.as_ref().map(AsRawFd::as_raw_fd));
        let Launch {
            binary,
            files,
            mut keep,
            ready_within,
            timeouts,
            ..
        } = launch;
        // Closed here once Cloud Hypervisor has it: its end must be the socket's.
        keep.extend(listener);
        let command = Command {
            program: binary,
            args,
            stdout: files.serial_log.clone(),
            stderr: files.vmm_log.clone(),
            // Backtraces would land inside the API's error texts.
            env_remove: vec!["RUST_BACKTRACE".into(), "RUST_LIB_BACKTRACE".into()],
            keep,
        };
        let process = match command.spawn() {
            Ok(process) => process,
            Err(error) => {
                files.unlink_sockets()?;
                return Err(error);
            }
        };
        let guard = KillOnDrop::new(&process, &files);
        let client = Client::with_timeouts(&files.api_socket, timeouts);
        let hypervisor = ready(&process, &client, &files, ready_within)
            .await
            .and_then(|ping| Self::new(process.clone(), client, files.clone(), &ping));
        guard.settle(hypervisor).await
    }

    /// Finds a running Cloud Hypervisor again: the process by what an earlier driver wrote down, and
    /// that process as the one that answers on its socket.
    ///
    /// # Errors
    /// [`Error::NoProcess`] when it has ended, [`Error::WrongPeer`] when another one serves the
    /// socket, and those of a ping: a busy Cloud Hypervisor fails with kind `Busy` and is not dead.
    pub async fn attach(files: Files, identity: Identity, timeouts: Timeouts) -> Result<Self> {
        let process = Process::attach(identity)?;
        Self::greet(process, files, timeouts).await
    }

    /// Finds a running Cloud Hypervisor by its socket alone (Linux 6.5 and later), unless it inherited
    /// that socket.
    ///
    /// # Errors
    /// When nothing listens there or the kernel can't tell who does; as [`Hypervisor::attach`].
    pub async fn attach_socket(files: Files, timeouts: Timeouts) -> Result<Self> {
        let process = Process::attach_peer(&files.api_socket)?;
        Self::greet(process, files, timeouts).await
    }

    /// Who made the socket need not be who answers on it, so whoever answers is asked.
    async fn greet(process: Process, files: Files, timeouts: Timeouts) -> Result<Self> {
        let client = Client::with_timeouts(&files.api_socket, timeouts);
        let ping = client.ping().await?;
        if !process.calls_itself(ping.pid) {
            return Err(Error::WrongPeer {
                socket: files.api_socket,
                expected: process.identity(),
                found: ping.pid,
            });
        }
        Self::new(process, client, files, &ping)
    }

    fn new(process: Process, client: Client, files: Files, ping: &VmmPing) -> Result<Self> {
        let capabilities = Capabilities::of(ping)
            .map_err(|error| Error::io("read the version", io::Error::other(error)))?;
        capabilities.check_age()?;
        let client = client.with_body_limit(capabilities.body_limit());
        Ok(Self {
            process,
            client,
            capabilities,
            files,
        })
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its API.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What it can be asked.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Kills it, waits until it is gone, removes its sockets.
    ///
    /// # Errors
    /// [`Error::Unstoppable`] when it is still there after five seconds.
    pub async fn kill(&self) -> Result<Death> {
        self.process.kill()?;
        let exit =
            self.process
                .wait_within(KILL_LIMIT)
                .await
                .ok_or_else(|| Error::Unstoppable {
                    pid: self.process.pid(),
                })?;
        self.files.unlink_sockets()?;
        Ok(self.files.death(exit))
    }
}

/// Listens at `path`, for its owner alone.
fn listen(path: &Path) -> Result<OwnedFd> {
    let fail = |source| Error::io(format!("listen on {}", path.display()), source);
    let listener = UnixListener::bind(path).map_err(fail)?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener.into())
}

/// Asks `binary` for its version, for at most `limit`.
///
/// # Errors
/// [`Error::Spawn`], [`Error::Deadline`] (the process is killed), and [`Error::Io`] when it answers
/// something else.
pub async fn version(binary: &Path, limit: Duration) -> Result<Version> {
    let mut command = tokio::process::Command::new(binary);
    command
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let argv = || vec![binary.display().to_string(), "--version".to_owned()];
    let output = tokio::time::timeout(limit, command.output())
        .await
        .map_err(|_| Error::Deadline {
            what: "an answer to --version",
            waited: limit,
            last: format!("{} still runs", binary.display()),
        })?
        .map_err(|source| Error::Spawn {
            argv: argv(),
            source,
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.parse().map_err(|error| {
        let stderr: String = String::from_utf8_lossy(&output.stderr)
            .chars()
            .take(500)
            .collect();
        let what = format!(
            "{} --version ({}): {stderr}",
            binary.display(),
            output.status
        );
        Error::io(what, io::Error::other(error))
    })
}

/// Polls until it answers, and notices at once when it ends instead.
async fn ready(
    process: &Process,
    client: &Client,
    files: &Files,
    limit: Duration,
) -> Result<VmmPing> {
    let start = Instant::now();
    let mut last = None;
    let timer = |error| Error::io("wait by a timer", error);
    let mut often = Some(Ticker::every(READY_POLL).map_err(timer)?);
    let poll = async {
        loop {
            match client.ping().await {
                Ok(ping) => return Ok(ping),
                Err(error) if matches!(error.kind(), Kind::Io | Kind::Busy) => last = Some(error),
                Err(error) => return Err(error),
            }
            drop(often.take_if(|_| start.elapsed() > USUAL));
            match &often {
                Some(often) => often.tick().await.map_err(timer)?,
                None => sleep(LATE_POLL).await,
            }
        }
    };
    tokio::select! {
        biased;
        exit = process.wait() => Err(Error::Died { death: Box::new(files.death(exit)) }),
        answer = tokio::time::timeout(limit, poll) => match answer {
            Ok(answer) => answer,
            Err(_) => Err(Error::NotReady {
                pid: process.pid(),
                socket: files.api_socket.clone(),
                waited: start.elapsed(),
                last: last.map(Box::new),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[tokio::test]
    async fn refuses_paths_that_cannot_work() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let error = Hypervisor::spawn(Launch::new("/bin/true", &long))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::SocketPath { .. }));
        let comma = Path::new("/tmp/a,b");
        let error = Hypervisor::spawn(Launch::new("/bin/true", comma))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Invalid { problems } if problems.len() == 2));
    }
}
