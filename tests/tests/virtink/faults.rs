//! A host that is away, busy, breaks, loses answers and hangs up, machines that fail or are taken away:
//! knest goes on where that helps, and otherwise says what it was, and leaves nothing.

use std::time::Duration;

use knest_tests::faulty::{Fault, Faulty};
use knest_tests::hosted::{begin, end, errors, interrupt, user};
use knest_tests::player::{Guests, Machine, Nothing, State};
use knest_tests::{Env, Hosted, need};
use kube::api::DeleteParams;

const CREATE: [&str; 6] = [
    "create",
    "demo",
    "--provider",
    "virtink",
    "--worker-machine-count",
    "1",
];

/// Watches end, credentials expire, nobody answers.
#[tokio::test]
async fn a_host_that_goes_away() {
    need!(Host);
    let scene = Hosted::start(Nothing::default()).await;
    let faulty = Faulty::start(&scene.host);
    let env = user(&faulty.kubeconfig());
    watches_end_and_a_machine_is_taken_away(&scene, &faulty, &env).await;

    faulty.set(|_, _| Fault::Status(401));
    let output = env.knest(CREATE).output().expect("knest starts");
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("log in again"), "{said}");
    drop(faulty);
    let output = env.knest(CREATE).output().expect("knest starts");
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("can the host cluster be reached?"), "{said}");
}

/// What passes is waited for: that takes its time.
#[tokio::test]
async fn a_host_in_trouble() {
    need!(Host, Full);
    let scene = Hosted::start(Nothing::default()).await;
    let faulty = Faulty::start(&scene.host);
    let env = user(&faulty.kubeconfig());
    busy_and_broken(&scene, &faulty, &env).await;
    answers_are_lost(&scene, &faulty, &env).await;
    the_lock_is_lost(&scene, &faulty, &env).await;
}

/// Every third request is refused with one of two statuses: all that has to be done is done.
async fn busy_and_broken(scene: &Hosted, faulty: &Faulty, env: &Env) {
    let mut count = 0;
    faulty.set(move |_, uri| {
        count += 1;
        match (uri.path(), count % 6) {
            // The one request that is a question whether to go there at all.
            ("/apis", _) => Fault::None,
            (_, 2) => Fault::Status(429),
            (_, 5) => Fault::Status(500),
            _ => Fault::None,
        }
    });
    let mut knest = begin(env, &CREATE);
    scene.running("default", 2, &mut knest).await;
    drop(interrupt(knest).await);
    scene.nothing_left("default").await;
}

/// What was written is found to be so.
async fn answers_are_lost(scene: &Hosted, faulty: &Faulty, env: &Env) {
    let mut seen = std::collections::BTreeSet::new();
    faulty.set(move |method, uri| {
        let first = seen.insert(format!("{method} {}", uri.path()));
        match first && !matches!(method.as_str(), "GET" | "HEAD") {
            true => Fault::Lost(504),
            false => Fault::None,
        }
    });
    let mut knest = begin(env, &CREATE);
    scene.running("default", 2, &mut knest).await;
    drop(interrupt(knest).await);
    scene.nothing_left("default").await;
}

async fn watches_end_and_a_machine_is_taken_away(scene: &Hosted, faulty: &Faulty, env: &Env) {
    faulty.set(
        |_, uri| match uri.query().is_some_and(|q| q.contains("watch=true")) {
            true => Fault::Cut(Duration::from_millis(300)),
            false => Fault::None,
        },
    );
    let mut knest = begin(env, &CREATE);
    scene.running("default", 2, &mut knest).await;
    let (machines, now) = (scene.machines("default"), DeleteParams::default());
    let deleted = machines.delete("demo-worker-1", &now).await;
    drop(deleted.expect("deletion"));
    let output = end(knest).await;
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("machine demo-worker-1 ended"), "{said}");
    scene.nothing_left("default").await;
}

/// Who can't renew it must not go on: others may take the cluster over.
async fn the_lock_is_lost(scene: &Hosted, faulty: &Faulty, env: &Env) {
    faulty.set(|_, _| Fault::None);
    let mut knest = begin(env, &CREATE);
    scene.running("default", 2, &mut knest).await;
    faulty.set(|method, uri| {
        let renewal = method == "PUT" && uri.path().contains("/leases/");
        match renewal {
            true => Fault::Status(500),
            false => Fault::None,
        }
    });
    tokio::time::sleep(Duration::from_secs(17)).await;
    let said = errors(&interrupt(knest).await);
    assert!(said.contains("the lock on cluster demo was lost"), "{said}");
    faulty.set(|_, _| Fault::None);
    drop(env.succeed(&["delete", "demo"]));
    scene.nothing_left("default").await;
}

/// Machines whose VMM does not start.
struct Broken;

impl Guests for Broken {
    fn start(&mut self, _: Machine) -> Result<(), String> {
        Err("no permission for /dev/kvm".to_owned())
    }
    fn state(&mut self, _: &str) -> State {
        State::Running
    }
    fn press_power_button(&mut self, _: &str) {}
    fn stop(&mut self, _: &str) {}
}

#[tokio::test]
async fn a_machine_that_fails_ends_the_waiting() {
    need!(Host);
    let scene = Hosted::start(Broken).await;
    let output = end(scene.begin(&CREATE)).await;
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("its VirtualMachine failed"), "{said}");
    assert!(said.contains("no permission for /dev/kvm"), "{said}");
    scene.nothing_left("default").await;
}
