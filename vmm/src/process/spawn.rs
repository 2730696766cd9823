//! How a process is started.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{Process, identity};
use crate::error::{Error, Result};
use crate::sys;

/// A program to start: in a session of its own, stdin closed, stdout and stderr appended to files that
/// no reader needs to empty, nothing inherited but `keep`.
#[derive(Debug)]
pub struct Command {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where stdout goes; made with mode 0600 if it is missing, appended to if not.
    pub stdout: PathBuf,
    /// Where stderr goes; may be the same file.
    pub stderr: PathBuf,
    /// Environment variables that the program shall not see.
    pub env_remove: Vec<OsString>,
    /// Descriptors the program inherits under the numbers they have here; they are closed here once
    /// it runs.
    pub keep: Vec<OwnedFd>,
}

impl Command {
    /// Starts it. Returns once the program has replaced the copy of this one, so a missing or
    /// non-executable file is an error here. Must be called in a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// [`Error::Spawn`] with the argv, [`Error::Io`] for the log files.
    pub fn spawn(self) -> Result<Process> {
        let stdout = append(&self.stdout)?;
        let stderr = append(&self.stderr)?;
        let mut command = std::process::Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        for name in &self.env_remove {
            command.env_remove(name);
        }
        sys::isolate(
            &mut command,
            self.keep.iter().map(AsRawFd::as_raw_fd).collect(),
        );
        let child = command.spawn().map_err(|source| Error::Spawn {
            argv: self.argv(),
            source,
        })?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::NoProcess {
            identity: identity::Identity {
                pid: child.id(),
                start_time: 0,
            },
        })?;
        Process::of_child(pid)
    }

    /// The program and its arguments, for messages.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        std::iter::once(self.program.as_os_str())
            .chain(self.args.iter().map(OsString::as_os_str))
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect()
    }
}

fn append(path: &Path) -> Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::io(format!("open {}", path.display()), source))
}
