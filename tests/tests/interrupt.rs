//! Creations that are stopped half-way: by Ctrl-C, by a second one, by SIGKILL, by the death of a
//! machine. What is left is nothing, or a record with which the same command goes on. None waits for
//! a Ready node, so these are quick even under emulation.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use knest_tests::{Cluster, Env, Snapshot, images, need, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const NAME: &str = "stopped";
const CREATE: [&str; 4] = ["create", NAME, "--vmm", "qemu"];
const MACHINE: &str = "stopped-control-plane-1";

/// A creation under way, what it says kept in a file.
struct Creation {
    process: Child,
    said: tempfile::NamedTempFile,
}

impl Creation {
    fn begin(cluster: &Cluster) -> Self {
        let said = tempfile::NamedTempFile::new().expect("a file for its words");
        let mut command = cluster.env.knest(CREATE);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(said.path()).expect("a file for its words"));
        let process = command.spawn().expect("knest starts");
        Self { process, said }
    }

    /// Until the machine's kernel or system has said something.
    fn until_booting(&mut self, cluster: &Cluster) {
        let log = machine_dir(cluster).join("serial.log");
        wait::until("the machine boots", Duration::from_secs(120), PAUSE, || {
            let ended = self.process.try_wait().expect("the state of knest");
            assert!(ended.is_none(), "ended early: {}", self.words());
            match std::fs::metadata(&log).map_or(0, |m| m.len()) {
                0 => Err(self.words()),
                _ => Ok(()),
            }
        });
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("a signal to knest");
    }

    fn ended(&mut self) -> ExitStatus {
        wait::until("knest ends", Duration::from_secs(60), PAUSE, || {
            self.process.try_wait().ok().flatten().ok_or("it runs")
        })
    }

    fn words(&self) -> String {
        std::fs::read_to_string(self.said.path()).unwrap_or_default()
    }
}

const PAUSE: Duration = Duration::from_millis(100);

#[test]
fn ctrl_c_takes_back_what_was_made() {
    need!(Cluster);
    let (cluster, snapshot) = nothing_yet();
    let mut creation = Creation::begin(&cluster);
    creation.until_booting(&cluster);
    creation.signal(Signal::INT);
    assert_eq!(creation.ended().code(), Some(130), "{}", creation.words());
    assert!(
        creation.words().contains("Taking back"),
        "{}",
        creation.words()
    );
    cluster.assert_nothing_left(&snapshot);
}

#[test]
fn a_second_signal_leaves_the_record_and_the_same_command_goes_on() {
    need!(Cluster);
    let (cluster, snapshot) = nothing_yet();
    let mut creation = Creation::begin(&cluster);
    creation.until_booting(&cluster);
    // Two of a kind might count as one.
    creation.signal(Signal::INT);
    creation.signal(Signal::TERM);
    assert_eq!(creation.ended().code(), Some(130), "{}", creation.words());
    assert_eq!(phase(&cluster), "Creating");

    let other = [&CREATE[..], &["--worker-machine-count", "1"]].concat();
    let refused = cluster.knest_fails(2, &other);
    assert!(refused.contains("worker.count was 0, now 1"), "{refused}");

    let vmm = vmm_of(&cluster);
    let mut creation = Creation::begin(&cluster);
    wait::until("it goes on", Duration::from_secs(60), PAUSE, || {
        let words = creation.words();
        if words.contains("Waiting for the API server") {
            Ok(())
        } else {
            Err(words)
        }
    });
    assert!(
        creation.words().contains("record (was done)"),
        "{}",
        creation.words()
    );
    assert_eq!(vmm_of(&cluster), vmm, "the machine was left alone");

    creation.signal(Signal::KILL);
    creation.ended();
    assert_eq!(phase(&cluster), "Creating");
    drop(cluster.knest(&["delete", NAME]));
    cluster.assert_nothing_left(&snapshot);
}

#[test]
fn a_machine_that_dies_is_reported_and_taken_back() {
    need!(Cluster);
    let (cluster, snapshot) = nothing_yet();
    let mut creation = Creation::begin(&cluster);
    creation.until_booting(&cluster);
    let vmm = i32::try_from(vmm_of(&cluster)).ok().and_then(Pid::from_raw);
    kill_process(vmm.expect("a process"), Signal::KILL).expect("a signal to the VMM");
    assert_eq!(creation.ended().code(), Some(4), "{}", creation.words());
    let words = creation.words();
    assert!(
        words.contains(&format!("machine {MACHINE} ended")),
        "{words}"
    );
    assert!(words.contains("SIGKILL"), "{words}");
    cluster.assert_nothing_left(&snapshot);
}

/// With the machine's own cache: making disks is another test's.
fn nothing_yet() -> (Cluster, Snapshot) {
    let env = Env::new().with_variable("KNEST_CACHE_DIR", images::cache());
    images::link(&env);
    let snapshot = Snapshot::take(&[env.root()]);
    (Cluster::new(env, NAME), snapshot)
}

fn machine_dir(cluster: &Cluster) -> PathBuf {
    let clusters = cluster.env.state().join("knest/clusters");
    clusters.join(NAME).join("machines").join(MACHINE)
}

fn phase(cluster: &Cluster) -> String {
    let list: Value = serde_json::from_str(&cluster.knest(&["list", "-o", "json"])).expect("JSON");
    list[0]["phase"].as_str().unwrap_or_default().to_owned()
}

/// The number of the machine's VMM process.
fn vmm_of(cluster: &Cluster) -> u64 {
    let text = std::fs::read_to_string(machine_dir(cluster).join("run.json")).expect("run.json");
    let run: Value = serde_json::from_str(&text).expect("JSON");
    run["process"]["pid"].as_u64().expect("a running VMM")
}
