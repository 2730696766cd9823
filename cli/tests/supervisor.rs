//! The supervisor for real: namespaces, bridge, TAPs, QEMU and Cloud Hypervisor, with guests of a
//! few instructions. The state directory is written by hand, as `create` would have left it.
#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]
#![expect(clippy::tests_outside_test_module, reason = "this file is one")]

#[expect(
    dead_code,
    reason = "shared with knest-vmm's tests, which use all of its guests"
)]
#[path = "../../vmm/tests/support/guest.rs"]
mod guest;
#[path = "../../vmm/tests/support/skip.rs"]
mod skip;

use guest::{Guest, elf};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const KNEST: &str = env!("CARGO_BIN_EXE_knest");
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    root: tempfile::TempDir,
    supervisor: Option<Child>,
}

impl Cluster {
    /// A cluster's directory with these machines in it, by name and VMM.
    fn new(machines: &[(&str, &str)]) -> Self {
        let root = tempfile::Builder::new().prefix("knest").tempdir().unwrap();
        let cluster = Self {
            root,
            supervisor: None,
        };
        let kernel = cluster.root.path().join("guest");
        fs_err::write(&kernel, elf(Guest::Ok)).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let size = json!({
            "count": 1, "cpuCores": 1, "memory": "128Mi", "rootfsSize": "1Gi",
            "kernelImage": "kernel", "rootfsImage": "node",
        });
        let record = json!({
            "version": 1,
            "spec": {
                "name": "demo",
                "kubernetesVersion": "v1.37.2",
                "network": {"podCidr": "10.244.0.0/16", "serviceCidr": "10.112.0.0/16"},
                "controlPlane": size, "worker": size,
                "provider": {"kind": "local", "vmm": "qemu", "nodeCidr": "10.64.0.0/24"},
            },
            "phase": "Creating",
            "created": "2026-01-01T00:00:00Z",
            "endpoint": {
                "inside": "10.64.0.1:6443", "outside": format!("127.0.0.1:{port}"), "certSans": [],
            },
            "pki": null, "bootstrapToken": null, "nodes": [], "nextNumber": {}, "kubeconfig": null,
        });
        for (index, (name, vmm)) in machines.iter().enumerate() {
            let dir = cluster.machine(name);
            fs_err::create_dir_all(&dir).unwrap();
            for disk in ["disk.raw", "seed.img"] {
                fs_err::File::create(dir.join(disk))
                    .unwrap()
                    .set_len(1 << 20)
                    .unwrap();
            }
            let number = 10 + index;
            let machine = json!({
                "version": 1, "name": name, "role": "control-plane", "vmm": vmm, "cpus": 1,
                "memory": 128 << 20, "address": format!("10.64.0.{number}"),
                "mac": format!("02:6b:0a:40:00:{number:02x}"), "kernel": &kernel,
                "disk": {"file": "disk.raw", "format": "raw"}, "sealed": false,
            });
            fs_err::write(dir.join("machine.json"), machine.to_string()).unwrap();
        }
        fs_err::write(cluster.dir().join("record.json"), record.to_string()).unwrap();
        cluster
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("state/knest/clusters/demo")
    }

    fn machine(&self, name: &str) -> PathBuf {
        self.dir().join("machines").join(name)
    }

    fn knest(&self, args: &[&str]) -> Command {
        let mut command = Command::new(KNEST);
        command
            .args(args)
            .env("HOME", self.root.path())
            .env("XDG_STATE_HOME", self.root.path().join("state"))
            .env("KUBECONFIG", self.root.path().join("kubeconfig"))
            .stdin(Stdio::null());
        command
    }

    /// Starts a supervisor as `create` does, and waits for its first answer.
    fn supervise(&mut self) {
        let log = fs_err::File::create(self.dir().join("supervisor.log"))
            .unwrap()
            .into_file();
        let mut command = self.knest(&["supervise", "--cluster", "demo"]);
        command
            .env("KNEST_CLUSTER_DIRECTORY", self.dir())
            .stdout(Stdio::null())
            .stderr(log);
        self.supervisor = Some(command.spawn().unwrap());
        let log = || fs_err::read_to_string(self.dir().join("supervisor.log")).unwrap_or_default();
        eventually(log, || {
            self.ask(&json!({"version": 1, "op": "status"})).is_some()
        });
    }

    fn kill_supervisor(&mut self) {
        let mut child = self.supervisor.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// One line there and one back; `None` if nobody answers.
    fn ask(&self, request: &Value) -> Option<Value> {
        let mut stream = UnixStream::connect(self.dir().join("supervisor.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn done(&self, request: Value) {
        let answer = self.ask(&request).unwrap();
        assert!(answer.get("done").is_some(), "{request}: {answer}");
    }

    fn run(&self, name: &str) -> Value {
        let text = fs_err::read_to_string(self.machine(name).join("run.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn vmm(&self, name: &str) -> u64 {
        let run = self.run(name);
        run["process"]["pid"]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} does not run: {run}"))
    }

    /// Waits until the guest has written its line.
    fn greeted(&self, name: &str) {
        let dir = self.machine(name);
        let read = |file: &str| fs_err::read_to_string(dir.join(file)).unwrap_or_default();
        eventually(
            || format!("{name}: {}", read("vmm.log")),
            || read("serial.log").contains("OK"),
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Whatever a failed test left.
        self.knest(&["delete", "demo"]).output().ok();
        if let Some(mut child) = self.supervisor.take() {
            child.wait().ok();
        }
    }
}

fn eventually(evidence: impl Fn() -> String, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not so in time: {}", evidence());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn lives(pid: u64) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The VMMs that this machine can run tiny guests on; empty, with the reason said, if none.
fn vmms(test: &str) -> Vec<(&'static str, &'static str)> {
    let output = Command::new(KNEST)
        .args(["doctor", "-o", "json"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let found = |name: &str| {
        let checks = report["checks"].as_array().into_iter().flatten();
        checks
            .into_iter()
            .find(|c| c["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    let ok = |name: &str| found(name)["grade"] == "ok";
    let mut vmms = vec![];
    if ok("network") && ok("nft") {
        if ok("qemu") && Path::new("/usr/share/qemu").exists() {
            vmms.push(("demo-q", "qemu"));
        }
        let kvm = ok("kvm")
            || found("kvm")["found"]
                .as_str()
                .is_some_and(|f| f.contains("usable"));
        if ok("cloud-hypervisor") && kvm {
            vmms.push(("demo-c", "cloud-hypervisor"));
        }
    }
    if vmms.is_empty() {
        skip(
            test,
            &format!(
                "no VMM here, or no network of this user's own ({})",
                report["reason"]
            ),
        );
    }
    vmms
}

/// A skip, unless what is missing was required.
fn skip(test: &str, reason: &str) {
    let required = std::env::var("KNEST_REQUIRE").unwrap_or_default();
    let must = required
        .split(',')
        .any(|need| ["vm", "cluster", "all"].contains(&need.trim()));
    assert!(!must, "KNEST_REQUIRE={required}, but SKIP {test}: {reason}");
    skip::skip(test, reason);
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn machines_outlive_their_supervisor_and_leave_nothing() {
    let machines = vmms("machines_outlive_their_supervisor_and_leave_nothing");
    if machines.is_empty() {
        return;
    }
    let names: Vec<&str> = machines.iter().map(|(name, _)| *name).collect();
    let mut cluster = Cluster::new(&machines);
    cluster.supervise();
    cluster.done(json!({"version": 1, "op": "start", "machines": names}));
    names.iter().for_each(|name| cluster.greeted(name));
    let vmms: Vec<u64> = names.iter().map(|name| cluster.vmm(name)).collect();

    cluster.kill_supervisor();
    assert!(
        vmms.iter().all(|pid| lives(*pid)),
        "VMMs ended with their supervisor"
    );
    cluster.supervise();
    cluster.done(json!({"version": 1, "op": "start", "machines": names}));
    let again: Vec<u64> = names.iter().map(|name| cluster.vmm(name)).collect();
    assert_eq!(again, vmms, "what runs is found again, not started anew");

    // A crash is known with its reason, though the VMM is another supervisor's child.
    let pid = rustix::process::Pid::from_raw(i32::try_from(vmms[0]).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually(
        || cluster.run(names[0]).to_string(),
        || cluster.run(names[0])["state"] == "ended",
    );
    let ended = cluster.run(names[0]);
    assert_eq!(ended["clean"], false);
    assert!(
        ended["reason"].as_str().unwrap().contains("ended"),
        "{ended}"
    );

    cluster.done(json!({"version": 1, "op": "start", "machines": [names[0]]}));
    let anew = cluster.vmm(names[0]);
    assert_ne!(anew, vmms[0]);
    cluster.done(json!({"version": 1, "op": "remove", "machines": [names[0]]}));
    assert!(!lives(anew));

    let deleted = cluster.knest(&["delete", "demo"]).output().unwrap();
    assert!(
        deleted.status.success(),
        "{}",
        String::from_utf8_lossy(&deleted.stderr)
    );
    assert!(vmms.iter().all(|pid| !lives(*pid)));
    let status = cluster.supervisor.take().unwrap().wait().unwrap();
    assert!(status.success(), "told to stop, it ends well: {status}");
    assert!(!cluster.dir().exists());
}

#[test]
fn whatever_is_left_of_a_killed_cluster_is_cleared_up() {
    let machines = vmms("whatever_is_left_of_a_killed_cluster_is_cleared_up");
    if machines.is_empty() {
        return;
    }
    let names: Vec<&str> = machines.iter().map(|(name, _)| *name).collect();
    let mut cluster = Cluster::new(&machines);
    cluster.supervise();
    cluster.done(json!({"version": 1, "op": "start", "machines": names}));
    let vmms: Vec<u64> = names.iter().map(|name| cluster.vmm(name)).collect();
    cluster.kill_supervisor();
    // As if it had been killed between starting a VMM and writing it down.
    fs_err::write(
        cluster.machine(names[0]).join("run.json"),
        json!({"state": "starting"}).to_string(),
    )
    .unwrap();
    fs_err::write(cluster.dir().join("network.json"), "{").unwrap();
    let deleted = cluster.knest(&["delete", "demo"]).output().unwrap();
    assert!(
        deleted.status.success(),
        "{}",
        String::from_utf8_lossy(&deleted.stderr)
    );
    assert!(vmms.iter().all(|pid| !lives(*pid)), "found by their mark");
    assert!(!cluster.dir().exists());
    let left = cluster.knest(&["list", "-o", "json"]).output().unwrap();
    assert!(!stdout(&left).contains("demo"));
}
