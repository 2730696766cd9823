//! What the driver costs over the bare socket, side by side in one run under the real Cloud
//! Hypervisor: `cargo bench -p knest-vmm`. Ends with an error when a figure is not good enough.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails loudly and prints its table"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod floor;
mod row;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use knest_vmm::client::Client;
use knest_vmm::shutdown::Ladder;
use knest_vmm::virtiofsd::{Share, Virtiofsd, flavor};
use knest_vmm::vm::Vm;
use row::{Bar, row, skipped};
use support::guest::Guest;
use support::{Bench, sharing, virtiofsds};

const STARTS: usize = 60;
const CALLS: usize = 2000;
const REMOTE_CALLS: usize = 100;
const REBOOTS: usize = 20;
const CROWD: usize = 100;
const CROWDS: usize = 3;

fn main() -> ExitCode {
    // Asked by `cargo test`, which runs benches too: not now.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    let Some(bench) = Bench::new("speed") else {
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let rows = runtime.block_on(async {
        [
            starts(&bench).await,
            calls(&bench).await,
            remote_calls(&bench).await,
            reboots(&bench).await,
            crowds().await,
        ]
    });
    match rows.iter().filter(|holds| !**holds).count() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn timed(run: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    run();
    begun.elapsed()
}

async fn starts(bench: &Bench) -> bool {
    let create = floor::create_body(&bench.kernel(Guest::Ok));
    let (mut driver, mut floor) = (Vec::new(), Vec::new());
    // In turns, so that both see the same machine.
    for _ in 0..STARTS {
        let begun = Instant::now();
        let child = floor::start(&bench.binary, bench.path(), &create);
        floor.push(begun.elapsed());
        floor::stop(child, bench.path());

        let config = bench.config(Guest::Ok);
        let begun = Instant::now();
        let vm = Vm::start(bench.launch(), config).await.unwrap();
        driver.push(begun.elapsed());
        vm.stop(&Ladder::forced()).await.unwrap();
    }
    let bar = Bar::Times(1.10, "floor", &mut floor);
    row("spawn to booted, 128 MiB", &mut driver, bar)
}

async fn running(bench: &Bench) -> (Vm, Client) {
    let config = bench.config(Guest::Ok);
    let vm = Vm::start(bench.launch(), config).await.unwrap();
    let client = Client::new(&vm.files().api_socket);
    (vm, client)
}

async fn calls(bench: &Bench) -> bool {
    let (vm, client) = running(bench).await;
    let (mut driver, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        floor.push(timed(|| {
            floor::call(client.socket(), "GET", "vmm.ping", &[]);
        }));
        let begun = Instant::now();
        client.ping().await.unwrap();
        driver.push(begun.elapsed());
    }
    vm.kill().await.unwrap();
    let bar = Bar::Times(1.3, "floor", &mut floor);
    row("one API call", &mut driver, bar)
}

/// `ch-remote`, of which everybody else's drivers run one a call.
fn ch_remote(binary: &Path) -> Option<PathBuf> {
    let beside = binary.with_file_name("ch-remote");
    let named = std::env::var_os("KNEST_CH_REMOTE").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("ch-remote"));
    let mut places = named.into_iter().chain([beside]).chain(on_path);
    places.find(|path| path.is_file())
}

async fn remote_calls(bench: &Bench) -> bool {
    const WHAT: &str = "one API call beside ch-remote's";
    let Some(remote) = ch_remote(&bench.binary) else {
        return skipped(WHAT, "no ch-remote in $KNEST_CH_REMOTE or on PATH");
    };
    let (vm, client) = running(bench).await;
    let (mut driver, mut other) = (Vec::new(), Vec::new());
    for _ in 0..REMOTE_CALLS {
        other.push(timed(|| {
            let mut command = Command::new(&remote);
            command.arg("--api-socket").arg(client.socket()).arg("ping");
            let status = command.stdout(Stdio::null()).status().unwrap();
            assert!(status.success(), "{status}");
        }));
        // More than one: the program that just ended took the caches with it, for both sides of a call.
        for _ in 0..10 {
            let begun = Instant::now();
            client.ping().await.unwrap();
            driver.push(begun.elapsed());
        }
    }
    vm.kill().await.unwrap();
    let bar = Bar::Times(0.1, "ch-remote", &mut other);
    row(WHAT, &mut driver, bar)
}

async fn reboots(bench: &Bench) -> bool {
    const WHAT: &str = "reboot with a share";
    let daemons = virtiofsds();
    let Some(program) = daemons.first() else {
        return skipped(WHAT, "no virtiofsd");
    };
    if !rustix::process::geteuid().is_root() {
        return skipped(WHAT, "QEMU's virtiofsd is for root");
    }
    let flavor = flavor(program, Duration::from_secs(5)).await.unwrap();
    let shared = bench.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let share = Share::new(program, flavor, shared, bench.path().join("fs.sock"));
    let config = sharing(bench.config(Guest::Spin), &share.socket);
    let daemon = Virtiofsd::start(share).unwrap();
    let vm = Vm::start(bench.launch(), config).await.unwrap();
    let mut driver = Vec::new();
    for _ in 0..REBOOTS {
        let begun = Instant::now();
        vm.reboot().await.unwrap();
        driver.push(begun.elapsed());
    }
    vm.stop(&Ladder::forced()).await.unwrap();
    daemon.stop().await.unwrap();
    row(WHAT, &mut driver, Bar::Most(Duration::from_millis(50)))
}

async fn crowds() -> bool {
    let (mut driver, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..CROWDS {
        floor.push(floor_crowd());
        driver.push(driver_crowd().await);
    }
    let what = format!("{CROWD} VMs, started and stopped at once");
    let bar = Bar::Times(1.2, "floor", &mut floor);
    row(&what, &mut driver, bar)
}

fn crowd() -> Vec<Bench> {
    (0..CROWD).filter_map(|_| Bench::new("speed")).collect()
}

/// Eight at a time, as a driver with a few threads would.
fn floor_crowd() -> Duration {
    let benches = crowd();
    let create = |bench: &Bench| floor::create_body(&bench.kernel(Guest::Ok));
    let creates: Vec<Vec<u8>> = benches.iter().map(create).collect();
    let pairs: Vec<_> = benches.iter().zip(&creates).collect();
    timed(|| {
        std::thread::scope(|scope| {
            for part in pairs.chunks(CROWD.div_ceil(8)) {
                scope.spawn(move || {
                    let start = |(bench, create): &(&Bench, &Vec<u8>)| {
                        floor::start(&bench.binary, bench.path(), create)
                    };
                    let children: Vec<_> = part.iter().map(start).collect();
                    for (child, (bench, _)) in children.into_iter().zip(part) {
                        floor::stop(child, bench.path());
                    }
                });
            }
        });
    })
}

async fn driver_crowd() -> Duration {
    let benches = crowd();
    let configs: Vec<_> = benches
        .iter()
        .map(|bench| bench.config(Guest::Ok))
        .collect();
    let begun = Instant::now();
    let starts: Vec<_> = benches
        .iter()
        .zip(configs)
        .map(|(bench, config)| tokio::spawn(Vm::start(bench.launch(), config)))
        .collect();
    let mut vms = Vec::new();
    for start in starts {
        vms.push(start.await.unwrap().unwrap());
    }
    let stops: Vec<_> = vms
        .into_iter()
        .map(|vm| tokio::spawn(async move { vm.stop(&Ladder::forced()).await }))
        .collect();
    for stop in stops {
        stop.await.unwrap().unwrap();
    }
    begun.elapsed()
}
