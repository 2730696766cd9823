//! A kubelet's part: a pod that has a node gets its volumes, an address and its guest, or waits and
//! says for what; its end and its readiness show in its status; once it is to go it goes.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Probe, Secret, Volume};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};

use super::scene::{Runs, Scene, Started};
use super::task::{mounts, task};
use super::{Machine, State};
use crate::host::nodes;

/// What Virtink gives every pod of a machine, by the machine's name.
pub(super) const MACHINE: &str = "virtink.io/vm.name";
/// How long a probe may take.
const PROBE: Duration = Duration::from_secs(1);
/// The key that Virtink reads user-data from.
const USER_DATA: &str = "value";

impl Scene {
    pub(super) async fn look_at_pod(&mut self, pod: &Pod) -> kube::Result<()> {
        let uid = pod.uid().unwrap_or_default();
        if pod
            .spec
            .as_ref()
            .is_none_or(|spec| spec.node_name.is_none())
        {
            return Ok(());
        }
        if pod.metadata.deletion_timestamp.is_some() {
            self.end(&uid);
            let own = Preconditions {
                uid: Some(uid),
                resource_version: None,
            };
            let now = DeleteParams {
                preconditions: Some(own),
                ..DeleteParams::default()
            };
            let gone = self
                .pods_in(pod)
                .delete(&pod.name_any(), &now.grace_period(0))
                .await;
            return gone.map(|_| ());
        }
        let status = pod.status.as_ref();
        match status.and_then(|status| status.phase.as_deref()) {
            Some("Succeeded" | "Failed") => {
                self.end(&uid);
                Ok(())
            }
            _ if self.started.contains_key(&uid) => self.look_at_running(pod, &uid).await,
            _ => self.start(pod, uid).await,
        }
    }

    /// Ends what pods ran that are not there any more.
    pub(super) fn forget_pods(&mut self) {
        let there: Vec<String> = self
            .pods
            .state()
            .iter()
            .filter_map(|pod| pod.uid())
            .collect();
        let gone: Vec<String> = self
            .started
            .keys()
            .filter(|uid| !there.contains(uid))
            .cloned()
            .collect();
        for uid in gone {
            self.end(&uid);
        }
    }

    /// Its volumes first: one that lacks a Secret waits, as a kubelet has it wait.
    async fn start(&mut self, pod: &Pod, uid: String) -> kube::Result<()> {
        let mut user_data = None;
        let mut places = vec![];
        let mut disk = self.setting.directory.join(&uid);
        for volume in pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
        {
            match self.volume(pod, volume).await? {
                Ok(Mounted::Secret(secret)) => user_data = user_data.or(secret),
                Ok(Mounted::Claim(claim)) => {
                    disk = self.setting.directory.join(claim);
                    places.extend(mounts(pod, &volume.name).map(|path| (path, disk.clone())));
                }
                Ok(Mounted::Other) => {}
                Err(missing) => return self.complain(pod, "FailedMount", &missing).await,
            }
        }
        let address = match self.address(pod) {
            Ok(address) => address,
            Err(taken) => return self.complain(pod, "FailedCreatePodSandBox", &taken).await,
        };
        let owner = |kind| {
            let owners = pod.owner_references().iter();
            owners.into_iter().find(|owner| owner.kind == kind)
        };
        let name = pod.labels().get(MACHINE);
        let (runs, begun) = match (owner("VirtualMachine"), name, owner("Job")) {
            (Some(owner), Some(name), _) => {
                let machine = Machine {
                    pod: uid.clone(),
                    instance: owner.uid.clone(),
                    name: name.clone(),
                    address,
                    user_data,
                    disk: disk.clone(),
                    logs: self.setting.logs.clone(),
                };
                let start = |()| self.setting.guests.start(machine);
                (Runs::Machine, directory(&disk).and_then(start))
            }
            (_, _, Some(_)) => {
                let begin = |()| self.setting.guests.begin(task(pod, uid.clone(), &places));
                (Runs::Task, directory(&disk).and_then(begin))
            }
            _ => (Runs::Other, Ok(())),
        };
        if let Err(error) = begun {
            return self.set_phase(pod, "Failed", &error).await;
        }
        let ready = pod.spec.as_ref().is_none_or(|spec| probe(spec).is_none());
        self.started.insert(
            uid,
            Started {
                address,
                runs,
                ready,
            },
        );
        self.patch(pod, running(pod, address, ready)).await
    }

    async fn look_at_running(&mut self, pod: &Pod, uid: &str) -> kube::Result<()> {
        let Some(&Started {
            address,
            runs,
            ready,
        }) = self.started.get(uid)
        else {
            return Ok(());
        };
        match runs {
            // The VMM stays for Virtink's daemon to see that the machine is off.
            Runs::Machine => {
                if let State::Failed(why) = self.setting.guests.state(uid) {
                    return self.set_phase(pod, "Failed", &why).await;
                }
            }
            Runs::Task => match self.setting.guests.ended(uid) {
                Some(Ok(())) => return self.set_phase(pod, "Succeeded", "").await,
                Some(Err(why)) => return self.set_phase(pod, "Failed", &why).await,
                None => {}
            },
            Runs::Other => {}
        }
        let Some(probe) = pod.spec.as_ref().and_then(probe) else {
            return Ok(());
        };
        let answers = answers(address, probe).await;
        if answers == ready {
            return Ok(());
        }
        if let Some(started) = self.started.get_mut(uid) {
            started.ready = answers;
        }
        self.patch(pod, running(pod, address, answers)).await
    }

    /// Stops what a pod ran and throws away what was its own.
    fn end(&mut self, uid: &str) {
        if self.started.remove(uid).is_some() {
            self.setting.guests.stop(uid);
            drop(fs::remove_dir_all(self.setting.directory.join(uid)));
        }
    }

    async fn volume(&self, pod: &Pod, volume: &Volume) -> kube::Result<Result<Mounted, String>> {
        let namespace = pod.namespace().unwrap_or_default();
        if let Some(source) = &volume.secret {
            let name = source.secret_name.clone().unwrap_or_default();
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
            let secret = api.get_opt(&name).await?;
            let Some(secret) = secret else {
                if source.optional == Some(true) {
                    return Ok(Ok(Mounted::Other));
                }
                let volume = &volume.name;
                return Ok(Err(format!(
                    "MountVolume.SetUp failed for volume \"{volume}\" : secret \"{name}\" not found"
                )));
            };
            let value = secret.data.and_then(|mut data| data.remove(USER_DATA));
            return Ok(Ok(Mounted::Secret(value.map(|value| value.0))));
        }
        if let Some(source) = &volume.persistent_volume_claim {
            let name = &source.claim_name;
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
            let claim = api.get_opt(name).await?;
            let message = format!("persistentvolumeclaim \"{name}\" not found");
            return Ok(claim
                .and_then(|claim| claim.uid())
                .map(Mounted::Claim)
                .ok_or(message));
        }
        Ok(Ok(Mounted::Other))
    }

    /// The one that the CNI was asked for by annotation, else the next; `Err` while it is taken.
    fn address(&self, pod: &Pod) -> Result<Ipv4Addr, String> {
        let taken = |address| {
            self.started
                .values()
                .any(|started| started.address == address)
        };
        let asked = pod.annotations().get("cni.projectcalico.org/ipAddrs");
        let asked = asked.or_else(|| pod.annotations().get("ovn.kubernetes.io/ip_address"));
        if let Some(asked) = asked {
            let text = asked.trim_matches(|c| "[]\" ".contains(c));
            let address = text.parse().map_err(|_| format!("{asked} is no address"))?;
            return if taken(address) {
                Err(format!(
                    "failed to assign an IP address: {address} is in use"
                ))
            } else {
                Ok(address)
            };
        }
        let free = (256..u32::from(u16::MAX)).map(|number| {
            let [high, low] = u16::try_from(number).unwrap_or_default().to_be_bytes();
            Ipv4Addr::new(10, 244, high, low)
        });
        let mut free = free.filter(|&address| !matches!(address.octets()[3], 0 | 255));
        free.find(|&address| !taken(address))
            .ok_or_else(|| "no address is free".to_owned())
    }

    /// An event about an object.
    pub(super) async fn warn(&self, about: Value, reason: &str, message: &str) -> kube::Result<()> {
        let now = k8s_openapi::jiff::Timestamp::now();
        let namespace = about["namespace"].as_str().unwrap_or_default().to_owned();
        let event = json!({
            "metadata": {"generateName": "player-", "namespace": namespace},
            "involvedObject": about,
            "type": "Warning", "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "player"},
        });
        let event: Event = serde_json::from_value(event).expect("an Event");
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        api.create(&PostParams::default(), &event).await.map(drop)
    }

    /// An event on a pod that waits, once.
    async fn complain(&mut self, pod: &Pod, reason: &str, message: &str) -> kube::Result<()> {
        let uid = pod.uid().unwrap_or_default();
        if !self.said.insert(format!("{uid} {message}")) {
            return Ok(());
        }
        let about = json!({
            "apiVersion": "v1", "kind": "Pod", "name": pod.name_any(),
            "namespace": pod.namespace(), "uid": uid,
        });
        self.warn(about, reason, message).await?;
        let status = containers(
            pod,
            |name| json!({"name": name, "waiting": {"reason": "ContainerCreating"}}),
        );
        self.patch(
            pod,
            json!({"phase": "Pending", "containerStatuses": status}),
        )
        .await
    }

    async fn set_phase(&self, pod: &Pod, phase: &str, message: &str) -> kube::Result<()> {
        let code = i32::from(phase == "Failed");
        let ended = json!({"terminated": {"exitCode": code, "reason": phase, "message": message}});
        let containers = containers(pod, |_| ended.clone());
        self.patch(
            pod,
            json!({
                "phase": phase, "message": message, "containerStatuses": containers,
                "conditions": [condition("Ready", false)],
            }),
        )
        .await
    }

    async fn patch(&self, pod: &Pod, status: Value) -> kube::Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid()}, "status": status}));
        let api = self.pods_in(pod);
        let patched = api
            .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
            .await;
        patched.map(drop)
    }

    fn pods_in(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}

fn directory(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| error.to_string())
}

/// What a volume gives a pod.
enum Mounted {
    Secret(Option<Vec<u8>>),
    /// A claim's UID, by which its directory outlives the pod.
    Claim(String),
    Other,
}

fn running(pod: &Pod, address: Ipv4Addr, ready: bool) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now();
    let statuses = containers(pod, |_| json!({"running": {"startedAt": now}}));
    let statuses: Vec<Value> = statuses
        .into_iter()
        .map(|mut status| {
            status["ready"] = json!(ready);
            status["started"] = json!(true);
            status
        })
        .collect();
    json!({
        "phase": "Running",
        "hostIP": nodes::address(1),
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "containerStatuses": statuses,
        "conditions": [
            condition("PodScheduled", true), condition("Initialized", true),
            condition("ContainersReady", ready), condition("Ready", ready),
        ],
    })
}

fn containers(pod: &Pod, state: impl Fn(&str) -> Value) -> Vec<Value> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let status = |name: &str, image: Option<&String>| {
        json!({
            "name": name, "image": image, "imageID": "", "ready": false, "restartCount": 0,
            "state": state(name),
        })
    };
    containers
        .map(|container| status(&container.name, container.image.as_ref()))
        .collect()
}

fn condition(kind: &str, holds: bool) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now();
    let status = if holds { "True" } else { "False" };
    json!({"type": kind, "status": status, "lastTransitionTime": now})
}

fn probe(spec: &k8s_openapi::api::core::v1::PodSpec) -> Option<&Probe> {
    spec.containers.first()?.readiness_probe.as_ref()
}

/// Whether a probe of the two kinds that reach a machine succeeds; any other one does.
async fn answers(address: Ipv4Addr, probe: &Probe) -> bool {
    let number = |port: &IntOrString| match port {
        IntOrString::Int(port) => u16::try_from(*port).unwrap_or_default(),
        IntOrString::String(_) => 0,
    };
    let asked = async {
        if let Some(tcp) = &probe.tcp_socket {
            return tokio::net::TcpStream::connect((address, number(&tcp.port)))
                .await
                .is_ok();
        }
        let Some(get) = &probe.http_get else {
            return true;
        };
        let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        let path = get.path.as_deref().unwrap_or("/");
        let Ok(server) = format!("{scheme}://{address}:{}", number(&get.port)).parse() else {
            return false;
        };
        let mut config = Config::new(server);
        config.accept_invalid_certs = true;
        config.default_retry = false;
        let Ok(client) = Client::try_from(config) else {
            return false;
        };
        let Ok(request) = http::Request::get(path).body(Vec::new()) else {
            return false;
        };
        client.request_text(request).await.is_ok()
    };
    tokio::time::timeout(PROBE, asked).await.unwrap_or(false)
}
