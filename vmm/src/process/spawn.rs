//! How a process is started.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Process;
use crate::error::{Error, Result};
use crate::sys;

/// A program to start: in a session of its own, stdin closed, stdout and stderr appended to files that
/// no reader needs to empty, nothing inherited but `keep`.
#[derive(Debug)]
pub struct Command {
    /// The program's file: a path, which is not looked for.
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
    /// Starts it. Returns once the program runs, so a missing or non-executable file is an error here.
    /// Must be called in a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// [`Error::Spawn`] with the argv, [`Error::Io`] for the log files.
    pub fn spawn(self) -> Result<Process> {
        let stdin = fs_err::File::open("/dev/null").map_err(|e| Error::io("open /dev/null", e))?;
        let stdio = [
            stdin.into_file().into(),
            append(&self.stdout)?,
            append(&self.stderr)?,
        ];
        let argv: Vec<&OsStr> = self.argv().collect();
        let seen = |(name, _): &(OsString, _)| !self.env_remove.contains(name);
        let environment = std::env::vars_os().filter(seen);
        let keep: Vec<RawFd> = self.keep.iter().map(AsRawFd::as_raw_fd).collect();
        let pid = sys::spawn(&argv, environment, stdio, &keep).map_err(|source| Error::Spawn {
            argv: argv
                .iter()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect(),
            source,
        })?;
        Process::of_child(pid)
    }

    fn argv(&self) -> impl Iterator<Item = &OsStr> {
        let args = self.args.iter().map(OsString::as_os_str);
        std::iter::once(self.program.as_os_str()).chain(args)
    }
}

fn append(path: &Path) -> Result<OwnedFd> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(OwnedFd::from)
        .map_err(|source| Error::io(format!("open {}", path.display()), source))
}
