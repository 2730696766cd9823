//! One cluster under test, from outside: `knest` and `kubectl` as a user runs them. Deleted on
//! drop, so a failed test leaves nothing running.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::{Env, Snapshot, images, wait};

/// The cluster and the environment that it is made in.
#[derive(Debug)]
pub struct Cluster {
    /// Its home; everything of the cluster is below it.
    pub env: Env,
    name: &'static str,
}

impl Cluster {
    /// Nothing is made yet: `create` is the test's.
    #[must_use]
    pub fn new(env: Env, name: &'static str) -> Self {
        Self { env, name }
    }

    /// Runs `knest`, whatever comes of it.
    #[must_use]
    pub fn try_knest(&self, arguments: &[&str]) -> Output {
        self.env.knest(arguments).output().expect("knest starts")
    }

    /// Runs `knest`, which has to succeed; returns its standard output.
    #[must_use]
    pub fn knest(&self, arguments: &[&str]) -> String {
        succeeded(
            &format!("knest {}", arguments.join(" ")),
            self.try_knest(arguments),
        )
    }

    /// Runs `knest`, which has to fail with this exit code; returns its error output.
    #[must_use]
    pub fn knest_fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.try_knest(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "knest {}: {text}",
            arguments.join(" ")
        );
        text
    }

    /// Runs `kubectl` on the cluster, through the kubeconfig that `create` merged.
    #[must_use]
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command()
            .args(arguments)
            .output()
            .expect("kubectl starts")
    }

    /// Runs `kubectl`, which has to succeed.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(
            &format!("kubectl {}", arguments.join(" ")),
            self.try_kubectl(arguments),
        )
    }

    /// What `kubectl get … -o json` answers.
    #[must_use]
    pub fn get(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat());
        serde_json::from_str(&text).expect("kubectl's JSON")
    }

    /// Polls `kubectl` until `done` says `Ok` of its answer; a failing `kubectl` is polled again.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        arguments: &[&str],
        done: impl Fn(&Value) -> Result<(), String>,
    ) {
        wait::until(what, limit, Duration::from_secs(1), || {
            let output = self.try_kubectl(&[&["get", "-o", "json"], arguments].concat());
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
            let answer = serde_json::from_slice(&output.stdout);
            done(&answer.map_err(|error| error.to_string())?)
        });
    }

    /// Panics unless the machine is as in `snapshot`, and no cluster is left in the environment.
    /// Disks in its cache, kubectl's own cache and the directories that held clusters may stay.
    pub fn assert_nothing_left(&self, snapshot: &Snapshot) {
        let (kube, state) = (
            self.env.home().join(".kube"),
            self.env.state().join("knest"),
        );
        let limit = Duration::from_secs(20);
        snapshot.assert_nothing_left(limit, &[&self.env.cache(), &kube, &state]);
        let clusters = state.join("clusters").read_dir();
        let left: Vec<_> = clusters.into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn kubectl_command(&self) -> Command {
        let mut command = self.env.command(images::kubectl().expect("a kubectl"));
        let context = format!("knest-{}", self.name);
        command.args(["--request-timeout", "30s", "--context", &context]);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.env.keep();
        }
        drop(self.env.knest(["delete", self.name]).output());
    }
}

fn succeeded(what: &str, output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    assert!(
        status.success(),
        "{what}: {status}\n{}{}",
        text(&stdout),
        text(&stderr)
    );
    text(&stdout)
}
