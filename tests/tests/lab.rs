//! What only the real Cloud Hypervisor can show, in a host where it can boot a stock kernel. Each
//! test runs twice: here it boots the lab with itself as the command, and there it does the work.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use knest_tests::{Cluster, Env, Lab, Snapshot, Steps, images, lab, need, wait};
use serde_json::Value;

const NAME: &str = "nested";
/// One processor: each of a nested guest's exits is dear, and two of them pay for each other.
const CREATE: [&str; 5] = [
    "create",
    NAME,
    "--retain",
    "--control-plane-machine-cpu-cores",
    "1",
];

#[test]
fn a_command_runs_with_its_output_its_files_and_its_exit_code() {
    need!(Lab);
    let out = tempfile::tempdir().expect("a temporary directory");
    let script = "echo to-stdout; echo to-stderr >&2; echo $GREETING >$LAB_OUT/file; exit 7";
    let lab = Lab::new().out(out.path()).env("GREETING", "hello there");
    let output = lab
        .run(&["sh", "-c", script], Duration::from_secs(120))
        .expect("the lab");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "to-stdout\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "to-stderr\n");
    let file = std::fs::read_to_string(out.path().join("file")).expect("the file");
    assert_eq!(file, "hello there\n");
}

#[test]
fn a_node_boots_until_its_kubelet_is_healthy() {
    if !lab::inside() {
        need!(Lab, Images);
        return lab::run_this_test(
            "a_node_boots_until_its_kubelet_is_healthy",
            Duration::from_secs(900),
        );
    }
    let steps = Steps::of("lab");
    let (cluster, snapshot) = fresh_cluster();
    let machine = cluster
        .env
        .state()
        .join("knest/clusters/nested/machines/nested-control-plane-1");
    let mut create = steps.step("create until the VM runs", || {
        let create = start(&cluster);
        wait::until(
            "the VM runs",
            Duration::from_secs(180),
            Duration::from_millis(500),
            || {
                let info = vm_info(&machine.join("api.sock"))?;
                if info["state"] == "Running" {
                    Ok(())
                } else {
                    Err(info.to_string())
                }
            },
        );
        create
    });
    steps.step("until the kubelet is healthy", || {
        until_console_says(&machine, "The kubelet is healthy", &mut create);
    });
    steps.step("state, interrupt, delete", || {
        let list: Value =
            serde_json::from_str(&cluster.knest(&["list", "-o", "json"])).expect("JSON");
        assert_eq!(list[0]["nodes"][0]["machine"], "running", "{list}");
        assert_eq!(
            list[0]["spec"]["provider"]["vmm"], "cloud-hypervisor",
            "{list}"
        );
        interrupt(&mut create);
        // `--retain`: the machine lives on.
        let info = vm_info(&machine.join("api.sock")).expect("the VM after the interrupt");
        assert_eq!(info["state"], "Running", "{info}");
        drop(cluster.knest(&["delete", NAME]));
    });
    cluster.assert_nothing_left(&snapshot);
}

#[test]
fn a_node_becomes_ready() {
    if !lab::inside() {
        need!(Lab, Images, Full);
        return lab::run_this_test("a_node_becomes_ready", Duration::from_secs(2400));
    }
    let steps = Steps::of("lab, whole way");
    let (cluster, snapshot) = fresh_cluster();
    steps.step("create, one node", || {
        drop(cluster.knest(&[&CREATE[..], &["--timeout", "30m"]].concat()));
    });
    steps.step("use", || {
        let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"]);
        assert!(nodes.contains(" Ready "), "{nodes}");
    });
    steps.step("delete", || drop(cluster.knest(&["delete", NAME])));
    cluster.assert_nothing_left(&snapshot);
}

/// In the lab the machine's own cache is used: emulated, hashing an image takes minutes.
fn fresh_cluster() -> (Cluster, Snapshot) {
    let env = Env::new().with_variable("KNEST_CACHE_DIR", images::cache());
    images::link(&env);
    let snapshot = Snapshot::take(&[env.root()]);
    (Cluster::new(env, NAME), snapshot)
}

fn start(cluster: &Cluster) -> Child {
    let mut command = cluster.env.knest(CREATE);
    command.args(["--timeout", "30m"]).stdin(Stdio::null());
    command.spawn().expect("knest starts")
}

fn until_console_says(machine: &Path, words: &str, create: &mut Child) {
    wait::until(
        words,
        Duration::from_secs(600),
        Duration::from_secs(1),
        || {
            let ended = create.try_wait().expect("the state of knest");
            assert!(ended.is_none(), "knest create ended early: {ended:?}");
            let console = std::fs::read(machine.join("serial.log")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console).into_owned();
            if console.contains(words) {
                return Ok(());
            }
            let tail: Vec<&str> = console.lines().rev().take(3).collect();
            Err(tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
        },
    );
}

/// Ctrl-C, and the exit code of a shell's.
fn interrupt(create: &mut Child) {
    let pid = rustix::process::Pid::from_child(create);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal to knest");
    let status = wait::until(
        "create ends",
        Duration::from_secs(60),
        Duration::from_millis(200),
        || create.try_wait().ok().flatten().ok_or("it runs"),
    );
    assert_eq!(status.code(), Some(130));
}

/// What Cloud Hypervisor itself says of the VM, asked without knest's client.
fn vm_info(socket: &Path) -> Result<Value, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"GET /api/v1/vm.info HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        // The connection stays open: the answer ends where its length says.
        loop {
            let count = stream.read(&mut chunk)?;
            answer.extend(&chunk[..count]);
            let text = String::from_utf8_lossy(&answer);
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Content-Length: "));
                length.and_then(|length| length.parse().ok()) == Some(body.len())
            });
            if whole || count == 0 {
                return Ok(text.into_owned());
            }
        }
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))
}
