//! The host's nodes against the machines that are to run on them: those that may, what they have
//! left, and whether the machines fit.

use super::amount;
use crate::cluster::record::{NodeRecord, Record};
use crate::failure::{Failure, Result};
use crate::provider::virtink::host::Host;
use crate::provider::virtink::objects::{memory, millicpu};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;

/// What virt-daemon makes of `/dev/kvm` and `/dev/net/tun`.
const DEVICES: [&str; 2] = ["devices.virtink.io/kvm", "devices.virtink.io/tun"];
const PAGE: u32 = 500;

pub(super) async fn check(
    host: &Host,
    record: &Record,
    new: &[&NodeRecord],
    selector: &BTreeMap<String, String>,
) -> Result<()> {
    let hosts = match look(host, selector).await {
        Some(hosts) if !new.is_empty() => hosts,
        _ => return Ok(()),
    };
    let mut machines: Vec<Room> = new
        .iter()
        .map(|node| {
            let spec = record.spec.machine(node.role);
            Room {
                cpu: u128::from(millicpu(spec)),
                memory: u128::from(memory(spec)) * 1000,
                pods: 1000,
            }
        })
        .collect();
    hosts.fit(&mut machines)
}

/// What a machine takes, or a node has left; in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Room {
    memory: u128,
    cpu: u128,
    pods: u128,
}

impl Room {
    fn holds(self, other: Self) -> bool {
        self.memory >= other.memory && self.cpu >= other.cpu && self.pods >= other.pods
    }
    fn without(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(other.memory),
            cpu: self.cpu.saturating_sub(other.cpu),
            pods: self.pods.saturating_sub(other.pods),
        }
    }
    fn words(self) -> String {
        format!(
            "{} of memory and {} CPUs",
            amount::words("memory", self.memory),
            amount::words("cpu", self.cpu)
        )
    }
}

/// The host's nodes, as far as machines are concerned.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::provider::virtink) struct Hosts {
    /// By name, those that can run machines, and what they have left.
    fit: BTreeMap<String, Room>,
    /// Why the others can't, and how many they are.
    unfit: BTreeMap<&'static str, usize>,
    /// Whether what runs already was to be seen.
    known: bool,
}

impl Hosts {
    /// `3 nodes can run machines; 2 can't: no /dev/kvm`.
    pub(in crate::provider::virtink) fn words(&self) -> String {
        let mut words = format!("{} nodes can run machines", self.fit.len());
        if !self.unfit.is_empty() {
            let unfit: usize = self.unfit.values().sum();
            let why: Vec<&str> = self.unfit.keys().copied().collect();
            words.push_str(&format!("; {unfit} can't: {}", why.join(", ")));
        }
        words
    }

    pub(in crate::provider::virtink) fn none(&self) -> bool {
        self.fit.is_empty()
    }

    /// The memory and the processors that all of them have left together.
    pub(in crate::provider::virtink) fn free(&self) -> String {
        let mut all = Room::default();
        for room in self.fit.values() {
            all.memory += room.memory;
            all.cpu += room.cpu;
        }
        let known = if self.known {
            ""
        } else {
            ", less what runs already"
        };
        format!("{} free{known}", all.words())
    }

    /// Puts the largest machines first, each where most is left: what the scheduler does, roughly.
    fn fit(mut self, machines: &mut [Room]) -> Result<()> {
        if self.none() {
            return Err(Failure::host(format!(
                "no node of the host can run machines: {}",
                self.words()
            ))
            .hint("Virtink's daemon gives nodes their devices: kubectl -n virtink-system get pods -o wide"));
        }
        machines.sort_by(|a, b| b.cmp(a));
        let wanted = machines.len();
        for (placed, machine) in machines.iter().enumerate() {
            let roomiest = self.fit.values_mut().filter(|room| room.holds(*machine));
            match roomiest.max() {
                Some(room) => *room = room.without(*machine),
                None => {
                    return Err(Failure::host(format!(
                        "the host has room for {placed} of {wanted} machines: no node has {} left",
                        machine.words()
                    ))
                    .hint("ask for smaller or fewer machines"));
                }
            }
        }
        Ok(())
    }
}

/// The nodes; `None` to whom they are not shown.
pub(in crate::provider::virtink) async fn look(
    host: &Host,
    selector: &BTreeMap<String, String>,
) -> Option<Hosts> {
    let nodes: Vec<Node> = match pages(Api::all(host.client.clone()), ListParams::default()).await {
        Ok(nodes) => nodes,
        Err(error) => {
            tracing::debug!(%error, "the host's nodes");
            return None;
        }
    };
    let living = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let pods: Option<Vec<Pod>> = pages(Api::all(host.client.clone()), living)
        .await
        .inspect_err(|error| tracing::debug!(%error, "the host's pods"))
        .ok();
    let mut hosts = Hosts {
        known: pods.is_some(),
        ..Hosts::default()
    };
    for node in &nodes {
        match unfit(node, selector) {
            Some(why) => *hosts.unfit.entry(why).or_default() += 1,
            None => drop(hosts.fit.insert(node.name_any(), allocatable(node))),
        }
    }
    for spec in pods.iter().flatten().filter_map(|p| p.spec.as_ref()) {
        let node = spec.node_name.as_deref().unwrap_or_default();
        if let Some(room) = hosts.fit.get_mut(node) {
            *room = room.without(taken(spec));
        }
    }
    Some(hosts)
}

async fn pages<K>(api: Api<K>, wanted: ListParams) -> kube::Result<Vec<K>>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let (mut all, mut wanted) = (vec![], wanted.limit(PAGE));
    loop {
        let page = api.list(&wanted).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(token) => wanted = wanted.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Why a node can't run machines, if it can't.
fn unfit(node: &Node, selector: &BTreeMap<String, String>) -> Option<&'static str> {
    let (labels, spec) = (node.labels(), node.spec.as_ref());
    let ready = |node: &Node| {
        let conditions = node
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let tainted = spec.is_some_and(|s| {
        let mut taints = s.taints.iter().flatten();
        taints.any(|t| matches!(&*t.effect, "NoSchedule" | "NoExecute"))
    });
    let amounts = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    let has = |device: &str| {
        let amount = amounts.and_then(|a| a.get(device));
        amount.and_then(|a| amount::parse(&a.0)).unwrap_or_default() > 0
    };
    match () {
        () if !selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value)) =>
        {
            Some("not selected")
        }
        () if !ready(node) => Some("not Ready"),
        () if spec.is_some_and(|s| s.unschedulable == Some(true)) => Some("cordoned"),
        () if tainted => Some("tainted"),
        () if !DEVICES.into_iter().all(has) => Some("without Virtink's devices"),
        () => None,
    }
}

fn allocatable(node: &Node) -> Room {
    let none = BTreeMap::new();
    let status = node.status.as_ref();
    room(status.and_then(|s| s.allocatable.as_ref()).unwrap_or(&none))
}

fn room(amounts: &BTreeMap<String, Amount>) -> Room {
    let of = |name: &str| {
        let amount = amounts.get(name).and_then(|a| amount::parse(&a.0));
        amount.unwrap_or_default()
    };
    Room {
        memory: of("memory"),
        cpu: of("cpu"),
        pods: of("pods"),
    }
}

/// What a pod has asked for: its containers' sum, or its largest init container if that is more.
fn taken(spec: &PodSpec) -> Room {
    let none = BTreeMap::new();
    let of = |container: &k8s_openapi::api::core::v1::Container| {
        let resources = container.resources.as_ref();
        room(resources.and_then(|r| r.requests.as_ref()).unwrap_or(&none))
    };
    let mut sum = Room::default();
    for room in spec.containers.iter().map(of) {
        sum.memory += room.memory;
        sum.cpu += room.cpu;
    }
    for room in spec.init_containers.iter().flatten().map(of) {
        sum.memory = sum.memory.max(room.memory);
        sum.cpu = sum.cpu.max(room.cpu);
    }
    Room { pods: 1000, ..sum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(spec: Value, kvm: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"disk": "fast"}}, "spec": spec,
            "status": {
                "allocatable": {
                    "cpu": "4", "memory": "8Gi", "pods": "110",
                    "devices.virtink.io/kvm": kvm, "devices.virtink.io/tun": "1k",
                },
                "conditions": [{"type": "Ready", "status": ready}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn which_nodes_are_fit() {
        let none = BTreeMap::new();
        let fast = BTreeMap::from([("disk".to_owned(), "fast".to_owned())]);
        let slow = BTreeMap::from([("disk".to_owned(), "slow".to_owned())]);
        let good = node(json!({}), "1k", "True");
        assert_eq!(unfit(&good, &none), None);
        assert_eq!(unfit(&good, &fast), None);
        assert_eq!(unfit(&good, &slow), Some("not selected"));
        let of = |spec, kvm, ready| unfit(&node(spec, kvm, ready), &none);
        assert_eq!(
            of(json!({}), "0", "True"),
            Some("without Virtink's devices")
        );
        assert_eq!(of(json!({}), "1", "Unknown"), Some("not Ready"));
        assert_eq!(
            of(json!({"unschedulable": true}), "1", "True"),
            Some("cordoned")
        );
        let taint = json!({"taints": [{"key": "a", "effect": "NoSchedule"}]});
        assert_eq!(of(taint, "1", "True"), Some("tainted"));
    }

    fn hosts(nodes: &[u128]) -> Hosts {
        let room = |gib: u128| Room {
            memory: (gib << 30) * 1000,
            cpu: 4000,
            pods: 110_000,
        };
        let named = nodes.iter().enumerate();
        Hosts {
            fit: named
                .map(|(n, gib)| (format!("n{n}"), room(*gib)))
                .collect(),
            unfit: BTreeMap::new(),
            known: true,
        }
    }

    #[test]
    fn machines_fit_or_not() {
        let machine = |gib: u128| Room {
            memory: (gib << 30) * 1000,
            cpu: 1000,
            pods: 1000,
        };
        let fit = |nodes: &[u128], machines: &[u128]| {
            let mut machines: Vec<Room> = machines.iter().map(|gib| machine(*gib)).collect();
            hosts(nodes).fit(&mut machines).map_err(|f| f.to_string())
        };
        assert_eq!(fit(&[4, 4], &[1, 3, 3]), Ok(()));
        assert_eq!(
            fit(&[4, 4], &[3, 3, 3]),
            Err(
                "the host has room for 2 of 3 machines: no node has 3072 MiB of memory and 1 CPUs left"
                    .into()
            )
        );
        assert_eq!(fit(&[64], &[1, 1, 1, 1]), Ok(()));
        assert!(fit(&[64], &[1; 5]).is_err(), "processors run out first");
        let failure = Hosts::default().fit(&mut [machine(1)]).unwrap_err();
        assert!(
            failure.to_string().contains("no node of the host"),
            "{failure}"
        );
    }

    #[test]
    fn what_a_pod_takes() {
        let container = |memory: &str| {
            json!({
                "name": "a", "resources": {"requests": {"memory": memory, "cpu": "100m"}},
            })
        };
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [container("1Gi"), container("1Gi")],
            "initContainers": [container("3Gi"), {"name": "b"}],
        }))
        .unwrap();
        let room = taken(&spec);
        assert_eq!((room.memory, room.cpu), ((3 << 30) * 1000, 200));
    }
}
