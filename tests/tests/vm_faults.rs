//! `knest vm` with guests of a few bytes: what is refused, what is killed, what fills up, and what is left
//! of it, which is nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use knest_tests::vms::{LIMIT, POLL, kill};
use knest_tests::{Vms, need, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn the_end_of_cloud_hypervisor_is_reported() {
    need!(Vm);
    let bench = Vms::new();
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
    bench.run("Spin", "demo", &["--rm"]);
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
    let bench = Vms::new();
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

#[test]
fn a_guest_that_floods_its_serial_port_fills_no_disk() {
    need!(Vm);
    let bench = Vms::new();
    bench.run("Spam", "demo", &["--log-size", "256Ki", "--cpus", "1"]);
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
    let bench = Vms::new();
    let state = bench.env.state();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&state)
        .status();
    assert!(mounted.is_ok_and(|status| status.success()), "mount");
    let mount = Mount(state.clone());
    bench.run("Spam", "demo", &["--cpus", "1"]);
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

/// What the error has to name, and the arguments.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "--max-cpus 1 is less than --cpus 2",
        &["run", "--kernel", "Spin", "--max-cpus", "1"],
    ),
    (
        "--max-memory 512Mi is less than --memory 1Gi",
        &["run", "--kernel", "Spin", "--max-memory", "512Mi"],
    ),
    (
        "a multiple of 128Mi",
        &["run", "--kernel", "Spin", "--max-memory", "1100Mi"],
    ),
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
    let bench = Vms::new();
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
    let bench = Vms::new();
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

/// What is there once the making of a VM has come this far: a file, and what is in it.
const STAGES: [(&str, &str); 8] = [
    ("lock", ""),
    ("vm.json", ""),
    ("supervisor.json", ""),
    ("api.sock", ""),
    ("events.json", "booting"),
    ("events.json", "booted"),
    ("run.json", "running"),
    ("console.sock", ""),
];

#[test]
fn whoever_makes_a_vm_may_be_killed_at_any_stage() {
    need!(Vm);
    let bench = Vms::new();
    let directory = bench.directory("demo");
    let run = ["run", "--kernel", "Spin", "--memory", "64Mi", "--detach"];
    let run = [&run[..], &["--name", "demo"]].concat();
    for (file, text) in STAGES {
        let mut command = bench.start(&run);
        let file = directory.join(file);
        let reached = || match fs::read_to_string(&file) {
            Ok(found) if found.contains(text) => Ok(()),
            Ok(found) => Err(found),
            // A socket can't be read.
            Err(_) if text.is_empty() && file.exists() => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        wait::until(text, LIMIT, Duration::from_micros(200), reached);
        command.kill().expect("a signal");
        command.wait().expect("its end");
        // Another one may be about to begin, and is left alone: nobody tells how far it is.
        if let Some(supervisor) = supervisor(&directory) {
            kill_process(supervisor, Signal::KILL).ok();
        }
        // Whatever that left, it can be looked at, it can go, and its name can be used again.
        drop(bench.json(&["list"]));
        bench.ok(&["remove", "--force", "demo"]);
        bench.nothing_left();
        bench.ok(&run);
        bench.until_logged("demo", "S\n");
        bench.ok(&["remove", "--force", "demo"]);
        bench.nothing_left();
    }
}

fn supervisor(directory: &Path) -> Option<Pid> {
    let text = fs::read_to_string(directory.join("supervisor.json")).ok()?;
    let who: Value = serde_json::from_str(&text).ok()?;
    Pid::from_raw(i32::try_from(who["pid"].as_i64()?).ok()?)
}

#[test]
fn whoever_stops_a_vm_may_be_killed_too() {
    need!(Vm);
    let bench = Vms::new();
    bench.run("Spin", "demo", &[]);
    // Its guest never looks at the power button, so the stopping is under way when it is killed.
    let mut stop = bench.start(&["stop", "demo", "--timeout", "1h"]);
    // It has nothing to do with the supervisor, of which it makes another one.
    bench.kill("demo", "supervisor");
    bench.until_state("demo", "running");
    stop.kill().expect("a signal");
    stop.wait().expect("its end");
    assert_eq!(bench.state("demo"), "running");
    let stopped = bench.json(&["stop", "demo", "--force"]);
    assert_eq!(stopped["by"], "vmm.shutdown", "{stopped}");
    bench.ok(&["remove", "demo"]);
    bench.nothing_left();
}
