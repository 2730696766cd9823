//! What the driver costs over the bare socket, side by side in one run under the real Cloud
//! Hypervisor: `cargo bench -p knest-vmm`. The floor is what C would do: spawn, connect in a busy loop,
//! write and read raw bytes.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails loudly and prints its table"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use knest_vmm::client::Client;
use knest_vmm::request::{self, Body};
use knest_vmm::shutdown::Ladder;
use knest_vmm::vm::Vm;
use support::Bench;
use support::guest::Guest;

const STARTS: usize = 40;
const CALLS: usize = 2000;
const CROWD: usize = 100;

fn main() {
    // Asked by `cargo test`, which runs benches too: not now.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let Some(bench) = Bench::new("speed") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // In turns, so that both see the same machine.
        let (mut driver, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            floor.push(floor_start(&bench));
            driver.push(driver_start(&bench).await);
        }
        row("spawn -> booted, 128 MiB", &mut driver, &mut floor, 1.10);

        let vm = Vm::start(bench.launch(), bench.config(Guest::Ok))
            .await
            .unwrap();
        let client = Client::new(&vm.files().api_socket);
        let (mut driver, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            floor.push(timed(|| {
                drop(raw_call(&vm.files().api_socket, "GET", "vmm.ping", &[]));
            }));
            let begun = Instant::now();
            client.ping().await.unwrap();
            driver.push(begun.elapsed());
        }
        row("one call", &mut driver, &mut floor, 1.3);
        vm.kill().await.unwrap();

        let mut floor = vec![floor_crowd()];
        let mut driver = vec![driver_crowd().await];
        row("100 VMs, started and stopped", &mut driver, &mut floor, 1.2);
    });
}

fn row(what: &str, driver: &mut [Duration], floor: &mut [Duration], bar: f64) {
    let median = |values: &mut [Duration]| {
        values.sort_unstable();
        values[values.len() / 2]
    };
    let (driver, floor) = (median(driver), median(floor));
    let ratio = driver.as_secs_f64() / floor.as_secs_f64();
    let verdict = if ratio <= bar { "holds" } else { "MISSED" };
    println!(
        "{what:32} {driver:>12.3?}  floor {floor:>12.3?}  {ratio:.2} x (bar {bar} x: {verdict})"
    );
}

fn timed(run: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    run();
    begun.elapsed()
}

async fn driver_start(bench: &Bench) -> Duration {
    let config = bench.config(Guest::Ok);
    let begun = Instant::now();
    let vm = Vm::start(bench.launch(), config).await.unwrap();
    let took = begun.elapsed();
    vm.stop(&Ladder::forced()).await.unwrap();
    took
}

fn floor_start(bench: &Bench) -> Duration {
    let create = create_body(&bench.kernel(Guest::Ok));
    let begun = Instant::now();
    let mut child = floor_spawn(&bench.binary, bench.path(), &create);
    let took = begun.elapsed();
    raw_call(&bench.path().join("floor.sock"), "PUT", "vmm.shutdown", &[]);
    child.wait().unwrap();
    took
}

fn create_body(kernel: &Path) -> Vec<u8> {
    match request::vm_create(&support::config(kernel.to_owned())).body {
        Body::Json(json) => json,
        other => panic!("{other:?}"),
    }
}

fn floor_spawn(binary: &Path, dir: &Path, create: &[u8]) -> Child {
    let socket = dir.join("floor.sock");
    drop(std::fs::remove_file(&socket));
    let log = |name: &str| {
        let path = dir.join(name);
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
    };
    let child = Command::new(binary)
        .arg("--api-socket")
        .arg(format!("path={}", socket.display()))
        .arg("--event-monitor")
        .arg(format!("path={}", dir.join("floor.json").display()))
        .stdin(Stdio::null())
        .stdout(log("floor.out"))
        .stderr(log("floor.err"))
        .spawn()
        .unwrap();
    while UnixStream::connect(&socket).is_err() {
        std::thread::yield_now();
    }
    raw_call(&socket, "PUT", "vm.create", create);
    raw_call(&socket, "PUT", "vm.boot", &[]);
    child
}

fn raw_call(socket: &Path, method: &str, name: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!(
        "{method} /api/v1/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = vec![0; 65536];
    let size = stream.read(&mut answer).unwrap();
    answer.truncate(size);
    assert!(
        answer.starts_with(b"HTTP/1.1 20"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    answer
}

fn floor_crowd() -> Duration {
    let benches: Vec<Bench> = (0..CROWD).filter_map(|_| Bench::new("speed")).collect();
    let creates: Vec<Vec<u8>> = benches
        .iter()
        .map(|bench| create_body(&bench.kernel(Guest::Ok)))
        .collect();
    timed(|| {
        // Eight at a time, as a driver with a few threads would.
        std::thread::scope(|scope| {
            let pairs: Vec<_> = benches.iter().zip(&creates).collect();
            for part in pairs.chunks(CROWD.div_ceil(8)) {
                let part = part.to_vec();
                scope.spawn(move || {
                    let children: Vec<(Child, &Bench)> = part
                        .iter()
                        .map(|(bench, create)| {
                            (floor_spawn(&bench.binary, bench.path(), create), *bench)
                        })
                        .collect();
                    for (mut child, bench) in children {
                        let socket = bench.path().join("floor.sock");
                        raw_call(&socket, "PUT", "vmm.shutdown", &[]);
                        child.wait().unwrap();
                    }
                });
            }
        });
    })
}

async fn driver_crowd() -> Duration {
    let benches: Vec<Bench> = (0..CROWD).filter_map(|_| Bench::new("speed")).collect();
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
