//! VMs whose driver ends before they do, at any stage of their life, and those that come after it.
#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod support;

use knest_vmm::error::Error;
use knest_vmm::hypervisor::{Files, Launch};
use knest_vmm::process::{ExitReason, Identity};
use knest_vmm::shutdown::{Ladder, Rung};
use knest_vmm::vm::{RebootPolicy, State, Vm};
use support::Bench;
use support::guest::Guest;

#[tokio::test]
async fn another_handle_attaches() {
    let Some(bench) = Bench::new("another_handle_attaches") else {
        return;
    };
    let vm = Vm::start(bench.launch(), bench.config(Guest::Ok))
        .await
        .unwrap();
    let (files, identity) = (vm.files().clone(), vm.identity());
    drop(vm);
    let again = Vm::attach(files.clone(), identity).await.unwrap();
    assert_eq!(again.state().await.unwrap(), State::Running);
    let by_socket = Vm::attach_socket(files.clone()).await.unwrap();
    assert_eq!(by_socket.identity(), identity);
    let mut wrong = identity;
    wrong.start_time += 1;
    assert!(matches!(
        Vm::attach(files.clone(), wrong).await,
        Err(Error::NoProcess { .. })
    ));
    let outcome = again.stop(&Ladder::forced()).await.unwrap();
    assert_eq!(outcome.by, Some(Rung::VmmShutdown));
    assert!(matches!(
        Vm::attach(files, identity).await,
        Err(Error::NoProcess { .. })
    ));
}

/// Not a test of its own: the first driver of the tests below, which ends without a farewell once its
/// VM is in a state.
#[tokio::test]
async fn first_driver() {
    let variable = |name: &str| std::env::var(format!("KNEST_TEST_FIRST_DRIVER_{name}"));
    let (Ok(dir), Ok(stage)) = (variable("DIR"), variable("STAGE")) else {
        return;
    };
    let dir = std::path::PathBuf::from(dir);
    let Some(binary) = support::cloud_hypervisor("first_driver") else {
        return;
    };
    let config = support::config(dir.join("Ok.elf"));
    let launch = Launch::new(binary, &dir);
    let vm = match stage.as_str() {
        "Empty" => Vm::empty(launch).await,
        "Created" => Vm::create(launch, config).await,
        _ => Vm::start(launch, config).await,
    };
    let vm = vm.unwrap();
    match stage.as_str() {
        "Paused" => vm.pause().await.unwrap(),
        "Stopped" => vm.power_off().await.unwrap(),
        _ => {}
    }
    std::fs::write(
        dir.join("vm.json"),
        serde_json::to_vec(&vm.identity()).unwrap(),
    )
    .unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .unwrap();
}

/// The VM of a driver that was killed at this stage.
fn orphan(bench: &Bench, stage: &str) -> Identity {
    bench.kernel(Guest::Ok);
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "first_driver"])
        .env("KNEST_TEST_FIRST_DRIVER_DIR", bench.path())
        .env("KNEST_TEST_FIRST_DRIVER_STAGE", stage)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success(), "the first driver ended by itself");
    let identity = std::fs::read(bench.path().join("vm.json")).unwrap();
    serde_json::from_slice(&identity).unwrap()
}

#[tokio::test]
async fn a_driver_killed_at_any_stage_is_succeeded() {
    let test = "a_driver_killed_at_any_stage_is_succeeded";
    for state in [
        State::Empty,
        State::Created,
        State::Running,
        State::Paused,
        State::Stopped,
    ] {
        let Some(bench) = Bench::new(test) else {
            return;
        };
        let identity = orphan(&bench, &format!("{state:?}"));
        let files = Files::in_dir(bench.path());
        // Without what the first one wrote down as well as with it.
        let vm = Vm::attach_socket(files.clone()).await.unwrap();
        assert_eq!(
            (vm.identity(), vm.state().await.unwrap()),
            (identity, state)
        );
        let vm = Vm::attach(files, identity).await.unwrap();
        assert_eq!(vm.state().await.unwrap(), state);
        if matches!(state, State::Created | State::Stopped) {
            vm.boot().await.unwrap();
        }
        let outcome = vm.stop(&Ladder::forced()).await.unwrap();
        assert_eq!(outcome.by, Some(Rung::VmmShutdown), "{state:?}");
        assert!(!bench.path().join("api.sock").exists());
        assert_eq!(support::processes_of(bench.path()), Vec::<i32>::new());
    }
}

#[tokio::test]
async fn a_vm_outlives_its_driver_and_a_later_one_finds_it() {
    let Some(bench) = Bench::new("a_vm_outlives_its_driver") else {
        return;
    };
    let identity = orphan(&bench, "Running");
    let vm = Vm::attach(Files::in_dir(bench.path()), identity)
        .await
        .unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Running);
    bench.serial_has("OK").await;
    // Another process's child: how it ended is known from its zombie or from the kernel (6.15).
    let outcome = vm.stop(&Ladder::forced()).await.unwrap();
    assert!(
        matches!(outcome.exit, ExitReason::Code(0) | ExitReason::Unknown),
        "{outcome:?}"
    );
    assert_eq!(outcome.by, Some(Rung::VmmShutdown));
}

#[tokio::test]
async fn a_killed_vm_of_another_driver_is_reported() {
    let Some(bench) = Bench::new("a_killed_vm_of_another_driver") else {
        return;
    };
    let vm = Vm::start(bench.launch(), bench.config(Guest::Spin))
        .await
        .unwrap();
    let other = Vm::attach(vm.files().clone(), vm.identity()).await.unwrap();
    let watching = tokio::spawn(async move { other.watch(RebootPolicy::default()).await });
    vm.process().kill().unwrap();
    let watched = watching.await.unwrap().unwrap();
    assert!(matches!(
        watched.death.exit,
        ExitReason::Signal(9) | ExitReason::Unknown
    ));
    assert!(!watched.looped && !watched.death.is_clean());
}
