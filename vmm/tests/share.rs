//! A shared directory under the real Cloud Hypervisor: reboots must not wait for it.
#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod support;

use std::path::Path;
use std::time::Duration;

use knest_vmm::shutdown::Ladder;
use knest_vmm::virtiofsd::{Sandbox, Share, Virtiofsd, flavor};
use knest_vmm::vm::{State, Vm};
use knest_vmm::wait::{Seen, wait_until};
use support::guest::Guest;
use support::{Bench, sharing, virtiofsds};

async fn share_of(program: &Path, bench: &Bench) -> Share {
    let directory = bench.path().join("shared");
    std::fs::create_dir(&directory).unwrap();
    let flavor = flavor(program, Duration::from_secs(5)).await.unwrap();
    Share::new(program, flavor, directory, bench.path().join("fs.sock"))
}

#[tokio::test]
async fn reboots_and_survives_the_daemons_death() {
    let test = "reboots_and_survives_the_daemons_death";
    let Some(_) = Bench::new(test) else { return };
    let daemons = virtiofsds();
    if daemons.is_empty() || !rustix::process::geteuid().is_root() {
        support::skip(test, "no virtiofsd, or not root");
        return;
    }
    for program in daemons {
        let Some(bench) = Bench::new(test) else {
            return;
        };
        let share = share_of(&program, &bench).await;
        let config = sharing(bench.config(Guest::Spin), &share.socket);
        let daemon = Virtiofsd::start(share).unwrap();
        let vm = Vm::start(bench.launch(), config).await.unwrap();
        for count in 1..=3 {
            let begun = std::time::Instant::now();
            vm.reboot().await.unwrap();
            println!("{}: reboot in {:?}", program.display(), begun.elapsed());
            respawned(&daemon, count).await;
        }
        daemon.process().kill().unwrap();
        respawned(&daemon, 4).await;
        assert_eq!(vm.state().await.unwrap(), State::Running);
        let outcome = vm.stop(&Ladder::forced()).await.unwrap();
        assert!(outcome.exit.is_success(), "{outcome:?}");
        let socket = daemon.share().socket.clone();
        daemon.stop().await.unwrap();
        assert!(!socket.exists());
    }
}

async fn respawned(daemon: &Virtiofsd, count: u64) {
    let seen = || async {
        let respawns = daemon.respawns();
        Ok(if respawns >= count {
            Seen::Done(())
        } else {
            Seen::NotYet(respawns)
        })
    };
    let (limit, interval) = (Duration::from_secs(20), Duration::from_millis(2));
    wait_until("another daemon", limit, interval, seen)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_daemon_that_fails_is_tried_again_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let flavor = knest_vmm::virtiofsd::Flavor::Rust;
    let mut share = Share::new("/bin/false", flavor, dir.path(), dir.path().join("fs.sock"));
    share.sandbox = Sandbox::None;
    let daemon = Virtiofsd::start(share).unwrap();
    respawned(&daemon, 2).await;
    assert_eq!(
        daemon.last_exit(),
        Some(knest_vmm::process::ExitReason::Code(1))
    );
    daemon.stop().await.unwrap();
    assert!(!dir.path().join("fs.sock").exists());
}
