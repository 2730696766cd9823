//! `knest vm` with guests of a few bytes under the real Cloud Hypervisor and this machine's KVM: what a
//! user types, what is killed, what fills up, and what is left of it.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

#[path = "../../vmm/tests/support/guest.rs"]
mod guest;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fs_err as fs;
use guest::Guest;
use knest_tests::env::program;
use knest_tests::{Env, Snapshot, need, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// An environment with guests in it, and the machine as it was before any ran.
struct Bench {
    env: Env,
    snapshot: Snapshot,
}

impl Bench {
    fn new() -> Self {
        Self::of(Env::new())
    }

    fn of(env: Env) -> Self {
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

    fn vm(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.knest(["vm"]);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.vm(arguments).output().expect("knest starts")
    }

    /// What succeeds, and its standard output.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    /// What fails with this exit code, and its standard error.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        error
    }

    /// Makes a VM that runs detached.
    fn run(&self, guest: Guest, name: &str, more: &[&str]) {
        let kernel = format!("{guest:?}");
        let arguments = ["run", "--kernel", &kernel, "--memory", "64Mi", "--detach"];
        let named = self.ok(&[&arguments[..], &["--name", name], more].concat());
        assert_eq!(named, format!("{name}\n"));
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.vm(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("knest starts")
    }

    fn state(&self, name: &str) -> String {
        let info = self.json(&["info", name]);
        info["state"].as_str().unwrap_or_default().to_owned()
    }

    fn until_state(&self, name: &str, state: &str) {
        wait::until(state, LIMIT, POLL, || {
            let found = self.state(name);
            if found == state { Ok(()) } else { Err(found) }
        });
    }

    fn until_logged(&self, name: &str, text: &str) {
        wait::until(text, LIMIT, POLL, || {
            let log = self.ok(&["logs", name]);
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.env.state().join("knest/vms").join(name)
    }

    /// Kills a process that `info` names, and returns its number.
    fn kill(&self, name: &str, whom: &str) -> i64 {
        let info = self.json(&["info", name]);
        let pid = info[whom].as_i64().expect("a process");
        kill(pid);
        pid
    }

    fn nothing_left(&self) {
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
fn kill(pid: i64) {
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

/// A failed test leaves no VM behind.
impl Drop for Bench {
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

#[test]
fn a_whole_life() {
    need!(Vm);
    let bench = Bench::new();
    assert_eq!(bench.json(&["list"]), Value::Array(vec![]));
    bench.run(Guest::Spin, "demo", &["--cpus", "1"]);
    bench.until_logged("demo", "S\n");
    let list = bench.json(&["list"]);
    assert_eq!(list[0]["name"], "demo", "{list}");
    assert_eq!(list[0]["state"], "running", "{list}");
    assert!(bench.ok(&["list"]).contains("running   1      64Mi"));
    let info = bench.json(&["info", "demo"]);
    assert_eq!(info["vmInfo"]["state"], "Running", "{info}");
    assert!(
        bench
            .ok(&["info", "demo"])
            .contains("State          running\n")
    );

    bench.ok(&["api", "demo", "PUT", "vm.pause"]);
    assert_eq!(bench.state("demo"), "paused");
    let error = bench.fails(2, &["api", "demo", "PUT", "/api/v1/vm.pause"]);
    assert!(error.contains("Paused"), "{error}");
    bench.ok(&["api", "demo", "put", "vm.resume"]);
    let ping: Value =
        serde_json::from_str(&bench.ok(&["api", "demo", "GET", "vmm.ping"])).expect("JSON");
    assert_eq!(ping["pid"], info["pid"], "{ping}");
    let error = bench.fails(2, &["run", "--kernel", "Spin", "--name", "demo"]);
    assert!(error.contains("there is a VM demo already"), "{error}");

    bench.ok(&["reboot", "demo"]);
    bench.until_logged("demo", "S\nS\n");
    wait::until("the event", LIMIT, POLL, || {
        let events = bench.ok(&["events", "demo", "-o", "json"]);
        let all: Vec<Value> = events
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let rebooted = all.iter().any(|event| event["event"] == "rebooted");
        if rebooted { Ok(()) } else { Err(events) }
    });
    assert_eq!(bench.json(&["info", "demo"])["reboots"], 1);
    let error = bench.fails(2, &["remove", "demo"]);
    assert!(error.contains("stop it first"), "{error}");

    // It never looks at its power button.
    let stopped = bench.json(&["stop", "demo", "--timeout", "1s"]);
    assert_eq!(stopped["by"], "vmm.shutdown", "{stopped}");
    assert_eq!(bench.state("demo"), "ended");
    for verb in ["reboot", "console"] {
        let error = bench.fails(2, &[verb, "demo"]);
        assert!(error.contains("it is powered off"), "{error}");
    }
    assert_eq!(bench.json(&["stop", "demo"])["by"], Value::Null);
    bench.ok(&["start", "demo"]);
    bench.until_logged("demo", "S\nS\nS\n");
    bench.ok(&["remove", "--force", "demo"]);
    bench.ok(&["remove", "demo"]);
    bench.nothing_left();
}

#[test]
fn what_follows_a_vm_ends_with_it() {
    need!(Vm);
    let bench = Bench::new();
    bench.run(Guest::Spin, "demo", &[]);
    let follow = [
        bench.start(&["logs", "-f", "demo"]),
        bench.start(&["events", "-f", "demo"]),
        bench.start(&["console", "demo"]),
        bench.start(&["console", "demo"]),
    ];
    // The second one types what nobody reads.
    let mut typing = bench.vm(&["console", "demo"]);
    let mut typing = typing
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("knest");
    let mut keys = typing.stdin.take().expect("a pipe");
    keys.write_all(b"ls\r").expect("typing");
    bench.ok(&["reboot", "demo"]);
    bench.until_logged("demo", "S\nS\n");
    bench.ok(&["stop", "demo", "--force"]);
    drop(keys);
    let mut told = Vec::new();
    for child in follow.into_iter().chain([typing]) {
        let output = child.wait_with_output().expect("its output");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        told.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    assert_eq!(told[0], "S\nS\n");
    assert!(
        told[1].contains("rebooted\n") && told[1].contains("vmm-shutdown\n"),
        "{}",
        told[1]
    );
    bench.ok(&["remove", "demo"]);
    bench.nothing_left();
}

#[test]
fn a_supervisor_that_is_killed_is_replaced() {
    need!(Vm);
    let bench = Bench::new();
    let shared = bench.env.home().join("shared");
    fs::create_dir(&shared).expect("a directory");
    let share = format!("{}:files", shared.display());
    let root = rustix::process::geteuid().is_root();
    let more: &[&str] = match program("virtiofsd") {
        Some(_) if root => &["--share", &share],
        _ => &[],
    };
    bench.run(Guest::Spin, "demo", more);
    let before = bench.json(&["info", "demo"]);
    let killed = bench.kill("demo", "supervisor");
    let after = bench.json(&["info", "demo"]);
    assert_eq!(after["state"], "running", "{after}");
    assert_eq!(after["pid"], before["pid"], "{after}");
    assert_ne!(after["supervisor"], killed, "{after}");
    // With a share and nobody who keeps its listener, Cloud Hypervisor would be deaf for a minute.
    for _ in 0..2 {
        bench.ok(&["reboot", "demo"]);
    }
    assert_eq!(bench.state("demo"), "running");
    let console = bench.start(&["console", "demo"]);
    bench.kill("demo", "supervisor");
    // Its console ends, the VM does not.
    assert!(
        console
            .wait_with_output()
            .expect("its output")
            .status
            .success()
    );
    let stopped = bench.json(&["stop", "demo", "--force"]);
    assert_eq!(stopped["by"], "vmm.shutdown", "{stopped}");
    bench.ok(&["remove", "demo"]);
    bench.nothing_left();
}

#[test]
fn the_end_of_cloud_hypervisor_is_reported() {
    need!(Vm);
    let bench = Bench::new();
    let arguments = [
        "run", "--kernel", "Spin", "--memory", "64Mi", "--name", "demo",
    ];
    let run = bench.start(&arguments);
    wait::until("it runs", LIMIT, POLL, || {
        if bench.directory("demo").join("run.json").exists() {
            return Ok(());
        }
        Err("nothing")
    });
    bench.until_state("demo", "running");
    bench.kill("demo", "pid");
    let output = run.wait_with_output().expect("its output");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(error.contains("signal 9 (SIGKILL)"), "{error}");
    assert_eq!(bench.state("demo"), "failed");
    assert!(bench.ok(&["info", "demo"]).contains("SIGKILL"));

    // Both at once: the next look knows no more than that it is over.
    bench.ok(&["start", "demo"]);
    bench.kill("demo", "supervisor");
    let pid = fs::read_to_string(bench.directory("demo").join("run.json")).expect("its state");
    let run: Value = serde_json::from_str(&pid).expect("JSON");
    kill(run["process"]["pid"].as_i64().expect("a process"));
    bench.until_state("demo", "failed");
    bench.ok(&["remove", "demo"]);
    bench.nothing_left();

    // With --rm, the next look at anything takes away what nobody watched.
    bench.run(Guest::Spin, "demo", &["--rm"]);
    let pid = bench.json(&["info", "demo"])["pid"].clone();
    bench.kill("demo", "supervisor");
    kill(pid.as_i64().expect("a process"));
    wait::until("its directory is gone", LIMIT, POLL, || {
        let list = bench.json(&["list"]);
        let there = bench.directory("demo").exists();
        if there { Err(list) } else { Ok(()) }
    });
    bench.nothing_left();
}

#[test]
fn a_guest_that_leaves_takes_everything_with_it() {
    need!(Vm);
    let bench = Bench::new();
    let run = ["run", "--rm", "--memory", "64Mi", "--kernel"];
    assert_eq!(bench.ok(&[&run[..], &["Off"]].concat()), "OK\n");
    bench.nothing_left();
    for guest in ["Reset", "TripleFault"] {
        let error = bench.fails(4, &[&run[..], &[guest]].concat());
        assert!(error.contains("rebooted 10 times"), "{guest}: {error}");
        bench.nothing_left();
    }
    // One that is interrupted is stopped.
    let run = bench.start(&[&run[..], &["Ok", "--name", "demo"]].concat());
    bench.until_ready("demo");
    kill_process(Pid::from_child(&run), Signal::INT).expect("a signal");
    // The guest never looks at its power button.
    bench.ok(&["stop", "--force", "demo"]);
    let output = run.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    bench.nothing_left();
}

impl Bench {
    /// A VM that somebody else is making runs.
    fn until_ready(&self, name: &str) {
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
}

#[test]
fn a_guest_that_floods_its_serial_port_fills_no_disk() {
    need!(Vm);
    let bench = Bench::new();
    bench.run(Guest::Spam, "demo", &["--log-size", "256Ki", "--cpus", "1"]);
    let directory = bench.directory("demo");
    let log = directory.join("serial.log");
    wait::until(
        "a second rotation's worth",
        Duration::from_secs(60),
        POLL,
        || {
            let length = log.metadata().map_or(0, |meta| meta.len());
            if length > 450 << 10 {
                Ok(())
            } else {
                Err(length)
            }
        },
    );
    let followed = bench.start(&["logs", "-f", "demo"]);
    wait::until("the rotation", LIMIT, POLL, || {
        let held = logs(&directory)
            .iter()
            .map(|path| blocks(path))
            .sum::<u64>();
        if held < 400 << 10 { Ok(()) } else { Err(held) }
    });
    assert!(logs(&directory).len() > 1);
    bench.ok(&["stop", "demo", "--force"]);
    let output = followed.wait_with_output().expect("its output");
    assert!(output.stdout.len() > 128 << 10 && output.stdout.iter().all(|byte| *byte == b'x'));
    let text = bench.ok(&["logs", "demo"]);
    assert!(text.len() > 64 << 10 && text.bytes().all(|byte| byte == b'x'));
    bench.ok(&["remove", "demo"]);
    bench.nothing_left();
}

fn logs(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let logs = files.filter(|f| f.file_name().to_string_lossy().starts_with("serial.log"));
    logs.map(|file| file.path()).collect()
}

fn blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    path.metadata().map_or(0, |meta| meta.blocks() * 512)
}

#[test]
fn a_full_disk_under_the_log_stops_nothing() {
    need!(Vm, Root);
    let bench = Bench::new();
    let state = bench.env.state();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&state)
        .status();
    assert!(mounted.is_ok_and(|status| status.success()), "mount");
    let mount = Mount(state.clone());
    bench.run(Guest::Spam, "demo", &["--cpus", "1"]);
    // All that is left, so that the log has nowhere to go.
    let mut filler = fs::File::create(state.join("filler")).expect("a file");
    while filler.write_all(&[0; 4096]).is_ok() {}
    assert_eq!(bench.state("demo"), "running");
    bench.ok(&["reboot", "demo"]);
    bench.kill("demo", "supervisor");
    let stopped = bench.output(&["stop", "demo", "--timeout", "1s"]);
    let error = String::from_utf8_lossy(&stopped.stderr);
    assert!(stopped.status.success(), "{error}");
    let state = bench.state("demo");
    assert!(["ended", "failed"].contains(&state.as_str()), "{state}");
    bench.ok(&["remove", "demo"]);
    drop(mount);
    bench.nothing_left();
}

/// A mount that goes with its test.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_network_of_its_own_comes_and_goes() {
    need!(Vm, Root);
    let test = "a_network_of_its_own_comes_and_goes";
    let tun = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if tun.is_err() || program("nft").is_none() || program("ip").is_none() {
        return knest_tests::need::skip(test, "no /dev/net/tun, nft or ip");
    }
    let bench = Bench::new();
    bench.run(Guest::Spin, "demo", &["--net", "user"]);
    let links = || {
        let supervisor = bench.json(&["info", "demo"])["supervisor"].to_string();
        let inside = ["--net", "-t", &supervisor, "ip", "-br", "link"];
        let output = Command::new("nsenter")
            .args(inside)
            .output()
            .expect("nsenter");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let there = links();
    for name in ["knest0", "tap0a"] {
        assert!(there.contains(name), "{there}");
    }
    if program("pasta").is_some() {
        wait::until("the way out", LIMIT, POLL, || {
            let there = links();
            if there.contains("outside") {
                Ok(())
            } else {
                Err(there)
            }
        });
    }
    bench.kill("demo", "supervisor");
    assert!(links().contains("tap0a"), "the same namespace as before");
    bench.ok(&["stop", "demo", "--force"]);
    bench.ok(&["remove", "demo"]);
    bench.nothing_left();
}

/// Who is nobody in particular.
const USER: u32 = 12_345;

#[test]
fn an_ordinary_user_has_vms_and_networks_too() {
    need!(Vm, Root, Images);
    let test = "an_ordinary_user_has_vms_and_networks_too";
    if program("nft").is_none() || program("setpriv").is_none() {
        return knest_tests::need::skip(test, "no nft or setpriv");
    }
    let bench = Bench::of(Env::new().owned_by(USER));
    bench.run(Guest::Spin, "demo", &["--net", "user"]);
    bench.until_logged("demo", "S\n");
    bench.kill("demo", "supervisor");
    bench.ok(&["reboot", "demo"]);
    bench.until_logged("demo", "S\nS\n");
    assert_eq!(bench.state("demo"), "running");
    bench.ok(&["stop", "demo", "--force"]);
    bench.ok(&["remove", "demo"]);
    bench.nothing_left();
}

#[test]
fn a_terminal_joins_the_console_and_leaves_it() {
    need!(Vm);
    let test = "a_terminal_joins_the_console_and_leaves_it";
    if program("script").is_none() {
        return knest_tests::need::skip(test, "no script(1), which makes a terminal");
    }
    let bench = Bench::new();
    let knest = knest_tests::env::knest();
    let line = format!(
        "{} vm run --kernel Spin --memory 64Mi --name demo",
        knest.display()
    );
    let mut terminal = bench
        .env
        .command("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script");
    let mut screen = terminal.stdout.take().expect("a pipe");
    let mut seen = Vec::new();
    let mut piece = [0; 256];
    while !String::from_utf8_lossy(&seen).contains("Ctrl-] leaves it") {
        let size = screen.read(&mut piece).expect("its screen");
        assert!(size > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend(&piece[..size]);
    }
    // Joined once Ctrl-C is the guest's: then it ends nothing.
    bench.until_ready("demo");
    let mut keys = terminal.stdin.take().expect("a pipe");
    keys.write_all(b"\x03\x1d").expect("typing");
    screen.read_to_end(&mut seen).expect("its screen");
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(terminal.wait().expect("its end").success(), "{seen}");
    assert!(seen.contains("VM demo goes on"), "{seen}");
    assert_eq!(bench.state("demo"), "running");
    bench.ok(&["remove", "--force", "demo"]);
    bench.nothing_left();
}

/// What the error has to name, and the arguments.
const REFUSED: &[(&str, &[&str])] = &[
    ("Demo", &["run", "x", "--name", "Demo"]),
    ("IMAGE|DISK", &["run"]),
    (
        "cannot be used with",
        &["run", "x", "--console", "--detach"],
    ),
    ("0", &["run", "--kernel", "Off", "--cpus", "0"]),
    ("1Mi", &["run", "--kernel", "Off", "--memory", "1Mi"]),
    ("1 GB", &["run", "--kernel", "Off", "--memory", "1 GB"]),
    ("4Ki", &["run", "--kernel", "Off", "--log-size", "4Ki"]),
    ("./none.img", &["run", "./none.img"]),
    ("/none/kernel", &["run", "--kernel", "/none/kernel"]),
    ("is no file", &["run", "--kernel", "/"]),
    (
        "initramfs",
        &["run", "--kernel", "Off", "--initramfs", "/none"],
    ),
    (
        "neither a file",
        &["run", "--kernel", "Off", "--disk", "/tmp"],
    ),
    ("FILE,ro", &["run", "--kernel", "Off", "--disk", ",ro"]),
    ("tap=NAME", &["run", "--kernel", "Off", "--net", "bridge"]),
    (
        "no TAP nowhere0",
        &["run", "--kernel", "Off", "--net", "tap=nowhere0"],
    ),
    ("no TAP lo", &["run", "--kernel", "Off", "--net", "tap=lo"]),
    (
        "DIRECTORY:TAG",
        &["run", "--kernel", "Off", "--share", "/tmp"],
    ),
    ("/none", &["run", "--kernel", "Off", "--share", "/none:tag"]),
    (
        "not a directory",
        &["run", "--kernel", "Off", "--share", "./Off:tag"],
    ),
    (
        "two shares",
        &[
            "run", "--kernel", "Off", "--share", "/tmp:t", "--share", "/usr:t",
        ],
    ),
    (
        "user-data",
        &["run", "--kernel", "Off", "--cloud-init", "/none"],
    ),
    ("not an image reference", &["run", "no such image"]),
    ("there is no VM", &["info", "nowhere"]),
    ("there is no VM", &["console", "nowhere"]),
    ("there is no VM", &["logs", "nowhere"]),
    ("there is no VM", &["events", "nowhere"]),
    ("there is no VM", &["stop", "nowhere"]),
    ("there is no VM", &["start", "nowhere"]),
    ("there is no VM", &["reboot", "nowhere"]),
    ("there is no VM", &["api", "nowhere", "GET", "vm.info"]),
    ("no call", &["api", "nowhere", "GET", "vm.teleport"]),
    ("called with GET", &["api", "nowhere", "PUT", "vm.info"]),
    ("not JSON", &["api", "nowhere", "PUT", "vm.resize", "{"]),
    ("forever", &["stop", "nowhere", "--timeout", "forever"]),
];

#[test]
fn what_cannot_be_met_as_put_is_refused_and_named() {
    let bench = Bench::new();
    let mut wrong = Vec::new();
    for (named, arguments) in REFUSED {
        let output = bench.output(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(2) || !error.contains(named) || !output.stdout.is_empty() {
            let line = arguments.join(" ");
            wrong.push(format!("knest vm {line}: {}: {error}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bench.nothing_left();
}

#[test]
fn what_cloud_hypervisor_refuses_leaves_nothing() {
    need!(Vm);
    let bench = Bench::new();
    fs::write(bench.env.home().join("text"), "no kernel at all").expect("a file");
    fs::write(bench.env.home().join("disk"), vec![0; 1 << 20]).expect("a disk");
    let run = ["run", "--memory", "64Mi", "--detach", "--kernel"];
    let error = bench.fails(4, &[&run[..], &["text"]].concat());
    assert!(error.contains("vm.boot was refused"), "{error}");
    bench.nothing_left();
    let with_disk = ["Spin", "--disk", "./disk", "--name"];
    bench.ok(&[&run[..], &with_disk, &["first"]].concat());
    let error = bench.fails(3, &[&run[..], &with_disk, &["second"]].concat());
    assert!(error.contains("another VM has that disk"), "{error}");
    assert_eq!(bench.json(&["list"]).as_array().map(Vec::len), Some(1));
    bench.ok(&["remove", "--force", "first"]);
    bench.nothing_left();
}
