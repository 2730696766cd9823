//! What goes wrong beside a VM: a VMM that stands still, a full disk, a socket that is somebody else's,
//! descriptors that get lost.
#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod support;

use std::os::fd::AsFd;
use std::time::Duration;

use knest_vmm::error::{Error, Kind};
use knest_vmm::hypervisor::{ApiSocket, Files, Hypervisor};
use knest_vmm::migration::{RestoreConfig, RestoredNet};
use knest_vmm::shutdown::{Ladder, Rung};
use knest_vmm::testing::{Reply, Stub};
use knest_vmm::vm::{State, Vm};
use knest_vmm::wait::{Seen, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::Bench;
use support::guest::Guest;

const LIMIT: Duration = Duration::from_secs(20);

fn signal(vm: &Vm, signal: Signal) {
    let pid = i32::try_from(vm.identity().pid)
        .ok()
        .and_then(Pid::from_raw);
    kill_process(pid.unwrap(), signal).unwrap();
}

/// Stops it, and waits until each of its threads stands: until then it may still answer.
async fn stop_still(vm: &Vm) {
    signal(vm, Signal::STOP);
    let tasks = format!("/proc/{}/task", vm.identity().pid);
    let state = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
        rest.flatten()
    };
    wait_until("it stands", LIMIT, Duration::from_millis(1), || async {
        let tasks = std::fs::read_dir(&tasks).unwrap().flatten();
        let states: Vec<_> = tasks.map(state).collect();
        Ok(if states.iter().all(|state| *state == Some('T')) {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{states:?}"))
        })
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_vmm_that_stands_still_is_busy_and_can_be_stopped() {
    let Some(bench) = Bench::new("a_vmm_that_stands_still") else {
        return;
    };
    let vm = Vm::start(bench.launch(), bench.config(Guest::Spin))
        .await
        .unwrap();
    stop_still(&vm).await;
    let error = vm.state().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error:?}");
    assert!(vm.alive());
    signal(&vm, Signal::CONT);
    assert_eq!(vm.state().await.unwrap(), State::Running);

    stop_still(&vm).await;
    let mut ladder = Ladder::graceful(Duration::from_millis(100));
    for (rung, patience) in &mut ladder.rungs {
        if *rung != Rung::Kill {
            *patience = Duration::from_millis(100);
        }
    }
    let outcome = vm.stop(&ladder).await.unwrap();
    assert_eq!(outcome.by, Some(Rung::Kill), "{outcome:?}");
    assert_eq!(outcome.attempts.len(), 4);
    assert!(!bench.path().join("api.sock").exists());
    assert!(support::processes_of(bench.path()).is_empty());
}

#[tokio::test]
async fn an_inherited_socket_serves_and_is_no_identity() {
    let Some(bench) = Bench::new("an_inherited_socket") else {
        return;
    };
    let mut launch = bench.launch();
    launch.api_socket = ApiSocket::Inherited;
    let vm = Vm::start(launch, bench.config(Guest::Spin)).await.unwrap();
    let files = vm.files().clone();
    let again = Vm::attach(files.clone(), vm.identity()).await.unwrap();
    assert_eq!(again.state().await.unwrap(), State::Running);
    // The kernel calls this process its server, and nobody may end that.
    let error = Hypervisor::attach_socket(files.clone(), Default::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::WrongPeer { .. }), "{error:?}");
    vm.kill().await.unwrap();
    assert!(!files.api_socket.exists());

    // One that can't be started leaves no socket of ours behind.
    let mut launch = bench.launch();
    launch.api_socket = ApiSocket::Inherited;
    launch.binary = "/nowhere/cloud-hypervisor".into();
    let error = Hypervisor::spawn(launch).await.unwrap_err();
    assert!(matches!(error, Error::Spawn { .. }), "{error:?}");
    assert!(!files.api_socket.exists());
}

#[tokio::test]
async fn a_full_disk_under_the_logs_stops_nothing() {
    let Some(bench) = Bench::new("a_full_disk_under_the_logs") else {
        return;
    };
    let mut launch = bench.launch();
    launch.files.serial_log = "/dev/full".into();
    launch.files.vmm_log = "/dev/full".into();
    let vm = Vm::start(launch, bench.config(Guest::Ok)).await.unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Running);
    let outcome = vm.stop(&Ladder::forced()).await.unwrap();
    assert_eq!(outcome.by, Some(Rung::VmmShutdown), "{outcome:?}");
    assert!(support::processes_of(bench.path()).is_empty());
}

#[tokio::test]
async fn a_file_that_is_no_kernel_leaves_nothing() {
    let Some(bench) = Bench::new("a_file_that_is_no_kernel") else {
        return;
    };
    let path = bench.path().join("text");
    std::fs::write(&path, "not a kernel\n".repeat(1000)).unwrap();
    let error = Vm::start(bench.launch(), support::config(path))
        .await
        .unwrap_err();
    let boot = "vm.boot";
    assert!(
        matches!(error, Error::Api { call, .. } if call == boot),
        "{error:?}"
    );
    assert!(!bench.path().join("api.sock").exists());
    assert!(support::processes_of(bench.path()).is_empty());
}

/// A stand-in that takes a restore, and whose interface `n0` has `found` descriptors afterwards.
async fn restore(found: &'static [i32], restore: &RestoreConfig) -> (Result<(), Error>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::in_dir(dir.path());
    let stub = Stub::listen(&files.api_socket, move |request| {
        match request.path.rsplit('/').next() {
            Some("vmm.ping") => Reply::ping("53.0.0"),
            Some("vm.restore") => Reply::nothing(),
            _ => Reply::json(&json!({
                "state": "Paused", "config": { "net": [{ "id": "n0", "fds": found }] }
            })),
        }
    })
    .unwrap();
    let vm = Vm::attach_socket(files).await.unwrap();
    let file = tempfile::tempfile().unwrap();
    let result = vm.restore(restore, &[file.as_fd()]).await;
    let sent = stub.received();
    let restores = sent.iter().filter(|r| r.path.ends_with("vm.restore"));
    (result, restores.count())
}

#[tokio::test]
async fn descriptors_of_a_restore_are_looked_for() {
    let mut config = RestoreConfig {
        source_url: "file:///snapshot".into(),
        net_fds: vec![RestoredNet {
            id: "n0".into(),
            num_fds: 1,
        }],
        ..RestoreConfig::default()
    };
    let (result, calls) = restore(&[7], &config).await;
    result.unwrap();
    assert_eq!(calls, 1);
    let (result, _) = restore(&[], &config).await;
    let lost = matches!(
        result,
        Err(Error::Lost {
            sent: 1,
            found: 0,
            ..
        })
    );
    assert!(lost, "{result:?}");
    // What does not add up is not sent.
    config.net_fds.clear();
    let (result, calls) = restore(&[7], &config).await;
    assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    assert_eq!(calls, 0);
}
