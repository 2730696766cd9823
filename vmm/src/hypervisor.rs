//! One Cloud Hypervisor process and the way to talk to it: its files, its argv, its readiness.
//!
//! ```text
//! DIR/ (0700)
//! ├── api.sock      the API; DIR/api.sock.lock beside it from v53 on
//! ├── events.json   the event monitor: a regular file, so nothing is dropped and nobody need read
//! ├── serial.log    Cloud Hypervisor's stdout: ttyS0, appended over reboots, never truncated
//! └── vmm.log       its stderr
//! ```
//! Knows nothing of a VM's configuration or state; [`crate::vm`] does.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::capability::{Capabilities, Version};
use crate::client::{Client, Timeouts};
use crate::error::{Error, Kind, Result};
use crate::info::VmmPing;
use crate::log;
use crate::process::{Command, Death, Identity, Process};
use crate::validate::{Problem, SOCKET_PATH};

/// How often a starting Cloud Hypervisor is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(1);
/// How long a killed process may take to be gone.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Lines of each log that a report of a death keeps.
const TAIL_LINES: usize = 20;

/// The files of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The API socket, at most 107 bytes.
    pub api_socket: PathBuf,
    /// The event monitor's file.
    pub events: PathBuf,
    /// stdout: the guest's serial port when its mode is `Tty`.
    pub serial_log: PathBuf,
    /// stderr: Cloud Hypervisor's own log.
    pub vmm_log: PathBuf,
}

impl Files {
    /// The usual names in `dir`, which should be private to the user.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            api_socket: dir.join("api.sock"),
            events: dir.join("events.json"),
            serial_log: dir.join("serial.log"),
            vmm_log: dir.join("vmm.log"),
        }
    }

    /// Removes the sockets, which a killed Cloud Hypervisor leaves behind. The logs stay.
    ///
    /// # Errors
    /// When one is there and can't be removed.
    pub fn unlink_sockets(&self) -> Result<()> {
        let mut lock = self.api_socket.clone().into_os_string();
        lock.push(".lock");
        unlink(&self.api_socket)?;
        unlink(Path::new(&lock))
    }

    /// The end of a process that used these files.
    #[must_use]
    pub fn death(&self, exit: crate::process::ExitReason) -> Death {
        Death {
            exit,
            stderr_tail: log::tail(&self.vmm_log, TAIL_LINES),
            serial_tail: log::tail(&self.serial_log, TAIL_LINES),
        }
    }
}

pub(crate) fn unlink(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// How Cloud Hypervisor treats a system call that its filter forbids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// It is killed (SIGSYS).
    #[default]
    Kill,
    /// It logs the call.
    Log,
    /// There is no filter.
    Off,
}

/// How to start Cloud Hypervisor.
#[derive(Debug)]
pub struct Launch {
    /// The program. Finding it is the caller's business.
    pub binary: PathBuf,
    /// Its files. Their directory must exist.
    pub files: Files,
    /// 0 = warnings, 1 = information, 2 = debugging.
    pub verbosity: u8,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Keep running after the guest powered off (v52); otherwise the process ends with exit code 0.
    pub no_shutdown: bool,
    /// Further arguments, last.
    pub extra_args: Vec<OsString>,
    /// Descriptors that the process inherits under the numbers they have here.
    pub keep: Vec<OwnedFd>,
    /// How long it may take until it answers; 2 ms is usual.
    pub ready_within: Duration,
    /// Time-outs of later calls.
    pub timeouts: Timeouts,
}

impl Launch {
    /// `binary` with its files in `dir` and everything else usual.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, dir: &Path) -> Self {
        Self {
            binary: binary.into(),
            files: Files::in_dir(dir),
            verbosity: 0,
            seccomp: Seccomp::Kill,
            no_shutdown: false,
            extra_args: Vec::new(),
            keep: Vec::new(),
            ready_within: Duration::from_secs(10),
            timeouts: Timeouts::default(),
        }
    }
}

/// The arguments that `launch` comes to.
#[must_use]
pub fn argv(launch: &Launch) -> Vec<OsString> {
    let path = |path: &Path| {
        let mut value = OsString::from("path=");
        value.push(path);
        value
    };
    let mut args: Vec<OsString> = vec!["--api-socket".into(), path(&launch.files.api_socket)];
    args.extend(["--event-monitor".into(), path(&launch.files.events)]);
    args.extend((0..launch.verbosity).map(|_| "-v".into()));
    match launch.seccomp {
        Seccomp::Kill => {}
        Seccomp::Log => args.extend(["--seccomp".into(), "log".into()]),
        Seccomp::Off => args.extend(["--seccomp".into(), "false".into()]),
    }
    if launch.no_shutdown {
        args.push("--no-shutdown".into());
    }
    args.extend(launch.extra_args.iter().cloned());
    args
}

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
        let args = argv(&launch);
        let Launch {
            binary,
            files,
            keep,
            ready_within,
            timeouts,
            ..
        } = launch;
        let process = Command {
            program: binary,
            args,
            stdout: files.serial_log.clone(),
            stderr: files.vmm_log.clone(),
            // Backtraces would land inside the API's error texts.
            env_remove: vec!["RUST_BACKTRACE".into(), "RUST_LIB_BACKTRACE".into()],
            keep,
        }
        .spawn()?;
        let guard = KillOnDrop::new(&process, &files);
        let client = Client::with_timeouts(&files.api_socket, timeouts);
        let hypervisor = ready(&process, &client, &files, ready_within)
            .await
            .and_then(|ping| Self::new(process.clone(), client, files.clone(), &ping));
        guard.settle(hypervisor).await
    }

    /// Finds a running Cloud Hypervisor again: the process by what an earlier driver wrote down, and
    /// that process as the server of its socket.
    ///
    /// # Errors
    /// [`Error::NoProcess`] when it has ended, [`Error::WrongPeer`] when another one serves the
    /// socket, and those of a ping: a busy Cloud Hypervisor fails with kind `Busy` and is not dead.
    pub async fn attach(files: Files, identity: Identity, timeouts: Timeouts) -> Result<Self> {
        let process = Process::attach(identity)?;
        match Process::attach_peer(&files.api_socket) {
            Ok(peer) if peer.identity() != identity => {
                return Err(Error::WrongPeer {
                    socket: files.api_socket,
                    expected: identity,
                    found: peer.pid(),
                });
            }
            // A kernel that can't tell, or a socket that is gone: the ping decides.
            _ => {}
        }
        Self::greet(process, files, timeouts).await
    }

    /// Finds a running Cloud Hypervisor by its socket alone (Linux 6.5 and later).
    ///
    /// # Errors
    /// When nothing listens there or the kernel can't tell who does; as [`Hypervisor::attach`].
    pub async fn attach_socket(files: Files, timeouts: Timeouts) -> Result<Self> {
        let process = Process::attach_peer(&files.api_socket)?;
        Self::greet(process, files, timeouts).await
    }

    async fn greet(process: Process, files: Files, timeouts: Timeouts) -> Result<Self> {
        let client = Client::with_timeouts(&files.api_socket, timeouts);
        let ping = client.ping().await?;
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
    let poll = async {
        loop {
            match client.ping().await {
                Ok(ping) => return Ok(ping),
                Err(error) if matches!(error.kind(), Kind::Io | Kind::Busy) => last = Some(error),
                Err(error) => return Err(error),
            }
            sleep(READY_POLL).await;
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

fn check_paths(files: &Files) -> Result<()> {
    if files.api_socket.as_os_str().len() > SOCKET_PATH {
        return Err(Error::SocketPath {
            path: files.api_socket.clone(),
        });
    }
    let mut problems = Vec::new();
    for (field, path) in [("api_socket", &files.api_socket), ("events", &files.events)] {
        // Its option parser splits and quotes at these.
        if path
            .to_string_lossy()
            .contains([',', '"', '[', ']', '\u{fffd}'])
        {
            problems.push(Problem {
                field: field.to_owned(),
                reason: format!("Cloud Hypervisor can't take {path:?} on its command line"),
            });
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { problems })
    }
}

/// Removes a socket that nobody serves; versions up to v52 would fail on it.
fn clear_stale(files: &Files) -> Result<()> {
    match std::os::unix::net::UnixStream::connect(&files.api_socket) {
        Ok(_) => Err(Error::io(
            format!("take {}", files.api_socket.display()),
            io::Error::new(io::ErrorKind::AddrInUse, "another process serves it"),
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => unlink(&files.api_socket),
        Err(_) => Ok(()),
    }
}

/// Kills a process that nobody has taken charge of yet.
pub(crate) struct KillOnDrop<'a> {
    process: &'a Process,
    files: &'a Files,
    armed: bool,
}

impl<'a> KillOnDrop<'a> {
    pub(crate) fn new(process: &'a Process, files: &'a Files) -> Self {
        Self {
            process,
            files,
            armed: true,
        }
    }

    /// Lets go of the process on success; kills it on failure, and waits until it is gone.
    pub(crate) async fn settle<T>(mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.process.kill()?;
            self.process.wait_within(KILL_LIMIT).await;
            self.files.unlink_sockets()?;
        }
        self.armed = false;
        result
    }
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            for result in [self.process.kill(), self.files.unlink_sockets()] {
                if let Err(error) = result {
                    tracing::warn!(%error, pid = self.process.pid(), "left behind");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argv_is_what_it_says() {
        let mut launch = Launch::new("/bin/ch", Path::new("/run/vm"));
        assert_eq!(
            argv(&launch),
            [
                "--api-socket",
                "path=/run/vm/api.sock",
                "--event-monitor",
                "path=/run/vm/events.json"
            ]
        );
        launch.verbosity = 2;
        launch.seccomp = Seccomp::Log;
        launch.no_shutdown = true;
        launch.extra_args = vec!["--landlock".into()];
        assert_eq!(
            argv(&launch)[4..],
            [
                "-v",
                "-v",
                "--seccomp",
                "log",
                "--no-shutdown",
                "--landlock"
            ]
        );
    }

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
