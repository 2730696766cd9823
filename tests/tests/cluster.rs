//! The main job, whole: `knest create` to Ready nodes running real Kubernetes, used, resized, and
//! deleted without a trace. Under QEMU, so that it runs on any machine; what is Cloud Hypervisor's
//! own is in `lab.rs`.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::time::Duration;

use fs_err as fs;
use knest_tests::{Cluster, Env, Snapshot, Steps, alone, images, need, wait};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const NAME: &str = "demo";
/// How a cluster is asked for here; `create` has to be given the same to go on.
const CREATE: [&str; 6] = [
    "create",
    NAME,
    "--vmm",
    "qemu",
    "--worker-machine-count",
    "1",
];

#[test]
fn a_cluster_from_create_to_delete() {
    need!(Cluster);
    let _turn = alone();
    // Base disks are the machine's: the lab's tests, which come next, find them made.
    let env = Env::new().with_variable("KNEST_CACHE_DIR", images::cache());
    images::link(&env);
    whole_life(&Steps::of("cluster"), env);
}

/// What root's run can't show: every namespace, device and file is had without privileges.
#[test]
fn the_same_without_privileges() {
    need!(Cluster, Root, Full);
    let _turn = alone();
    whole_life(&Steps::of("unprivileged"), Env::new().owned_by(12345));
}

/// The last row of the table of versions; its first is what all others run.
#[test]
fn the_oldest_kubernetes() {
    need!(Cluster, Full);
    let _turn = alone();
    let (steps, env) = (Steps::of("oldest Kubernetes"), Env::new());
    let oldest = *images::versions().last().expect("a row");
    steps.step("its node image", || images::make(&env, oldest));
    let snapshot = Snapshot::take(&[env.root()]);
    let cluster = Cluster::new(env, NAME);
    steps.step("create, two nodes", || {
        cluster.knest(&[&CREATE[..], &["--kubernetes-version", oldest]].concat())
    });
    steps.step("nodes, DNS", || {
        two_ready_nodes(&cluster);
        for node in items(&cluster.get(&["nodes"])) {
            assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], oldest);
        }
        dns_is_available(&cluster);
    });
    steps.step("a pod on the worker reaches a Service by name", || {
        pod_reaches_service(&cluster);
    });
    steps.step("delete", || drop(cluster.knest(&["delete", NAME])));
    cluster.assert_nothing_left(&snapshot);
}

/// Two control planes between one and three prove joining and leaving etcd; the stop in between, that
/// a cluster comes back with its addresses and what it knew.
#[test]
fn control_planes_come_and_go() {
    need!(Cluster, Full);
    let _turn = alone();
    let steps = Steps::of("control planes");
    let env = Env::new().with_variable("KNEST_CACHE_DIR", images::cache());
    images::link(&env);
    let snapshot = Snapshot::take(&[env.root()]);
    let cluster = Cluster::new(env, NAME);
    let scale = |count| {
        let more = ["--control-plane-machine-count", count, "--timeout", "25m"];
        drop(cluster.knest(&[&["scale", NAME][..], &more].concat()));
    };

    steps.step("create, one node", || {
        cluster.knest(&["create", NAME, "--vmm", "qemu"])
    });
    let before = addresses(&cluster);
    drop(cluster.kubectl(&["create", "configmap", "kept", "--from-literal=key=value"]));
    steps.step("stop", || cluster.knest(&["stop", NAME]));
    let list: Value = serde_json::from_str(&cluster.knest(&["list", "-o", "json"])).expect("JSON");
    assert_eq!(list[0]["nodes"][0]["machine"], "stopped", "{list}");
    steps.step("start", || cluster.knest(&["start", NAME]));
    assert_eq!(addresses(&cluster), before);
    assert_eq!(cluster.get(&["configmap", "kept"])["data"]["key"], "value");

    let even = cluster.knest_fails(2, &["scale", NAME, "--control-plane-machine-count", "2"]);
    assert!(even.contains("odd"), "{even}");
    steps.step("scale to three control planes", || scale("3"));
    assert_eq!(ready_nodes(&cluster), 3);
    assert_eq!(etcd_members(&cluster, "demo-control-plane-1"), 3);
    steps.step("scale back to one", || scale("1"));
    assert_eq!(ready_nodes(&cluster), 1);
    assert_eq!(etcd_members(&cluster, "demo-control-plane-1"), 1);
    assert_eq!(cluster.get(&["configmap", "kept"])["data"]["key"], "value");
    steps.step("delete", || cluster.knest(&["delete", NAME]));
    cluster.assert_nothing_left(&snapshot);
}

/// Nothing of a cluster but its files is left when its host loses power: all else can be killed. The
/// disk that its node begins as is a ready one.
#[test]
fn a_cluster_outlives_its_processes() {
    need!(Cluster, Full);
    let _turn = alone();
    let steps = Steps::of("power loss");
    let env = Env::new().with_variable("KNEST_CACHE_DIR", images::cache());
    images::link(&env);
    let snapshot = Snapshot::take(&[env.root()]);
    let cluster = Cluster::new(env, NAME);
    let disk = cluster.env.home().join("node.raw");
    let root = format!("file:{}", disk.display());
    let root = ["--control-plane-machine-rootfs-image", &root];
    steps.step("its disk, by itself", || {
        let disk = disk.to_string_lossy();
        let export = ["image", "export", "knest.dev/node:v1.37.2", "--disk", &disk];
        cluster.knest(&[&export[..], &["--size", "8Gi"]].concat())
    });
    steps.step("create, one node", || {
        cluster.knest(&[&["create", NAME, "--vmm", "qemu"][..], &root].concat())
    });
    let before = addresses(&cluster);
    drop(cluster.kubectl(&["create", "configmap", "kept", "--from-literal=key=value"]));
    steps.step("kill -9 of all its processes", || kill(&snapshot));
    steps.step("start", || cluster.knest(&["start", NAME]));
    assert_eq!(addresses(&cluster), before);
    assert_eq!(ready_nodes(&cluster), 1);
    assert_eq!(cluster.get(&["configmap", "kept"])["data"]["key"], "value");
    steps.step("delete", || cluster.knest(&["delete", NAME]));
    fs::remove_file(&disk).expect("its disk");
    cluster.assert_nothing_left(&snapshot);
}

/// Every process that has come since, the supervisor, its VMMs and its way out alike.
fn kill(snapshot: &Snapshot) {
    let killed = Duration::from_secs(20);
    let mut programs = String::new();
    wait::until(
        "no process left",
        killed,
        Duration::from_millis(200),
        || {
            let processes = snapshot.since().processes;
            for process in &processes {
                programs.push_str(process);
                let pid = process.split(' ').next().and_then(|pid| pid.parse().ok());
                let pid = pid.and_then(Pid::from_raw).expect("a process");
                let killed = kill_process(pid, Signal::KILL);
                assert!(matches!(killed, Ok(()) | Err(Errno::SRCH)), "{killed:?}");
            }
            if processes.is_empty() {
                Ok(())
            } else {
                Err(processes)
            }
        },
    );
    for program in ["qemu", "supervise"] {
        assert!(programs.contains(program), "{program}: {programs}");
    }
}

/// The nodes' addresses, by name.
fn addresses(cluster: &Cluster) -> Vec<(String, String)> {
    let nodes = cluster.get(&["nodes"]);
    let mut all: Vec<_> = items(&nodes)
        .map(|node| {
            let address = &node["status"]["addresses"][0]["address"];
            (node["metadata"]["name"].to_string(), address.to_string())
        })
        .collect();
    all.sort();
    all
}

/// Each node gives way to one of the next minor version, and what the cluster knew stays.
#[test]
fn an_upgrade_replaces_every_node() {
    const OLD: &str = "v1.36.3";
    const NEW: &str = "v1.37.2";
    need!(Cluster, Full);
    let _turn = alone();
    let steps = Steps::of("upgrade");
    let env = Env::new().with_variable("KNEST_CACHE_DIR", images::cache());
    steps.step("both node images", || {
        images::make(&env, OLD);
        images::make(&env, NEW);
    });
    let snapshot = Snapshot::take(&[env.root()]);
    let cluster = Cluster::new(env, NAME);
    let to = |version| ["upgrade", NAME, "--kubernetes-version", version];

    steps.step("create, two nodes", || {
        drop(cluster.knest(&[&CREATE[..], &["--kubernetes-version", OLD]].concat()));
    });
    drop(cluster.kubectl(&["create", "configmap", "kept", "--from-literal=key=value"]));
    steps.step("an older version, and one too new", || {
        let older = cluster.knest_fails(2, &to("v1.35.4"));
        assert!(older.contains("older"), "{older}");
        let later = cluster.knest_fails(2, &to("v1.38.0"));
        assert!(later.contains("one minor version"), "{later}");
    });
    steps.step("upgrade", || cluster.knest(&to(NEW)));
    let nodes = cluster.get(&["nodes"]);
    assert_eq!(ready_nodes(&cluster), 2, "{nodes}");
    let seen: Vec<(&str, &str)> = items(&nodes)
        .filter_map(|node| {
            let version = node["status"]["nodeInfo"]["kubeletVersion"].as_str();
            Some((node["metadata"]["name"].as_str()?, version?))
        })
        .collect();
    assert_eq!(
        seen,
        [("demo-control-plane-2", NEW), ("demo-worker-2", NEW)]
    );
    for pod in items(&cluster.get(&["pods", "--namespace", "kube-system"])) {
        // What is still listed of nodes that are gone is cleared away later.
        if !seen
            .iter()
            .any(|(name, _)| pod["spec"]["nodeName"] == *name)
        {
            continue;
        }
        let image = pod["spec"]["containers"][0]["image"].as_str();
        let image = image.expect("a pod's image");
        assert!(!image.ends_with(OLD), "{image}");
    }
    assert_eq!(etcd_members(&cluster, "demo-control-plane-2"), 1);
    dns_is_available(&cluster);
    assert_eq!(cluster.get(&["configmap", "kept"])["data"]["key"], "value");
    steps.step("again", || cluster.knest(&to(NEW)));
    steps.step("delete", || cluster.knest(&["delete", NAME]));
    cluster.assert_nothing_left(&snapshot);
}

/// How many members etcd has, asked on this node.
fn etcd_members(cluster: &Cluster, node: &str) -> usize {
    let pki = "/etc/kubernetes/pki/etcd";
    let etcdctl = [
        "etcdctl",
        "--endpoints=https://127.0.0.1:2379",
        &format!("--cacert={pki}/ca.crt"),
        &format!("--cert={pki}/server.crt"),
        &format!("--key={pki}/server.key"),
        "member",
        "list",
    ];
    let exec = [
        "exec",
        "--namespace",
        "kube-system",
        &format!("etcd-{node}"),
        "--",
    ];
    let list = cluster.kubectl(&[&exec[..], &etcdctl].concat());
    list.lines().count()
}

fn whole_life(steps: &Steps, env: Env) {
    let kubeconfig = env.kubeconfig();
    let snapshot = Snapshot::take(&[env.root()]);
    let cluster = Cluster::new(env, NAME);

    steps.step("create, two nodes", || cluster.knest(&CREATE));
    steps.step("nodes, DNS, kubeconfig, list", || {
        two_ready_nodes(&cluster);
        dns_is_available(&cluster);
        kubeconfig_is_private(&kubeconfig);
        list_shows_it(&cluster);
        static_pods_are_given_time(&cluster);
    });
    steps.step("a pod on the worker reaches a Service by name", || {
        pod_reaches_service(&cluster);
    });
    steps.step("create again is refused", || {
        let same = cluster.knest_fails(2, &CREATE);
        assert!(same.contains("exists"), "{same}");
        let other = [&CREATE[..], &["--kubernetes-version", "v1.36.0"]].concat();
        let other = cluster.knest_fails(2, &other);
        assert!(other.contains(NAME), "{other}");
    });
    steps.step("scale to two workers", || {
        drop(cluster.knest(&["scale", NAME, "--worker-machine-count", "2"]));
        assert_eq!(ready_nodes(&cluster), 3);
    });
    steps.step("scale back to one", || {
        drop(cluster.knest(&["scale", NAME, "--worker-machine-count", "1"]));
        assert_eq!(ready_nodes(&cluster), 2);
    });
    steps.step("delete, and again", || {
        drop(cluster.knest(&["delete", NAME]));
        drop(cluster.knest(&["delete", NAME]));
    });
    cluster.assert_nothing_left(&snapshot);
    let merged = std::fs::read_to_string(&kubeconfig).unwrap_or_default();
    assert!(!merged.contains("knest-demo"), "{merged}");
    assert_eq!(cluster.knest(&["list", "-o", "json"]).trim(), "[]");
}

fn two_ready_nodes(cluster: &Cluster) {
    let nodes = cluster.get(&["nodes"]);
    assert_eq!(ready_nodes(cluster), 2, "{nodes}");
    let names: Vec<&str> = items(&nodes)
        .filter_map(|node| node["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["demo-control-plane-1", "demo-worker-1"]);
}

fn ready_nodes(cluster: &Cluster) -> usize {
    let nodes = cluster.get(&["nodes"]);
    items(&nodes)
        .filter(|node| condition(node, "Ready") == Some("True"))
        .count()
}

fn dns_is_available(cluster: &Cluster) {
    let dns = cluster.get(&["deployment", "coredns", "--namespace", "kube-system"]);
    assert_eq!(condition(&dns, "Available"), Some("True"), "{dns}");
}

/// kubeadm took our patches: it ignores a file whose name it does not know.
fn static_pods_are_given_time(cluster: &Cluster) {
    let thresholds = cluster.kubectl(&[
        "get",
        "pods",
        "--namespace=kube-system",
        "--selector=tier=control-plane",
        "--output=jsonpath={.items[*].spec.containers[*].livenessProbe.failureThreshold}",
    ]);
    assert_eq!(thresholds, "30 30 30 30");
}

fn kubeconfig_is_private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path)
        .expect("the merged kubeconfig")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(path).expect("the merged kubeconfig");
    assert!(text.contains("current-context: knest-demo"), "{text}");
}

fn list_shows_it(cluster: &Cluster) {
    let table = cluster.knest(&["list"]);
    assert!(
        table.lines().any(|line| line.starts_with("demo ")),
        "{table}"
    );
    let list: Value = serde_json::from_str(&cluster.knest(&["list", "-o", "json"])).expect("JSON");
    assert_eq!(list[0]["name"], NAME, "{list}");
    let ready = list[0]["nodes"].as_array().map_or(0, |nodes| {
        nodes
            .iter()
            .filter(|node| node["ready"] == true && node["machine"] == "running")
            .count()
    });
    assert_eq!(ready, 2, "{list}");
    let own = cluster.knest(&["kubeconfig", NAME]);
    assert!(own.contains("knest-demo") && own.contains("client-key-data"));
}

/// The image of kube-proxy has a shell, and is on every node without a registry.
fn pod_reaches_service(cluster: &Cluster) {
    let proxy = cluster.get(&["daemonset", "kube-proxy", "--namespace", "kube-system"]);
    let image = proxy["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
    let image = format!("--image={}", image.expect("kube-proxy's image"));
    // The image has busybox and little else.
    let script = "nc -w 10 kubernetes.default.svc.cluster.local 443 </dev/null && echo reached";
    let overrides = r#"--overrides={"spec":{"nodeName":"demo-worker-1"}}"#;
    let run = [
        "run",
        "probe",
        &image,
        "--image-pull-policy=Never",
        "--restart=Never",
        overrides,
    ];
    let command = [
        "--command",
        "--",
        "busybox",
        "timeout",
        "60",
        "sh",
        "-c",
        script,
    ];
    drop(cluster.kubectl(&[&run[..], &command[..]].concat()));
    cluster.wait_for(
        "the probe",
        Duration::from_secs(120),
        &["pod", "probe"],
        |pod| match pod["status"]["phase"].as_str() {
            Some("Succeeded") => Ok(()),
            _ => Err(pod["status"].to_string()),
        },
    );
    assert_eq!(cluster.kubectl(&["logs", "probe"]).trim(), "reached");
    drop(cluster.kubectl(&["delete", "pod", "probe", "--now"]));
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)?["status"]
        .as_str()
}
