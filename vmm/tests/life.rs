//! A VM's life under the real Cloud Hypervisor: boot, power-off, failure, death, devices.

mod support;

use std::time::Duration;

use knest_vmm::device::{DiskConfig, PciSlot};
use knest_vmm::error::{Error, Kind};
use knest_vmm::migration::RestoreConfig;
use knest_vmm::preflight::{Verdict, inspect};
use knest_vmm::process::ExitReason;
use knest_vmm::shutdown::{Ladder, Rung};
use knest_vmm::vm::{RebootPolicy, State, Vm};
use knest_vmm::wait::{Seen, wait_until};
use support::Bench;
use support::guest::Guest;

#[tokio::test]
async fn boots_prints_and_powers_off() {
    let Some(bench) = Bench::new("boots_prints_and_powers_off") else {
        return;
    };
    let vm = Vm::start(bench.launch(), bench.config(Guest::Off))
        .await
        .unwrap();
    let exit = vm.process().wait_within(Duration::from_secs(20)).await;
    assert_eq!(exit, Some(ExitReason::Code(0)));
    bench.serial_has("OK").await;
    assert_eq!(vm.state().await.unwrap(), State::Ended(ExitReason::Code(0)));
}

#[tokio::test]
async fn a_refused_boot_leaves_a_vm_that_boots() {
    let Some(bench) = Bench::new("a_refused_boot_leaves_a_vm_that_boots") else {
        return;
    };
    let mut config = bench.config(Guest::Ok);
    let kernel = bench.path().join("later.elf");
    config.payload = Some(knest_vmm::config::Payload::kernel(&kernel, ""));
    let vm = Vm::create(bench.launch(), config).await.unwrap();
    for _ in 0..2 {
        let error = vm.boot().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Io, "{error:?}");
        assert_eq!(vm.state().await.unwrap(), State::Created);
    }
    std::fs::rename(bench.kernel(Guest::Ok), &kernel).unwrap();
    vm.boot().await.unwrap();
    bench.serial_has("OK").await;
    assert_eq!(vm.state().await.unwrap(), State::Running);
    vm.kill().await.unwrap();
}

#[tokio::test]
async fn walks_through_its_states() {
    let Some(bench) = Bench::new("walks_through_its_states") else {
        return;
    };
    let vm = Vm::create(bench.launch(), bench.config(Guest::Spin))
        .await
        .unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Created);
    vm.boot().await.unwrap();
    vm.pause().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Paused);
    assert!(matches!(vm.boot().await, Err(Error::WrongState { .. })));
    vm.resume().await.unwrap();
    vm.reboot().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Running);
    let counted = || async {
        let reboots = vm.history()?.reboots;
        Ok(if reboots == 1 {
            Seen::Done(())
        } else {
            Seen::NotYet(reboots)
        })
    };
    let (limit, interval) = (Duration::from_secs(10), Duration::from_millis(1));
    wait_until("the reboot's event", limit, interval, counted)
        .await
        .unwrap();
    vm.power_off().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Stopped);
    assert_eq!(vm.power_off().await.unwrap_err().kind(), Kind::InvalidState);
    vm.boot().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Running);
    let outcome = vm.stop(&Ladder::forced()).await.unwrap();
    assert_eq!(
        (outcome.exit, outcome.by),
        (ExitReason::Code(0), Some(Rung::VmmShutdown))
    );
    assert!(!vm.files().api_socket.exists());
}

#[tokio::test]
async fn a_vm_goes_on_from_a_snapshot_or_after_its_refusal() {
    let test = "a_vm_goes_on_from_a_snapshot";
    let Some(bench) = Bench::new(test) else {
        return;
    };
    let vm = Vm::start(bench.launch(), bench.config(Guest::Spin))
        .await
        .unwrap();
    let saved = bench.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    let url = format!("file://{}", saved.display());
    assert!(vm.snapshot(&url).await.is_err(), "it runs");
    vm.pause().await.unwrap();
    if let Verdict::No { reason } = inspect("/dev/kvm".as_ref()).can_snapshot() {
        let error = vm.snapshot(&url).await.unwrap_err();
        let refused = matches!(&error, Error::Api { call, .. } if *call == "vm.snapshot");
        assert!(refused, "{error:?}");
        vm.resume().await.unwrap();
        assert_eq!(vm.state().await.unwrap(), State::Running);
        vm.kill().await.unwrap();
        return support::skip(test, &reason);
    }
    vm.snapshot(&url).await.unwrap();
    vm.kill().await.unwrap();
    let vm = Vm::empty(bench.launch()).await.unwrap();
    let restore = RestoreConfig {
        source_url: url,
        ..RestoreConfig::default()
    };
    vm.restore(&restore, &[]).await.unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Paused);
    vm.resume().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), State::Running);
    vm.kill().await.unwrap();
}

#[tokio::test]
async fn a_killed_vmm_is_reported() {
    let Some(bench) = Bench::new("a_killed_vmm_is_reported") else {
        return;
    };
    let vm = Vm::start(bench.launch(), bench.config(Guest::Ok))
        .await
        .unwrap();
    bench.serial_has("OK").await;
    vm.process().kill().unwrap();
    assert_eq!(vm.wait().await, ExitReason::Signal(9));
    let Err(Error::Died { death }) = vm.pause().await else {
        panic!("a dead VM paused")
    };
    assert_eq!(death.exit, ExitReason::Signal(9));
    assert!(death.serial_tail.contains("OK"));
    assert!(vm.files().api_socket.exists());
    vm.unlink_sockets().unwrap();
    // Stale or not, the directory serves the next one.
    let next = Vm::start(bench.launch(), bench.config(Guest::Off))
        .await
        .unwrap();
    assert_eq!(next.wait().await, ExitReason::Code(0));
}

#[tokio::test]
async fn starts_over_a_stale_socket_and_not_over_a_live_one() {
    let Some(bench) = Bench::new("starts_over_a_stale_socket") else {
        return;
    };
    drop(std::os::unix::net::UnixListener::bind(bench.path().join("api.sock")).unwrap());
    let vm = Vm::start(bench.launch(), bench.config(Guest::Ok))
        .await
        .unwrap();
    let error = Vm::start(bench.launch(), bench.config(Guest::Ok))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Io, "{error:?}");
    assert!(vm.alive());
    vm.kill().await.unwrap();
}

#[tokio::test]
async fn the_ladder_goes_past_a_deaf_guest() {
    let Some(bench) = Bench::new("the_ladder_goes_past_a_deaf_guest") else {
        return;
    };
    let vm = Vm::start(bench.launch(), bench.config(Guest::Spin))
        .await
        .unwrap();
    let outcome = vm
        .stop(&Ladder::graceful(Duration::from_millis(100)))
        .await
        .unwrap();
    assert_eq!(outcome.by, Some(Rung::VmmShutdown));
    assert!(!outcome.is_graceful());
    let tried: Vec<Rung> = outcome
        .attempts
        .iter()
        .map(|attempt| attempt.rung)
        .collect();
    assert_eq!(tried, [Rung::PowerButton, Rung::VmShutdown]);
}

#[tokio::test]
async fn a_reboot_loop_is_ended() {
    for guest in [Guest::Reset, Guest::TripleFault] {
        let Some(bench) = Bench::new("a_reboot_loop_is_ended") else {
            return;
        };
        let vm = Vm::start(bench.launch(), bench.config(guest))
            .await
            .unwrap();
        let policy = RebootPolicy {
            count: 3,
            within: Duration::from_secs(60),
        };
        let watched = tokio::time::timeout(Duration::from_secs(15), vm.watch(policy)).await;
        let watched = watched
            .unwrap_or_else(|_| panic!("{guest:?} does not loop"))
            .unwrap();
        assert!(
            watched.looped && watched.reboots >= 3,
            "{guest:?}: {watched:?}"
        );
        assert_eq!(watched.death.exit, ExitReason::Signal(9));
    }
}

#[tokio::test]
async fn a_flood_on_the_serial_port_stalls_nothing() {
    let Some(bench) = Bench::new("a_flood_on_the_serial_port_stalls_nothing") else {
        return;
    };
    let vm = Vm::start(bench.launch(), bench.config(Guest::Spam))
        .await
        .unwrap();
    bench.serial_has("xxxxxxxx").await;
    vm.pause().await.unwrap();
    vm.resume().await.unwrap();
    let outcome = vm.stop(&Ladder::forced()).await.unwrap();
    assert_eq!(outcome.exit, ExitReason::Code(0));
}

#[tokio::test]
async fn fifty_calls_at_once_all_get_their_answer() {
    let Some(bench) = Bench::new("fifty_calls_at_once") else {
        return;
    };
    let vm = Vm::start(bench.launch(), bench.config(Guest::Ok))
        .await
        .unwrap();
    // Clients of their own, so that more than Cloud Hypervisor's ten connections are asked for.
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let client = knest_vmm::client::Client::new(&vm.files().api_socket);
            tokio::spawn(async move { client.info().await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    vm.kill().await.unwrap();
}

#[tokio::test]
async fn a_hundred_vms_at_once() {
    const TEST: &str = "a_hundred_vms_at_once";
    let benches: Vec<Bench> = (0..100).map_while(|_| Bench::new(TEST)).collect();
    let starts: Vec<_> = benches
        .iter()
        .map(|bench| tokio::spawn(Vm::start(bench.launch(), bench.config(Guest::Ok))))
        .collect();
    let mut vms = Vec::new();
    for start in starts {
        vms.push(start.await.unwrap().unwrap());
    }
    for (vm, bench) in vms.iter().zip(&benches) {
        bench.serial_has("OK").await;
        assert_eq!(vm.state().await.unwrap(), State::Running);
    }
    let stops: Vec<_> = vms
        .into_iter()
        .map(|vm| tokio::spawn(async move { vm.stop(&Ladder::forced()).await }))
        .collect();
    for stop in stops {
        let outcome = stop.await.unwrap().unwrap();
        assert_eq!(outcome.exit, ExitReason::Code(0), "{outcome:?}");
    }
    for bench in &benches {
        assert!(!bench.path().join("api.sock").exists());
        assert_eq!(support::processes_of(bench.path()), Vec::<i32>::new());
    }
}

#[tokio::test]
async fn a_missing_kernel_leaves_no_process_and_no_socket() {
    let Some(bench) = Bench::new("a_missing_kernel_leaves_nothing") else {
        return;
    };
    let config = support::config("/nowhere/vmlinux".into());
    let error = Vm::start(bench.launch(), config).await.unwrap_err();
    let Error::Api {
        call: "vm.boot",
        source,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(source.to_string().contains("No such file"), "{source}");
    assert!(!bench.path().join("api.sock").exists());
    assert!(
        support::processes_of(bench.path()).is_empty(),
        "a process is left"
    );
}

#[tokio::test]
async fn devices_come_and_go() {
    let Some(bench) = Bench::new("devices_come_and_go") else {
        return;
    };
    let image = bench.path().join("disk.img");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    let mut config = bench.config(Guest::Spin);
    let kernel = bench.path().join("later.elf");
    config.payload = Some(knest_vmm::config::Payload::kernel(&kernel, ""));
    let vm = Vm::create(bench.launch(), config).await.unwrap();
    let mut cold = DiskConfig::raw(&image).read_only();
    cold.pci = PciSlot::named("cold");
    assert_eq!(vm.add_disk(&cold).await.unwrap(), None);
    // A refused boot forgets nothing.
    vm.boot().await.unwrap_err();
    std::fs::rename(bench.kernel(Guest::Spin), &kernel).unwrap();
    vm.boot().await.unwrap();
    let mut hot = DiskConfig::raw(&image).read_only();
    hot.pci = PciSlot::named("hot");
    assert_eq!(vm.add_disk(&hot).await.unwrap().unwrap().id, "hot");
    let disks = vm.info().await.unwrap().config.disks;
    let ids: Vec<_> = disks
        .iter()
        .filter_map(|disk| disk.pci.id.as_deref())
        .collect();
    assert_eq!(ids, ["cold", "hot"]);
    vm.counters().await.unwrap();
    vm.remove_device("hot").await.unwrap();
    assert_eq!(vm.config().disks.len(), 1);

    vm.pause().await.unwrap();
    // A guest that stands still is not asked.
    let outcome = vm
        .stop(&Ladder::graceful(Duration::from_secs(3600)))
        .await
        .unwrap();
    assert_eq!(outcome.attempts[0].rung, Rung::PowerButton);
    assert!(matches!(
        outcome.attempts[0].error,
        Some(Error::WrongState { .. })
    ));
}
