//! Hollow nodes themselves: what the provider's tests take for machines.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use knest_tests::host::Network;
use knest_tests::player::{Guests, Machine, Player, State};
use knest_tests::{Env, Hollow, Host, Need, Snapshot, Steps, host, need, wait};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::json;

const INTERVAL: Duration = Duration::from_millis(100);
/// For what takes no time on an idle machine.
const SOON: Duration = Duration::from_secs(30);
/// For a cluster to come up.
const LIMIT: Duration = Duration::from_secs(300);

/// User-data runs over the image's root, once for each instance on each disk; the machine is off
/// when its button was pressed, and nothing is left of it when it was stopped.
#[test]
fn user_data_runs_once_and_all_ends_with_the_machine() {
    need!(Hollow);
    let env = Env::new();
    let snapshot = Snapshot::take(&[env.root()]);
    let network = Network::new();
    network.enter();
    let mut hollow = Hollow::new();
    let console = env.root().join("one.log");

    let mut machine = machine(env.root(), "first");
    hollow.start(machine.clone()).expect("a start");
    let text = until_said(&console, &mut hollow, "user-data ended with status 7");
    assert!(
        text.contains("one at 10.244.1.1/32, process 1 is init"),
        "{text}"
    );
    assert!(text.contains("nothing was here"), "{text}");
    let root = hollow.root("first").expect("its root");
    assert!(root.join("root/mark").exists());
    assert!(
        !root.join("run/knest/user-data").exists(),
        "user-data stays"
    );
    hollow.press_power_button("first");
    wait::until("off", SOON, INTERVAL, || match hollow.state("first") {
        State::Off => Ok(()),
        state => Err(state),
    });
    hollow.stop("first");

    // The same disk: it has run there.
    hollow
        .start(Machine {
            pod: "again".to_owned(),
            ..machine.clone()
        })
        .expect("a start");
    wait::until("a second boot", SOON, INTERVAL, || {
        let root = hollow.root("again").expect("its root");
        root.join("run/bin/init")
            .exists()
            .then_some(())
            .ok_or("not yet")
    });
    assert_eq!(hollow.state("again"), State::Running);
    hollow.stop("again");
    assert_eq!(read(&console).matches("ended with status").count(), 1);

    // The pod's next disk: an empty one.
    fs::remove_dir_all(&machine.disk).expect("the disk");
    machine.pod = "second".to_owned();
    fs::create_dir_all(&machine.disk).expect("a disk");
    hollow.start(machine.clone()).expect("a start");
    wait::until("user-data again", SOON, INTERVAL, || {
        match read(&console).matches("nothing was here").count() {
            2 => Ok(()),
            count => Err(count),
        }
    });

    machine.pod = "third".to_owned();
    machine.user_data = None;
    let refused = hollow
        .start(machine)
        .expect_err("a machine without user-data");
    assert!(refused.contains("no user-data"), "{refused}");
    drop(hollow);
    drop(network);
    snapshot.assert_nothing_left(SOON, &[env.root()]);
}

/// A test that is killed takes its nodes along.
#[test]
fn a_killed_test_leaves_no_node() {
    need!(Hollow);
    if let Some(directory) = std::env::var_os(CHILD) {
        let network = Network::new();
        network.enter();
        let mut hollow = Hollow::new();
        hollow
            .start(machine(Path::new(&directory), "one"))
            .expect("a start");
        wait::until("death", LIMIT, INTERVAL, || {
            Err::<(), _>(hollow.state("one"))
        });
        return;
    }
    let env = Env::new();
    let snapshot = Snapshot::take(&[env.root()]);
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_killed_test_leaves_no_node"])
        .env(CHILD, env.root())
        .stdout(Stdio::null())
        .spawn()
        .expect("this test again");
    let console = env.root().join("one.log");
    wait::until("user-data", SOON, INTERVAL, || {
        said(&console, "user-data ended")
    });
    let processes = snapshot.since().processes;
    assert!(processes.len() > 3, "{processes:?}");
    child.kill().expect("a signal");
    child.wait().expect("its end");
    snapshot.assert_nothing_left(SOON, &[env.root()]);
}

/// A real control plane and two workers that join it, through a Service of the host.
#[tokio::test]
async fn a_control_plane_and_two_workers() {
    need!(Host, Hollow);
    let steps = Steps::of("hollow nodes");
    let mut host = steps.during("a host", Host::start()).await;
    let real = match Need::Virtink.missing() {
        None => host.install_virtink().await,
        Some(_) => {
            host.define_virtink().await;
            false
        }
    };
    let snapshot = Snapshot::take(&[host.directory()]);
    let player = Player::start(&host, real, Hollow::new());
    let client = host.client().await;
    let machines: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &host::virtink::virtual_machine());
    let service = endpoint(&client).await;
    create(&client, "control-1", &init(&service)).await;
    for worker in WORKERS {
        create(&client, worker, &join(&service)).await;
    }

    let cluster = steps.during("a control plane's own API", cluster(&host, &client));
    let cluster = cluster.await;
    let nodes: Api<Node> = Api::all(cluster.clone());
    let ready = wait::until_async("three nodes Ready", LIMIT, INTERVAL, async || {
        let ready = ready(&nodes).await.map_err(|error| error.to_string())?;
        match ready.len() {
            3 => Ok(()),
            _ => Err(format!("{ready:?}")),
        }
    });
    steps.during("three nodes Ready", ready).await;

    // What is real: each worker's certificate was asked for and signed, static pods show.
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.clone());
    let requests = requests.list(&ListParams::default()).await;
    let requests = requests.expect("requests").items;
    let signed = requests.iter().filter(|request| {
        let status = request.status.as_ref();
        status.is_some_and(|status| status.certificate.is_some())
    });
    assert_eq!(signed.count(), WORKERS.len(), "{requests:?}");
    let pods: Api<Pod> = Api::namespaced(cluster.clone(), "kube-system");
    for component in ["etcd", "kube-apiserver", "kube-controller-manager"] {
        let name = format!("{component}-control-1");
        let shown = async || pods.get(&name).await.map(drop);
        wait::until_async(&name, SOON, INTERVAL, shown).await;
    }

    // Deleting a machine takes nothing but the machine.
    let deleted = machines.delete(WORKERS[0], &DeleteParams::default()).await;
    drop(deleted.expect("deletion"));
    let gone = async || match machines.get_opt(WORKERS[0]).await {
        Ok(None) => Ok(()),
        found => Err(format!("{found:?}")),
    };
    wait::until_async("a machine's end", SOON, INTERVAL, gone).await;
    let left = nodes.list(&ListParams::default()).await.expect("nodes");
    assert_eq!(left.items.len(), 3);
    drop(player);
    snapshot.assert_nothing_left(SOON, &[host.directory()]);
}

const CHILD: &str = "KNEST_TEST_HOLLOW";
const WORKERS: [&str; 2] = ["worker-1", "worker-2"];
const TOKEN: &str = "abcdef.0123456789abcdef";

/// It says where it is and whether it has been there, and fails.
fn machine(directory: &Path, pod: &str) -> Machine {
    let user_data = r#"#!/bin/sh
set -- $(ip -4 -brief address show eth0)
echo "$(cat /proc/sys/kernel/hostname) at $3, process 1 is $(cat /proc/1/comm)"
[ -e /root/mark ] || echo nothing was here
touch /root/mark
exit 7
"#;
    let disk = directory.join("disk");
    fs::create_dir_all(&disk).expect("a disk");
    Machine {
        pod: pod.to_owned(),
        instance: "3b5e".to_owned(),
        name: "one".to_owned(),
        address: Ipv4Addr::new(10, 244, 1, 1),
        user_data: Some(user_data.as_bytes().to_vec()),
        disk,
        logs: directory.to_owned(),
    }
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

fn said(log: &Path, what: &str) -> Result<String, String> {
    let text = read(log);
    if text.contains(what) {
        Ok(text)
    } else {
        Err(text)
    }
}

fn until_said(log: &Path, hollow: &mut Hollow, what: &str) -> String {
    wait::until(what, SOON, INTERVAL, || {
        assert_eq!(hollow.state("first"), State::Running);
        said(log, what)
    })
}

/// The Service that nodes know the API by; returns its address.
async fn endpoint(client: &Client) -> String {
    let service = json!({
        "metadata": {"name": "api"},
        "spec": {"selector": {"role": "control-1"}, "ports": [{"port": 6443}]},
    });
    let service = serde_json::from_value(service).expect("a Service");
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let made = api.create(&PostParams::default(), &service).await;
    let spec = made.expect("a Service").spec.expect("its spec");
    spec.cluster_ip.expect("its address")
}

/// The script of the control plane behind the Service.
fn init(service: &str) -> String {
    format!(
        "#!/bin/sh
set -eu
cat >/run/knest/kubeadm.yaml <<END
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{{token: {TOKEN}}}]
nodeRegistration: {{ignorePreflightErrors: [NumCPU, Mem]}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $(kubeadm version --output short)
controlPlaneEndpoint: {service}:6443
encryptionAlgorithm: ECDSA-P256
END
kubeadm init --config /run/knest/kubeadm.yaml --skip-token-print
"
    )
}

/// The script of a worker, which may come before the control plane does.
fn join(service: &str) -> String {
    format!(
        "#!/bin/sh
until kubeadm join {service}:6443 --token {TOKEN} --discovery-token-unsafe-skip-ca-verification; do
    kubeadm reset --force
    sleep 1
done
"
    )
}

/// A machine with its Secret. Its label `role` is its name.
async fn create(client: &Client, name: &str, user_data: &str) {
    let secret = json!({"metadata": {"name": name}, "stringData": {"value": user_data}});
    let secret = serde_json::from_value(secret).expect("a Secret");
    let api: Api<Secret> = Api::default_namespaced(client.clone());
    let made = api.create(&PostParams::default(), &secret).await;
    drop(made.expect("a Secret"));

    let probe = json!({"httpGet": {"path": "/readyz", "port": 6443, "scheme": "HTTPS"}});
    let machine = json!({
        "apiVersion": "virt.virtink.smartx.com/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "labels": {"role": name}},
        "spec": {
            "readinessProbe": probe,
            "instance": {
                "memory": {"size": "1Gi"},
                "kernel": {"image": "kernel", "cmdline": "console=ttyS0"},
                "disks": [{"name": "root"}, {"name": "seed"}],
                "interfaces": [{"name": "pod"}],
            },
            "volumes": [
                {"name": "root", "containerRootfs": {"image": "node", "size": "8Gi"}},
                {"name": "seed", "cloudInit": {"userDataSecretName": name}},
            ],
            "networks": [{"name": "pod", "pod": {}}],
        },
    });
    let machine: DynamicObject = serde_json::from_value(machine).expect("a machine");
    let kind = host::virtink::virtual_machine();
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &kind);
    let made = api.create(&PostParams::default(), &machine).await;
    drop(made.expect("a machine"));
}

/// A client of the cluster that the machines make, once its API answers: as its administrator,
/// whose kubeconfig lies on the control plane's disk.
async fn cluster(host: &Host, client: &Client) -> Client {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let label = ListParams::default().labels("role=control-1");
    let look = async || {
        let pods = pods.list(&label).await.map_err(|error| error.to_string())?;
        let pod = pods
            .items
            .first()
            .and_then(ResourceExt::uid)
            .ok_or("no pod")?;
        let disk = host.directory().join("pods").join(pod);
        let file = disk.join("upper/etc/kubernetes/admin.conf");
        let read = Kubeconfig::read_from(file).map_err(|error| error.to_string())?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
        let config = config.map_err(|error| error.to_string())?;
        let client = Client::try_from(config).map_err(|error| error.to_string())?;
        let version = client.apiserver_version().await;
        version.map_err(|error| error.to_string())?;
        Ok::<_, String>(client)
    };
    wait::until_async("a control plane's own API", LIMIT, INTERVAL, look).await
}

async fn ready(nodes: &Api<Node>) -> kube::Result<Vec<String>> {
    let nodes = nodes.list(&ListParams::default()).await?;
    let ready = nodes.items.iter().filter(|node| {
        let status = node.status.as_ref();
        let mut conditions = status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    Ok(ready.map(ResourceExt::name_any).collect())
}
