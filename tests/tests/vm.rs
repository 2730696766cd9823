//! `knest vm` with guests of a few bytes: what a user types, and what is left of it.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use fs_err as fs;
use knest_tests::env::program;
use knest_tests::vms::{LIMIT, POLL};
use knest_tests::{Env, Vms, need, wait};
use serde_json::Value;

#[test]
fn a_whole_life() {
    need!(Vm);
    let bench = Vms::new();
    assert_eq!(bench.json(&["list"]), Value::Array(vec![]));
    bench.run("Spin", "demo", &["--cpus", "1"]);
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
    let bench = Vms::new();
    bench.run("Spin", "demo", &[]);
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
    let bench = Vms::new();
    let shared = bench.env.home().join("shared");
    fs::create_dir(&shared).expect("a directory");
    let share = format!("{}:files", shared.display());
    let root = rustix::process::geteuid().is_root();
    let more: &[&str] = match program("virtiofsd") {
        Some(_) if root => &["--share", &share],
        _ => &[],
    };
    bench.run("Spin", "demo", more);
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
    let mut console = bench.start(&["console", "demo"]);
    let mut joined = [0; 7];
    let notes = console.stderr.as_mut().expect("its notes");
    notes.read_exact(&mut joined).expect("that it has joined");
    assert_eq!(&joined, b"Console");
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
    let bench = Vms::new();
    bench.run("Spin", "demo", &["--net", "user"]);
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
    let bench = Vms::of(Env::new().owned_by(USER));
    bench.run("Spin", "demo", &["--net", "user"]);
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
    let bench = Vms::new();
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
