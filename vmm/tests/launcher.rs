//! `images/launcher`: virtiofsd kept alive by a shell script, where no driver keeps a listener.
#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use knest_vmm::shutdown::Ladder;
use knest_vmm::vm::{State, Vm};
use knest_vmm::wait::{Seen, wait_until};
use support::guest::Guest;
use support::{Bench, sharing, virtiofsds};

const LIMIT: Duration = Duration::from_secs(20);

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../images/launcher")
        .join(name)
}

/// The daemon that the script runs now.
fn child(script: &Child, daemon: &Path) -> Option<i32> {
    let path = format!("/proc/{0}/task/{0}/children", script.id());
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children
        .split_whitespace()
        .find(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == *daemon))?
        .parse()
        .ok()
}

/// Waits for a daemon that is not `old`.
async fn another(script: &Child, daemon: &Path, old: Option<i32>) -> Option<i32> {
    wait_until(
        "another daemon",
        LIMIT,
        Duration::from_millis(2),
        || async {
            let now = child(script, daemon);
            Ok(if now.is_some() && now != old {
                Seen::Done(now)
            } else {
                Seen::NotYet(format!("{now:?}"))
            })
        },
    )
    .await
    .unwrap()
}

async fn ended(script: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = script.try_wait().unwrap() {
            return status;
        }
        assert!(began.elapsed() < LIMIT, "the script still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_script_keeps_a_share_over_reboots() {
    let test = "a_script_keeps_a_share_over_reboots";
    let Some(_) = Bench::new(test) else { return };
    let daemons = virtiofsds();
    if daemons.is_empty() || !rustix::process::geteuid().is_root() {
        support::skip(test, "no virtiofsd, or not root");
        return;
    }
    for daemon in daemons {
        for sandbox in ["namespace", "chroot"] {
            keeps(Bench::new(test).unwrap(), &daemon, sandbox).await;
        }
    }
}

async fn keeps(bench: Bench, daemon: &Path, sandbox: &str) {
    let shared = bench.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let socket = bench.path().join("fs.sock");
    let config = sharing(bench.config(Guest::Spin), &socket);
    // The script is told the VM's process, which there is only once the VM has been made.
    let vm = Vm::create(bench.launch(), config).await.unwrap();
    let mut share = Command::new(script("virtiofsd-share"))
        .args([&socket, &shared])
        .arg(vm.process().pid().to_string())
        .env("VIRTIOFSD", daemon)
        .env("VIRTIOFSD_SANDBOX", sandbox)
        .spawn()
        .unwrap();
    vm.boot().await.unwrap();
    let mut serving = another(&share, daemon, None).await;
    for _ in 0..3 {
        vm.reboot().await.unwrap();
        serving = another(&share, daemon, serving).await;
    }
    kill(serving.unwrap(), rustix::process::Signal::KILL);
    another(&share, daemon, serving).await;
    assert_eq!(vm.state().await.unwrap(), State::Running);
    let outcome = vm.stop(&Ladder::forced()).await.unwrap();
    assert!(outcome.exit.is_success(), "{outcome:?}");
    // The script ends with the VM, and so does its last daemon.
    assert!(ended(&mut share).await.success());
    assert!(!socket.exists());
    assert_eq!(support::processes_of(bench.path()), Vec::<i32>::new());
}

#[tokio::test]
async fn shares_start_together_and_end_at_a_signal() {
    let test = "shares_start_together_and_end_at_a_signal";
    let Some(daemon) = virtiofsds().into_iter().next() else {
        return support::skip(test, "no virtiofsd");
    };
    if !rustix::process::geteuid().is_root() {
        return support::skip(test, "QEMU's virtiofsd is for root");
    }
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let share = |tag: &str| format!("{tag}={}", dir.path().display());
    let mut shares = Command::new(script("virtiofsd-shares"))
        .arg(&run)
        .args([share("one"), share("two")])
        .env("VIRTIOFSD", &daemon)
        .spawn()
        .unwrap();
    wait_until("two sockets", LIMIT, Duration::from_millis(5), || async {
        let there = ["one.sock", "two.sock"].map(|name| run.join(name).exists());
        Ok(if there == [true; 2] {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{there:?}"))
        })
    })
    .await
    .unwrap();
    let pid = i32::try_from(shares.id()).unwrap();
    kill(pid, rustix::process::Signal::TERM);
    assert!(ended(&mut shares).await.success());
    assert!(!run.join("one.sock").exists() && !run.join("two.sock").exists());
    assert_eq!(support::processes_of(dir.path()), Vec::<i32>::new());
}

#[test]
fn bad_arguments_are_named() {
    let run = |name: &str, args: &[&str]| {
        let output = Command::new(script(name)).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = run("virtiofsd-shares", &["/tmp/never", "tag"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("tag is not TAG=DIRECTORY"), "{text}");
    let (code, text) = run("virtiofsd-shares", &["/tmp/never", "tag=/no/such"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("/no/such is no directory"), "{text}");
    let (code, text) = run("virtiofsd-share", &["/tmp/never.sock"]);
    assert_eq!(code, Some(2));
    assert!(text.starts_with("usage: virtiofsd-share"), "{text}");
}
