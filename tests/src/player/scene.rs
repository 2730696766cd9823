//! What the player knows and remembers, and the loop that has every part look at it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Guests, Lost};
use crate::host::{nodes, virtink};

/// How often all is looked at though nothing changed: guests and probes change unseen.
const LOOK: Duration = Duration::from_millis(500);
/// How long changes are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(20);
/// How often kubelets say that they live.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A pod that has been started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) address: Ipv4Addr,
    pub(super) runs: Runs,
    pub(super) ready: bool,
}

/// What a pod runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runs {
    Machine,
    Task,
    Other,
}

/// All of it.
pub(super) struct Scene {
    pub(super) client: Client,
    pub(super) pods: Store<Pod>,
    pub(super) machines: Store<DynamicObject>,
    /// By pod UID.
    pub(super) started: BTreeMap<String, Started>,
    /// What was said already, so that it is said once.
    pub(super) said: BTreeSet<String>,
    pub(super) setting: Setting,
    heartbeat: Option<Instant>,
}

/// What a player is started with.
pub(super) struct Setting {
    /// Where pods' directories are.
    pub(super) directory: PathBuf,
    /// Where machines' logs are, and the player's.
    pub(super) logs: PathBuf,
    /// Whether virt-controller is real.
    pub(super) controller: bool,
    pub(super) guests: Box<dyn Guests>,
    pub(super) lost: Lost,
}

impl Scene {
    /// Plays until the other end of `stopped` is dropped; then every guest is stopped.
    pub(super) async fn play(client: Client, setting: Setting, mut stopped: oneshot::Receiver<()>) {
        let (pods, write_pods) = reflector::store();
        let write_machines = reflector::store::Writer::new(virtink::virtual_machine());
        let all = watcher::Config::default();
        let pod_changes = watcher(Api::<Pod>::all(client.clone()), all.clone())
            .default_backoff()
            .reflect(write_pods)
            .map(drop);
        let every = Api::all_with(client.clone(), &virtink::virtual_machine());
        let machines = write_machines.as_reader();
        let machine_changes = watcher(every, all)
            .default_backoff()
            .reflect(write_machines)
            .map(drop);
        let mut changes = pin!(stream::select(pod_changes, machine_changes));
        let mut scene = Self {
            client,
            pods,
            machines,
            started: BTreeMap::new(),
            said: BTreeSet::new(),
            setting,
            heartbeat: None,
        };
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                _ = changes.next() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            let mut gather = pin!(tokio::time::sleep(GATHER));
            loop {
                tokio::select! {
                    () = &mut gather => break,
                    _ = changes.next() => {}
                }
            }
            scene.look().await;
        }
        for pod in std::mem::take(&mut scene.started).into_keys() {
            scene.setting.guests.stop(&pod);
        }
    }

    async fn look(&mut self) {
        if self
            .heartbeat
            .is_none_or(|last| last.elapsed() >= HEARTBEAT)
        {
            let beaten = self.beat().await;
            if beaten.is_ok() {
                self.heartbeat = Some(Instant::now());
            }
            self.survive("heartbeat", beaten);
        }
        for pod in self.pods.state() {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            if self.setting.lost.has(node) {
                continue;
            }
            let looked = self.look_at_pod(&pod).await;
            self.survive(&pod.name_any(), looked);
        }
        self.forget_pods();
        for machine in self.machines.state() {
            let node = machine.data["status"]["nodeName"].as_str();
            let mut looked = match self.setting.lost.has(node) {
                true => Ok(()),
                false => self.daemon(&machine).await,
            };
            if looked.is_ok() && !self.setting.controller {
                looked = self.control(&machine).await;
            }
            self.survive(&machine.name_any(), looked);
        }
    }

    /// What one call met is tried again at the next look, when the object is newer; till then it
    /// is in the player's log.
    fn survive(&self, name: &str, looked: kube::Result<()>) {
        if let Err(error) = looked {
            let log = self.setting.logs.join("player.log");
            let file = fs_err::OpenOptions::new()
                .create(true)
                .append(true)
                .open(log);
            drop(file.and_then(|mut file| writeln!(file, "{name}: {error}")));
        }
    }

    async fn beat(&self) -> kube::Result<()> {
        let manner = PatchParams::apply("player").force();
        let now = k8s_openapi::jiff::Timestamp::now();
        for number in 1..=nodes::NODES {
            let name = nodes::name(number);
            if self.setting.lost.has(Some(&name)) {
                continue;
            }
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name},
                "spec": {
                    "holderIdentity": name, "leaseDurationSeconds": 40,
                    "renewTime": format!("{now:.6}"),
                },
            });
            let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
            leases.patch(&name, &manner, &Patch::Apply(lease)).await?;
            let status = json!({"status": {"conditions": [nodes::ready(true)]}});
            let api: Api<Node> = Api::all(self.client.clone());
            api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status))
                .await?;
        }
        Ok(())
    }

    /// The pods of a virtual machine.
    pub(super) fn pods_of(&self, machine: &DynamicObject) -> Vec<Arc<Pod>> {
        let uid = machine.uid().unwrap_or_default();
        self.pods
            .state_filter(|pod| pod.owner_references().iter().any(|owner| owner.uid == uid))
    }
}
