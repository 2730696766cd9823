//! `knest vm` with guests of a few bytes under the real Cloud Hypervisor and this machine's KVM: an
//! environment with the guests in it, by name, and what tests do there again and again.

#[path = "../../vmm/tests/support/guest.rs"]
mod guest;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fs_err as fs;
use guest::Guest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Env, Snapshot, wait};

/// How long anything may take that a user does not wait for.
pub const LIMIT: Duration = Duration::from_secs(30);
/// How often is looked.
pub const POLL: Duration = Duration::from_millis(20);

/// An environment with guests in it (files in its home, which is where commands run, named as
/// knest-vmm's tests name them: `Ok`, `Off`, `Spin`, …), and the machine as it was before any ran. A
/// failed test leaves no VM behind.
#[derive(Debug)]
pub struct Vms {
    /// The environment.
    pub env: Env,
    snapshot: Snapshot,
}

impl Default for Vms {
    fn default() -> Self {
        Self::new()
    }
}

impl Vms {
    /// In an environment of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Env::new())
    }

    /// In this one.
    #[must_use]
    pub fn of(env: Env) -> Self {
        let all = [
            Guest::Ok,
            Guest::Off,
            Guest::Reset,
            Guest::Spin,
            Guest::Spam,
            Guest::TripleFault,
        ];
        for guest in all {
            let path = env.home().join(format!("{guest:?}"));
            fs::write(path, guest::elf(guest)).expect("a guest");
        }
        let snapshot = Snapshot::take(&[env.root()]);
        Self { env, snapshot }
    }

    /// `knest vm ARGUMENTS…`, that reads nothing.
    #[must_use]
    pub fn vm(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.knest(["vm"]);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// What it came to.
    #[must_use]
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.vm(arguments).output().expect("knest starts")
    }

    /// What succeeds, and its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, and its answer.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    /// What fails with this exit code, and its standard error.
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        error
    }

    /// Makes a VM that runs detached.
    pub fn run(&self, guest: &str, name: &str, more: &[&str]) {
        let arguments = ["run", "--kernel", guest, "--memory", "64Mi", "--detach"];
        let named = self.ok(&[&arguments[..], &["--name", name], more].concat());
        assert_eq!(named, format!("{name}\n"));
    }

    /// Begins `knest vm ARGUMENTS…`, whose output can be read.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.vm(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("knest starts")
    }

    /// What `info` says of it.
    #[must_use]
    pub fn state(&self, name: &str) -> String {
        let info = self.json(&["info", name]);
        info["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits for a state.
    pub fn until_state(&self, name: &str, state: &str) {
        wait::until(state, LIMIT, POLL, || {
            let found = self.state(name);
            if found == state { Ok(()) } else { Err(found) }
        });
    }

    /// Waits until its log has this text.
    pub fn until_logged(&self, name: &str, text: &str) {
        wait::until(text, LIMIT, POLL, || {
            let log = self.ok(&["logs", name]);
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    }

    /// Where all of it is.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        self.env.state().join("knest/vms").join(name)
    }

    /// A VM that somebody else is making runs.
    pub fn until_ready(&self, name: &str) {
        wait::until("it runs", LIMIT, POLL, || {
            let list = self.json(&["list"]);
            let found = list
                .as_array()
                .into_iter()
                .flatten()
                .any(|vm| vm["name"] == name && vm["state"] == "running");
            if found { Ok(()) } else { Err(list) }
        });
    }

    /// Kills a process that `info` names, and returns its number.
    pub fn kill(&self, name: &str, whom: &str) -> i64 {
        let info = self.json(&["info", name]);
        let pid = info[whom].as_i64().expect("a process");
        kill(pid);
        pid
    }

    /// Asserts that no VM, process, device or file of any is left.
    pub fn nothing_left(&self) {
        let all = [self.env.home(), self.env.cache(), self.env.data()];
        let vms = self.env.state().join("knest/vms");
        if vms.exists() {
            fs::remove_dir(&vms).expect("no VM's directory is left");
        }
        let mut allowed: Vec<&Path> = all.iter().map(PathBuf::as_path).collect();
        let state = self.env.state();
        allowed.push(&state);
        self.snapshot.assert_nothing_left(LIMIT, &allowed);
    }
}

/// Kills a process and waits until it is dead, reaped or not.
pub fn kill(pid: i64) {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(raw.expect("a process"), Signal::KILL).expect("a signal");
    wait::until("its death", LIMIT, Duration::from_millis(1), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map_or("Z", |(_, rest)| rest);
        if state.starts_with(['Z', 'X']) {
            Ok(())
        } else {
            Err(stat)
        }
    });
}

impl Drop for Vms {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.env.keep();
            let vms = fs::read_dir(self.env.state().join("knest/vms")).into_iter();
            for vm in vms.flatten().flatten() {
                let name = vm.file_name().into_string().unwrap_or_default();
                drop(self.vm(&["remove", "--force", &name]).output());
            }
        }
    }
}
