//! Runs a command in the lab (`tests/lab/run`): a software-emulated host with nested SVM, where
//! the real Cloud Hypervisor boots a stock kernel whatever this machine's KVM can do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::alone;

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

/// Whether this is the lab.
#[must_use]
pub fn inside() -> bool {
    std::env::var_os("LAB").is_some()
}

/// How often a lab is booted when what ends it is QEMU's doing and says nothing of knest: its emulated host
/// stands still, or its emulation of nested virtualization loses the guest's state.
const BOOTS: usize = 3;
/// Cloud Hypervisor's words for the second.
const LOST: &str = "Guest likely triple-faulted";

/// Boots the lab with the calling test itself as its command. Its steps' times, and what it kept for
/// reading, come back from there. Panics with all that it said unless it passed.
pub fn run_this_test(test: &str, limit: Duration) {
    run_this_test_with(test, limit, &[]);
}

/// The same with more variables: what this machine made for the test there.
pub fn run_this_test_with(test: &str, limit: Duration, variables: &[(&str, &Path)]) {
    let _turn = alone();
    let this = std::env::current_exe().expect("this test");
    let this = this.to_str().expect("a path in UTF-8");
    let knest = crate::env::knest();
    for boot in 1.. {
        let out = tempfile::tempdir().expect("a temporary directory");
        let mut lab = Lab::new()
            .out(out.path())
            .env("KNEST_BIN", knest.to_str().expect("a path in UTF-8"))
            .env("KNEST_TIMINGS", "/run/lab/out/timings")
            .env("KNEST_TEST_KEEP", "/run/lab/out/kept");
        for (name, path) in variables {
            lab = lab.env(name, path.to_str().expect("a path in UTF-8"));
        }
        let output = lab.run(&[this, "--exact", test, "--nocapture"], limit);
        let output = output.expect("the lab");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let still = output.status.code() == Some(125)
            && stderr.contains("lab: the emulated host stands still");
        let lost = !output.status.success()
            && (stdout.contains(LOST) || stderr.contains(LOST) || says(out.path(), LOST));
        if (still || lost) && boot < BOOTS {
            let what = if still {
                "host stood still"
            } else {
                "guest was lost"
            };
            println!("{test}: the lab's {what}; it is booted again");
            continue;
        }
        let timings = std::fs::read_to_string(out.path().join("timings")).unwrap_or_default();
        crate::timing::record(&timings);
        if !output.status.success() {
            keep(&out.path().join("kept"), test);
            panic!("in the lab: {}\n{stdout}\n{stderr}", output.status);
        }
        return;
    }
}

/// Whether a file below a directory has this in it.
fn says(directory: &Path, words: &str) -> bool {
    let mut grep = Command::new("grep");
    grep.args(["-rqF", words]).arg(directory);
    grep.status().is_ok_and(|status| status.success())
}

/// Saves what the lab kept from the temporary directory that goes with this test.
fn keep(kept: &Path, test: &str) {
    let Some(to) = std::env::var_os("KNEST_TEST_KEEP").map(PathBuf::from) else {
        return;
    };
    let to = to.join(test);
    let copied = Command::new("cp").arg("-r").arg(kept).arg(&to).status();
    println!(
        "kept for reading, from the lab: {} ({copied:?})",
        to.display()
    );
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
