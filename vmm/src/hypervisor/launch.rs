//! How Cloud Hypervisor is started: its arguments, a pure function of a value.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Files;
use crate::client::Timeouts;

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

/// Who makes the API socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ApiSocket {
    /// Cloud Hypervisor. Whoever connects to it can ask the kernel which process that is, so a later
    /// driver finds it by the socket alone.
    #[default]
    Own,
    /// This driver, and Cloud Hypervisor inherits it listening: a connection never comes too early.
    /// The kernel calls this driver its server, so a later one needs the process's identity.
    Inherited,
}

/// How to start Cloud Hypervisor.
#[derive(Debug)]
pub struct Launch {
    /// The program. Finding it is the caller's business.
    pub binary: PathBuf,
    /// Its files. Their directory must exist.
    pub files: Files,
    /// Who makes the API socket.
    pub api_socket: ApiSocket,
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
            api_socket: ApiSocket::Own,
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

/// The arguments that `launch` comes to, with the API's listening socket as descriptor `listener` when
/// it is inherited.
#[must_use]
pub fn argv(launch: &Launch, listener: Option<RawFd>) -> Vec<OsString> {
    let path = |path: &Path| {
        let mut value = OsString::from("path=");
        value.push(path);
        value
    };
    let api = match listener {
        Some(fd) => format!("fd={fd}").into(),
        None => path(&launch.files.api_socket),
    };
    let mut args: Vec<OsString> = vec!["--api-socket".into(), api];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argv_is_what_it_says() {
        let mut launch = Launch::new("/bin/ch", Path::new("/run/vm"));
        assert_eq!(
            argv(&launch, None),
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
        assert_eq!(argv(&launch, Some(7))[1], "fd=7");
        assert_eq!(
            argv(&launch, Some(7))[4..],
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
}
