//! Runs a command in the lab (`tests/lab/run`): a software-emulated host with nested SVM, where
//! the real Cloud Hypervisor boots a stock kernel whatever this machine's KVM can do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// One lab; every [`Lab::run`] boots it anew.
#[derive(Debug, Default)]
pub struct Lab {
    out: Option<PathBuf>,
    memory: Option<String>,
    environment: Vec<(String, String)>,
}

impl Lab {
    /// A lab with the script's own amount of memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the command writes below `$LAB_OUT` is in `directory` afterwards.
    #[must_use]
    pub fn out(mut self, directory: impl Into<PathBuf>) -> Self {
        self.out = Some(directory.into());
        self
    }

    /// Memory as QEMU writes it: `6G`.
    #[must_use]
    pub fn memory(mut self, size: &str) -> Self {
        self.memory = Some(size.to_owned());
        self
    }

    /// A variable for the command.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the command and returns its standard output with its error output in between, and its
    /// exit status: 124 when `limit` was over, 125 when the lab itself failed.
    ///
    /// # Errors
    /// The script can't be started.
    pub fn run(&self, command: &[&str], limit: Duration) -> std::io::Result<Output> {
        let mut run = Command::new(script());
        run.arg("--timeout").arg(limit.as_secs().to_string());
        if let Some(out) = &self.out {
            run.arg("--out").arg(out);
        }
        if let Some(memory) = &self.memory {
            run.arg("--memory").arg(memory);
        }
        for (name, value) in &self.environment {
            run.arg("--env").arg(format!("{name}={value}"));
        }
        run.arg("--").args(command).stdin(Stdio::null()).output()
    }
}

/// Why this machine can't run a lab, in the script's words, or `None`.
#[must_use]
pub fn missing() -> Option<String> {
    let output = match Command::new(script())
        .arg("--check")
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) => output,
        Err(error) => return Some(format!("{}: {error}", script().display())),
    };
    (!output.status.success()).then(|| {
        let text = String::from_utf8_lossy(&output.stderr);
        text.trim().trim_start_matches("lab: ").replace('\n', "; ")
    })
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/run")
}
