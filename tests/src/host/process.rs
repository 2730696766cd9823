//! One program of a test's, with its output in a file. Killed on drop; and where the test is
//! killed itself, the kernel kills it with the thread that started it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use fs_err::File;

use super::Network;

/// How much of a log a message shows.
const TAIL: usize = 4000;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a command made by `command` in the namespace; its output goes to `NAME.log` below
    /// `logs`.
    #[must_use]
    pub fn start(network: &Network, logs: &Path, name: &str, mut command: Command) -> Self {
        let log = logs.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file")
            .into_parts()
            .0;
        let errors = output.try_clone().expect("a log file");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let what = name.to_owned();
        let child = network
            .run(move || command.spawn())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        Self {
            name: name.to_owned(),
            log,
            child,
        }
    }

    /// Its process, which is also the command's.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Panics with the end of its log if it has ended.
    pub fn assert_running(&mut self) {
        if let Some(end) = self.ended() {
            panic!("{end}");
        }
    }

    /// How it ended, with the end of its log; `None` while it runs.
    #[must_use]
    pub fn ended(&mut self) -> Option<String> {
        let status = self.status()?;
        Some(format!("{} ended, {status}:\n{}", self.name, self.tail()))
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child's status")
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = fs_err::read(&self.log).unwrap_or_default();
        let start = text.len().saturating_sub(TAIL);
        String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A command for [`Process::start`]: with nothing of the test's environment but `PATH`.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}
