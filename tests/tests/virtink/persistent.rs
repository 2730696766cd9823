//! Persistent clusters: their addresses and disks, from the first look at the host to the end of
//! the last object.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use knest_tests::hosted::{errors, interrupt, kill_at};
use knest_tests::player::{Guests, Nothing};
use knest_tests::{Hollow, Hosted, Steps, host, need, wait};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};

const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

/// As the original tool published it.
const PUBLISHED: [&str; 11] = [
    "create",
    "demo",
    "--pod-network-cidr",
    "10.245.0.0/16",
    "--service-cidr",
    "10.112.0.0/12",
    "--persistent",
    "--host-cluster-cni",
    "calico",
    "--machine-addresses",
    "10.244.0.100-10.244.0.110",
];

/// A host with Calico, one of whose pods has 10.244.0.7, and room for eight disks.
async fn scene(guests: impl Guests) -> Hosted {
    let mut scene = Hosted::start(guests).await;
    scene.host.define_calico("10.244.0.0/16", &[7]).await;
    scene.host.add_storage("directories", 8).await;
    scene
}

fn published<'a>(more: &[&'a str]) -> Vec<&'a str> {
    PUBLISHED.into_iter().chain(more.iter().copied()).collect()
}

async fn machines(scene: &Hosted, namespace: &str) -> Vec<DynamicObject> {
    let all = ListParams::default();
    scene
        .machines(namespace)
        .list(&all)
        .await
        .expect("machines")
        .items
}

fn address(machine: &DynamicObject) -> &str {
    let asked = machine.annotations().get("cni.projectcalico.org/ipAddrs");
    let asked = asked.expect("an address");
    asked.trim_matches(|c| "[]\"".contains(c))
}

/// The published line, word for word: every machine has its own disk, whole, and its own address,
/// and both again once its pod is lost. Taken back, all of it goes.
#[tokio::test]
async fn the_published_line() {
    need!(Host);
    let scene = scene(Nothing::default()).await;
    let mut knest = scene.begin(&published(&["--worker-machine-count", "2"]));
    scene.running("default", 3, &mut knest).await;
    let machines = machines(&scene, "default").await;
    let addresses: Vec<&str> = machines.iter().map(address).collect();
    assert_eq!(addresses, ["10.244.0.100", "10.244.0.101", "10.244.0.102"]);
    let claims = scene.api::<PersistentVolumeClaim>("default");
    for machine in &machines {
        assert_eq!(machine.data["spec"]["runPolicy"], "Always");
        let claim = claims.get(&format!("{}-root", machine.name_any())).await;
        let claim = claim.expect("a claim");
        assert!(claim.annotations().contains_key("knest.dev/filled"));
    }
    let left = scene.left("default").await;
    assert!(!left.iter().any(|l| l.starts_with("Job")), "{left:?}");
    another_address_is_refused(&scene).await;
    a_lost_pod_comes_back(&scene).await;

    let output = interrupt(knest).await;
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.starts_with("virtink: --persistent is given; context host\n"),
        "{said}"
    );
    scene.nothing_left("default").await;
}

/// A pod that asks for an address gets no other one, whoever plays the host's network.
async fn another_address_is_refused(scene: &Hosted) {
    let pods = scene.api::<Pod>("default");
    let worker = ListParams::default().labels("virtink.io/vm.name=demo-worker-2");
    let pod = pods.list(&worker).await.expect("pods").items.remove(0);
    let other = "10.244.0.200";
    let other = serde_json::json!({"status": {"podIP": other, "podIPs": [{"ip": other}]}});
    let (name, manner, other) = (pod.name_any(), PatchParams::default(), Patch::Merge(other));
    let refused = async || match pods.patch_status(&name, &manner, &other).await {
        Err(error) if error.to_string().contains("it asks for") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait::until_async("a refusal", LIMIT, INTERVAL, refused).await;
}

/// With the same address and the same disk.
async fn a_lost_pod_comes_back(scene: &Hosted) {
    let pods = scene.api::<Pod>("default");
    let worker = ListParams::default().labels("virtink.io/vm.name=demo-worker-1");
    let place = |pod: &Pod| {
        let volumes = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let mut claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
        let claim = claims.next().map(|claim| claim.claim_name.clone());
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        (address, claim)
    };
    let before = pods.list(&worker).await.expect("pods").items.remove(0);
    let at_once = DeleteParams::default().grace_period(0);
    let deleted = pods.delete(&before.name_any(), &at_once).await;
    drop(deleted.expect("a deletion"));
    let after = wait::until_async("the machine again", LIMIT, INTERVAL, async || {
        let now = pods.list(&worker).await.expect("pods").items;
        let new = now.iter().find(|pod| pod.uid() != before.uid());
        match new.map(place) {
            Some((Some(address), claim)) => Ok((Some(address), claim)),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(after, place(&before));
    assert_eq!(after.0.as_deref(), Some("10.244.0.101"));
}

/// Killed at any step, it goes on when it is run again; deleted, it leaves the disks that were to
/// be kept, and without them nothing.
#[tokio::test]
async fn killed_at_any_step_it_leaks_nothing() {
    need!(Host);
    let scene = scene(Nothing::default()).await;
    let create = published(&["--retain"]);
    for step in [
        "Writing the cluster's record",
        "Claiming the nodes' addresses",
        "Fixing the API's address",
        "Making the root disks",
        "Starting the machines",
        "Waiting for the API server",
    ] {
        assert!(kill_at(scene.begin(&create), step).await, "{step}");
    }
    let all = machines(&scene, "default").await;
    assert_eq!(
        all.iter().map(address).collect::<Vec<_>>(),
        ["10.244.0.100"]
    );

    drop(scene.ends(0, &["delete", "demo", "--keep-disks"]));
    let disk = "demo-control-plane-1-root";
    let alone = BTreeSet::from([format!("PersistentVolumeClaim {disk}")]);
    wait::until_async("the disk alone", LIMIT, INTERVAL, async || {
        let left = scene.left("default").await;
        if left == alone { Ok(()) } else { Err(left) }
    })
    .await;
    let claims = scene.api::<PersistentVolumeClaim>("default");
    let kept = claims.get(disk).await.expect("a claim");
    assert!(kept.owner_references().is_empty());
    assert_eq!(kept.labels()["knest.dev/kept-from"], "demo");
    let said = scene.ends(2, &create);
    assert!(said.contains(disk), "{said}");
    let deleted = claims.delete(disk, &DeleteParams::default()).await;
    drop(deleted.expect("a deletion"));
    scene.nothing_left("default").await;

    assert!(kill_at(scene.begin(&create), "Starting the machines").await);
    drop(scene.ends(0, &["delete", "demo"]));
    scene.nothing_left("default").await;
}

/// Two at once on one pool share it, in whatever namespaces they are and whoever is first.
#[tokio::test]
async fn two_at_once_share_a_pool() {
    need!(Host);
    let scene = scene(Nothing::default()).await;
    let mut both = vec![];
    for space in ["one", "two"] {
        scene.namespace(space).await;
        let create = published(&["--worker-machine-count", "2", "-n", space]);
        both.push((space, scene.begin(&create)));
    }
    let mut addresses = BTreeSet::new();
    for (space, knest) in &mut both {
        scene.running(space, 3, knest).await;
        let machines = machines(&scene, space).await;
        addresses.extend(machines.iter().map(|vm| address(vm).to_owned()));
    }
    assert_eq!(addresses.len(), 6, "{addresses:?}");
    for (space, knest) in both {
        drop(interrupt(knest).await);
        scene.nothing_left(space).await;
    }
}

/// What is wrong is said before anything is made.
#[tokio::test]
async fn what_the_host_can_not_give_is_refused() {
    need!(Host);
    let scene = scene(Nothing::default()).await;
    let pool = ["--machine-addresses", "10.244.0.100-10.244.0.110"];
    let refused = |said: &str, flags: &[&str]| {
        let ranges = ["--pod-network-cidr", "10.245.0.0/16"];
        let create = ["create", "demo", "--persistent"].into_iter();
        let create: Vec<&str> = create.chain(ranges).chain(flags.iter().copied()).collect();
        let error = scene.ends(2, &create);
        assert!(error.contains(said), "{flags:?}: {error}");
    };
    let of = |addresses| ["--machine-addresses", addresses];
    refused("10.9.0.1 is not one that calico", &of("10.9.0.1-10.9.0.9"));
    refused("10.244.0.7 is in use", &of("10.244.0.6-10.244.0.9"));
    refused("too few", &of("10.244.0.100"));
    refused("overlap", &of("10.245.0.100-10.245.0.110"));
    refused("lacks an end", &of("10.244.0.100-"));
    refused("ends before it begins", &of("10.244.0.9-10.244.0.1"));
    refused("IPv4", &of("fd00::1-fd00::9"));
    refused("--machine-addresses", &[]);
    let with = |more: [&'static str; 2]| [pool, more].concat();
    refused("no storage class fast", &with(["--storage-class", "fast"]));
    refused("has no kube-ovn", &with(["--host-cluster-cni", "kube-ovn"]));
    refused("flannel", &with(["--host-cluster-cni", "flannel"]));
    refused("Sometimes", &with(["--access-mode", "Sometimes"]));
    let many = with(["--access-mode", "ReadWriteMany"]);
    refused("0 can be used ReadWriteMany as Filesystem", &many);
    refused("--provider", &with(["--provider", "local"]));
    assert_eq!(scene.left("default").await, BTreeSet::new());
}

/// The same on Kube-OVN, which is found by itself; its own addresses are not to be had.
#[tokio::test]
async fn on_kube_ovn() {
    need!(Host);
    let mut scene = Hosted::start(Nothing::default()).await;
    let subnet = ("10.244.0.0/16", "10.244.0.1");
    let used = [[10, 244, 0, 20].into()];
    scene.host.define_kube_ovn(subnet.0, subnet.1, &used).await;
    scene.host.add_storage("directories", 1).await;
    let create = |addresses| {
        let range = ["--pod-network-cidr", "10.245.0.0/16"];
        let persistent = ["--persistent", "--machine-addresses", addresses];
        [&["create", "demo"][..], &range, &persistent].concat()
    };
    let said = scene.ends(2, &create("10.244.0.0/29"));
    assert!(said.contains("10.244.0.1 is a gateway"), "{said}");
    let said = scene.ends(2, &create("10.244.0.20-10.244.0.29"));
    assert!(said.contains("10.244.0.20 is in use"), "{said}");
    let mut knest = scene.begin(&create("10.244.0.21-10.244.0.29"));
    scene.running("default", 1, &mut knest).await;
    let machine = machines(&scene, "default").await.remove(0);
    let asked = |name: &str| machine.annotations().get(name).cloned().unwrap_or_default();
    assert_eq!(asked("ovn.kubernetes.io/ip_address"), "10.244.0.21");
    assert_eq!(asked("ovn.kubernetes.io/mac_address"), "02:6b:0a:f4:00:15");
    drop(interrupt(knest).await);
    scene.nothing_left("default").await;
}

/// What etcd was told outlives every machine's pod, one after the other and all at once, and a rest;
/// each comes back with its address, its disk and its name.
#[tokio::test]
async fn a_cluster_outlives_its_pods() {
    need!(Host, Hollow);
    let steps = Steps::of("virtink, persistent");
    let scene = scene(Hollow::new()).await;
    let create = published(&["--worker-machine-count", "1"]);
    steps.step("create, two nodes", || drop(scene.ends(0, &create)));
    let client = host::client_of(&scene.env.kubeconfig(), "knest-demo").await;
    let keys: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let key = serde_json::json!({"metadata": {"name": "key"}, "data": {"a": "b"}});
    let key: ConfigMap = serde_json::from_value(key).expect("a ConfigMap");
    let told = async || match keys.create(&PostParams::default(), &key).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        told => told.map(drop),
    };
    wait::until_async("etcd takes it", LIMIT, INTERVAL, told).await;
    let before = machines(&scene, "default").await;
    let before: Vec<&str> = before.iter().map(address).collect();

    let names = ["demo-control-plane-1", "demo-worker-1"];
    for lost in [&names[..1], &names[1..], &names[..]] {
        let title = format!("{} lost", lost.join(" and "));
        let back = all_come_back(&scene, &client, lost);
        steps.during(&title, back).await;
    }
    steps.step("stop", || drop(scene.ends(0, &["stop", "demo"])));
    let left = scene.left("default").await;
    assert!(!left.iter().any(|l| l.starts_with("Pod")), "{left:?}");
    steps.step("start", || drop(scene.ends(0, &["start", "demo"])));
    heard(&client, &names, Timestamp::now()).await;

    let now = machines(&scene, "default").await;
    assert_eq!(now.iter().map(address).collect::<Vec<_>>(), before);
    let kept = async || keys.get("key").await;
    let kept = wait::until_async("etcd has it", LIMIT, INTERVAL, kept).await;
    assert_eq!(kept.data.unwrap_or_default()["a"], "b");
    let scale = ["scale", "demo", "--worker-machine-count", "0"];
    steps.step("scale to no worker", || drop(scene.ends(0, &scale)));
    only_the_control_plane_has_anything(&scene).await;
    steps.step("delete", || drop(scene.ends(0, &["delete", "demo"])));
    scene.nothing_left("default").await;
}

/// The worker that left has left its disk and its address too.
async fn only_the_control_plane_has_anything(scene: &Hosted) {
    wait::until_async("one disk", LIMIT, INTERVAL, async || {
        let left = scene.left("default").await;
        let disks = left
            .iter()
            .filter(|l| l.starts_with("PersistentVolumeClaim"));
        let disks: Vec<_> = disks.cloned().collect();
        match disks == ["PersistentVolumeClaim demo-control-plane-1-root"] {
            true => Ok(()),
            false => Err(disks),
        }
    })
    .await;
    let record = scene.api::<Secret>("default").get("knest-demo").await;
    let record = record.expect("the record");
    assert_eq!(record.annotations()["knest.dev/addresses"], "10.244.0.100");
}

/// Deletes the pods of these machines, and waits until their nodes are heard of again.
async fn all_come_back(scene: &Hosted, client: &Client, lost: &[&str]) {
    let pods = scene.api::<Pod>("default");
    let at_once = DeleteParams::default().grace_period(0);
    for name in lost {
        let label = ListParams::default().labels(&format!("virtink.io/vm.name={name}"));
        for pod in pods.list(&label).await.expect("pods") {
            let name = pod.name_any();
            drop(pods.delete(&name, &at_once).await.expect("a deletion"));
            wait::until_async("a pod's end", LIMIT, INTERVAL, async || {
                match pods.get_opt(&name).await {
                    Ok(None) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
    }
    heard(client, lost, Timestamp::now()).await;
}

/// Waits until these nodes' kubelets have renewed their Leases after that time.
async fn heard(client: &Client, nodes: &[&str], since: Timestamp) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    for node in nodes {
        let what = format!("{node} again");
        wait::until_async(&what, 2 * LIMIT, INTERVAL, async || {
            let lease = leases.get(node).await.map_err(|error| error.to_string())?;
            match lease.spec.and_then(|spec| spec.renew_time) {
                Some(renewed) if renewed.0 > since => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}
