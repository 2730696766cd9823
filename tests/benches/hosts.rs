//! What clusters of hundreds on a host cost: `cargo bench -p knest-tests --bench hosts`. Workers are
//! played, all else is real, see `Crowd`; the knest that is measured is the one that `KNEST_BIN` names.
//! A bar that is missed ends it with an error, once all figures were taken.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench fails loudly and prints its table"
)]

use std::fs::File;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use fs_err as fs;
use knest_tests::hosted::user;
use knest_tests::need::{Need, met};
use knest_tests::{Crowd, Env, Faulty, Hosted, Snapshot, Usage};
use kube::api::ListParams;

const LIMIT: Duration = Duration::from_secs(540);
const SOON: Duration = Duration::from_secs(60);

/// Of knest's own processor time, for each node that comes.
const EACH: f64 = 5.0;
/// How much dearer a node may be where hundreds come than where fifty do.
const GROWTH: f64 = 1.5;
/// Bytes.
const MEMORY: u64 = 100 << 20;
/// Asked of the host, for each node that comes.
const REQUESTS: f64 = 6.0;

fn main() -> ExitCode {
    // Asked by `cargo test`, which runs benches too: not now.
    if !std::env::args().any(|arg| arg == "--bench") || !met("hosts", &[Need::Host, Need::Hollow]) {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let rows = runtime.expect("a runtime").block_on(hundreds());
    match rows.into_iter().all(|holds| holds) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Ten workers, one more, fifty more, five hundred in all, ten again, none.
async fn hundreds() -> [bool; 6] {
    let scene = Hosted::played(Crowd::new()).await;
    let snapshot = Snapshot::take(&[scene.host.directory()]);
    let env = &scene.env;
    let create = [
        "create",
        "demo",
        "--provider",
        "virtink",
        "--worker-machine-count",
    ];
    run(
        env,
        "create with 10 workers",
        &[&create[..], &["10"]].concat(),
    );
    let scale = ["scale", "demo", "--worker-machine-count"];
    let scale = |env: &Env, count: &str| {
        let title = format!("scale to {count} workers");
        run(env, &title, &[&scale[..], &[count]].concat())
    };
    let one = scale(env, "11");

    let faulty = Faulty::start(&scene.host);
    let fifty = scale(&user(&faulty.kubeconfig()), "61");
    let requests = faulty.requests().len();

    let many = scale(env, "500");
    assert_eq!(machines(&scene).await, 501);
    let less = scale(env, "10");
    assert_eq!(machines(&scene).await, 11);
    run(env, "delete", &["delete", "demo"]);
    scene.nothing_left("default").await;
    snapshot.assert_nothing_left(SOON, &[scene.host.directory()]);

    let own = |usage: &Usage| usage.processor.as_secs_f64() * 1e3;
    println!("one node more, knest's own time {:30.0} ms", own(&one));
    let (of_fifty, of_many) = (own(&fifty) / 50.0, own(&many) / 439.0);
    let memory = |usage: &Usage| usage.memory as f64 / f64::from(1 << 20);
    let most = MEMORY as f64 / f64::from(1 << 20);
    [
        row("own time a node, of 50, ms", of_fifty, EACH),
        row("own time a node, of 439, ms", of_many, EACH),
        row(
            "the second in terms of the first",
            of_many / of_fifty,
            GROWTH,
        ),
        row("memory, 61 to 500 workers, MiB", memory(&many), most),
        row("memory, 500 to 10 workers, MiB", memory(&less), most),
        row("requests a node, of 50", requests as f64 / 50.0, REQUESTS),
    ]
}

/// Prints a figure beside its bar; whether it holds.
fn row(what: &str, figure: f64, most: f64) -> bool {
    let holds = figure <= most;
    let verdict = if holds { "holds" } else { "MISSED" };
    println!("{what:36} {figure:>10.2}  (at most {most}): {verdict}");
    holds
}

/// Runs `knest`, which has to succeed, and says what it took.
fn run(env: &Env, title: &str, arguments: &[&str]) -> Usage {
    let errors = env.root().join("errors");
    let mut knest = env.knest(arguments);
    let file = File::create(&errors).expect("a file");
    knest.stdout(Stdio::null()).stderr(file);
    let mut child = knest.spawn().expect("knest");
    let (status, usage) = Usage::of(&mut child, LIMIT);
    let said = fs::read_to_string(errors).unwrap_or_default();
    assert!(status.success(), "knest {arguments:?}: {said}");
    println!(
        "{title:36} {:>8.1} s, its own {:.2} s, {} MiB",
        usage.time.as_secs_f64(),
        usage.processor.as_secs_f64(),
        usage.memory >> 20
    );
    usage
}

async fn machines(scene: &Hosted) -> usize {
    let list = scene.machines("default").list(&ListParams::default()).await;
    list.expect("machines").items.len()
}
