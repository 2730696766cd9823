//! The machines of one cluster as their host shows them, kept up to date by watching: any number
//! of looks costs the host nothing.

use super::api::{Phase, RunPolicy, VirtualMachine};
use super::host::Host;
use super::objects::selector;
use crate::cluster::name::ClusterName;
use crate::failure::{Failure, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{Store, store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// How long the first answer may take.
const FIRST: Duration = Duration::from_secs(60);

/// VirtualMachines and their pods.
pub(super) struct Machines {
    machines: Store<VirtualMachine>,
    pods: Store<Pod>,
    /// What the pods of machines, by UID, had to tell last: a failed machine's is gone at once.
    told: Arc<Mutex<BTreeMap<String, String>>>,
    /// Counts what was heard.
    heard: watch::Receiver<u64>,
    /// What keeps the watches from hearing anything.
    trouble: Arc<Mutex<Option<String>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Machines {
    pub(super) fn watch(host: &Host, cluster: &ClusterName) -> Self {
        let (counter, heard) = watch::channel(0);
        let (counter, trouble) = (Arc::new(counter), Arc::new(Mutex::new(None)));
        let (machines, one) = follow(host, cluster, &counter, &trouble, |_| {});
        let told = Arc::new(Mutex::new(BTreeMap::new()));
        let note = {
            let told = Arc::clone(&told);
            move |pod: &Pod| {
                if let Some(why) = trouble_of(pod)
                    && let Ok(mut told) = told.lock()
                {
                    let owners = pod.owner_references().iter();
                    told.extend(owners.map(|o| (o.uid.clone(), why.clone())));
                }
            }
        };
        let (pods, two) = follow(host, cluster, &counter, &trouble, note);
        Self {
            machines,
            pods,
            told,
            heard,
            trouble,
            tasks: [one, two],
        }
    }

    /// Waits for the first answers.
    pub(super) async fn ready(&self) -> Result<()> {
        let both = async {
            let machines = self.machines.wait_until_ready().await;
            machines.and(self.pods.wait_until_ready().await)
        };
        match tokio::time::timeout(FIRST, both).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::internal("a watch ended").because(error)),
            Err(_) => Err(Failure::host(format!(
                "watching the machines: no answer in {} s{}",
                FIRST.as_secs(),
                self.trouble()
            ))),
        }
    }

    /// Every machine, by name.
    pub(super) fn all(&self) -> Vec<Arc<VirtualMachine>> {
        let mut all = self.machines.state();
        all.sort_by_key(|vm| vm.name_any());
        all
    }

    /// The pod of a machine.
    pub(super) fn pod(&self, vm: &VirtualMachine) -> Option<Arc<Pod>> {
        let named = vm.status.as_ref().and_then(|s| s.vm_pod_name.as_deref());
        self.pods.find(|pod| match named {
            Some(name) => pod.name_any() == name,
            None => pod
                .owner_references()
                .iter()
                .any(|o| o.uid == vm.uid().unwrap_or_default()),
        })
    }

    /// What its pod had to tell last.
    pub(super) fn told(&self, vm: &VirtualMachine) -> Option<String> {
        let told = self.told.lock().ok()?;
        told.get(&vm.uid()?).cloned()
    }

    /// Waits until `probe` is satisfied with what the watches say: it returns what is still
    /// missing. At the deadline that is the error.
    pub(super) async fn until(
        &self,
        deadline: Instant,
        mut probe: impl FnMut(&Self) -> Result<Option<String>>,
    ) -> Result<()> {
        let mut heard = self.heard.clone();
        loop {
            heard.borrow_and_update();
            let Some(missing) = probe(self)? else {
                return Ok(());
            };
            match timeout_at(deadline, heard.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Failure::internal("a watch ended")),
                Err(_) => return Err(Failure::timeout(format!("{missing}{}", self.trouble()))),
            }
        }
    }

    fn trouble(&self) -> String {
        let trouble = self.trouble.lock().ok().and_then(|t| t.clone());
        trouble.map_or_else(String::new, |t| format!(" (the host cluster: {t})"))
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Keeps a store of a cluster's objects of a kind.
fn follow<K>(
    host: &Host,
    cluster: &ClusterName,
    counter: &Arc<watch::Sender<u64>>,
    trouble: &Arc<Mutex<Option<String>>>,
    note: impl Fn(&K) + Send + 'static,
) -> (Store<K>, JoinHandle<()>)
where
    K: kube::Resource<Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    K::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
{
    let (reader, writer) = store();
    let config = watcher::Config::default().labels(&selector(cluster));
    let events = reflector(writer, watcher(host.api::<K>(), config)).default_backoff();
    let (counter, trouble) = (Arc::clone(counter), Arc::clone(trouble));
    let task = tokio::spawn(events.for_each(move |event| {
        if let Ok(Event::Apply(object) | Event::InitApply(object)) = &event {
            note(object);
        }
        let error = event.err().map(|e| e.to_string());
        if let Some(error) = &error {
            tracing::debug!(error, "a watch");
        }
        if let Ok(mut slot) = trouble.lock() {
            *slot = error;
        }
        counter.send_modify(|n| *n += 1);
        std::future::ready(())
    }));
    (reader, task)
}

/// A pod that is taken off its node, and why: its host is being emptied, or lost. On a lost one it goes
/// on being there, as the machine does on paper.
fn taken_off(pod: &Pod) -> Option<String> {
    pod.metadata.deletion_timestamp.as_ref()?;
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|c| c.type_ == "DisruptionTarget" && c.status == "True")?;
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    let why = condition.message.as_deref().or(condition.reason.as_deref());
    Some(format!(
        "its pod is taken off {node}: {}",
        why.unwrap_or("not said why")
    ))
}

/// How a machine stands, in words: `None` while it runs or is on its way there.
pub(super) fn ended(
    vm: &VirtualMachine,
    pod: Option<&Pod>,
    told: Option<String>,
) -> Option<String> {
    if vm.metadata.deletion_timestamp.is_some() {
        return Some("its VirtualMachine is being deleted".into());
    }
    let words = |word: &str| match pod.and_then(trouble_of).or_else(|| told.clone()) {
        Some(why) => format!("{word}: {why}"),
        None => word.into(),
    };
    match vm.status.as_ref()?.phase? {
        // It is about to run again.
        _ if vm.spec.run_policy == Some(RunPolicy::Always) => None,
        Phase::Succeeded => Some(words("it powered off")),
        Phase::Failed => Some(words("its VirtualMachine failed")),
        _ => pod.and_then(taken_off),
    }
}

/// What a machine that does not run yet waits for; `complaint` is what the host said of it.
pub(super) fn waits(
    vm: &VirtualMachine,
    pod: Option<&Pod>,
    complaint: Option<String>,
) -> Option<String> {
    let phase = vm.status.as_ref().and_then(|s| s.phase);
    match phase {
        Some(Phase::Running) => None,
        None => Some("Virtink has not taken it up yet".into()),
        Some(phase) => {
            let why = pod.and_then(trouble_of).or(complaint);
            Some(match (why, pod) {
                (Some(why), _) => format!("{phase:?}: {why}"),
                (None, None) => format!("{phase:?}: no pod yet"),
                (None, Some(_)) => format!("{phase:?}"),
            })
        }
    }
}

/// Why a pod is not running, in the words of whoever keeps it from that.
pub(super) fn trouble_of(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let join = |reason: Option<&String>, message: Option<&String>| match (reason, message) {
        (Some(r), Some(m)) => Some(format!("{r}: {m}")),
        (one, other) => one.or(other).cloned(),
    };
    let of_container = |container: &ContainerStatus| {
        let state = container.state.as_ref()?;
        let why = match (&state.waiting, &state.terminated) {
            // That its turn has not come, or just has, says nothing.
            (Some(w), _)
                if matches!(
                    w.reason.as_deref(),
                    Some("PodInitializing" | "ContainerCreating")
                ) =>
            {
                None
            }
            (Some(w), _) => join(w.reason.as_ref(), w.message.as_ref()),
            (_, Some(t)) if t.exit_code != 0 => Some(
                join(t.reason.as_ref(), t.message.as_ref())
                    .unwrap_or_else(|| format!("exit status {}", t.exit_code)),
            ),
            _ => None,
        }?;
        Some(format!("container {}: {why}", container.name))
    };
    let containers = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    let unscheduled = || {
        let mut conditions = status.conditions.iter().flatten();
        let condition = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        join(condition.reason.as_ref(), condition.message.as_ref())
    };
    join(status.reason.as_ref(), status.message.as_ref())
        .or_else(|| containers.into_iter().find_map(of_container))
        .or_else(unscheduled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn vm(phase: Option<&str>) -> VirtualMachine {
        let status = phase.map(|p| json!({"phase": p}));
        serde_json::from_value(json!({
            "apiVersion": "virt.virtink.smartx.com/v1alpha1", "kind": "VirtualMachine",
            "metadata": {"name": "demo-worker-1"}, "spec": {"instance": {}}, "status": status,
        }))
        .unwrap()
    }

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "vm-x"}, "status": status})).unwrap()
    }

    #[test]
    fn what_a_pod_waits_for_is_told() {
        let unscheduled = pod(json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
             "message": "0/3 nodes are available: 3 Insufficient memory."},
        ]}));
        let pulling = pod(json!({"initContainerStatuses": [
            {"name": "init-kernel", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}},
            {"name": "init-volume-root", "image": "", "imageID": "", "ready": false,
             "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}},
        ]}));
        let creating = pod(json!({"containerStatuses": [
            {"name": "cloud-hypervisor", "image": "", "imageID": "", "ready": false,
             "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}},
        ]}));
        let text = |phase, pod: Option<&Pod>| waits(&vm(phase), pod, None);
        let said = |pod| waits(&vm(Some("Scheduling")), pod, Some("FailedMount: no".into()));
        insta::assert_debug_snapshot!([
            text(Some("Scheduling"), Some(&unscheduled)),
            text(Some("Scheduled"), Some(&pulling)),
            text(Some("Pending"), None),
            text(None, None),
            text(Some("Running"), None),
            text(Some("Scheduling"), Some(&creating)),
            said(Some(&creating)),
            said(None),
            said(Some(&unscheduled)),
        ], @r#"
        [
            Some(
                "Scheduling: Unschedulable: 0/3 nodes are available: 3 Insufficient memory.",
            ),
            Some(
                "Scheduled: container init-kernel: ErrImagePull: not found",
            ),
            Some(
                "Pending: no pod yet",
            ),
            Some(
                "Virtink has not taken it up yet",
            ),
            None,
            Some(
                "Scheduling",
            ),
            Some(
                "Scheduling: FailedMount: no",
            ),
            Some(
                "Scheduling: FailedMount: no",
            ),
            Some(
                "Scheduling: Unschedulable: 0/3 nodes are available: 3 Insufficient memory.",
            ),
        ]
        "#);
    }

    #[test]
    fn how_it_ended_is_told() {
        let evicted = pod(json!({"reason": "Evicted", "message": "low on memory"}));
        let ended =
            |phase, pod, told: Option<&str>| ended(&vm(Some(phase)), pod, told.map(str::to_owned));
        let failed = Some("its VirtualMachine failed: Evicted: low on memory".to_owned());
        assert_eq!(ended("Failed", Some(&evicted), None), failed);
        let told = Some("Evicted: low on memory");
        assert_eq!(ended("Failed", None, told), failed);
        assert_eq!(ended("Running", Some(&evicted), None), None);
        let disrupted = |deleted| {
            serde_json::from_value(json!({
                "metadata": {"name": "vm-x", "deletionTimestamp": deleted},
                "spec": {"nodeName": "host-2", "containers": []},
                "status": {"conditions": [
                    {"type": "DisruptionTarget", "status": "True", "message": "Taint manager"},
                ]},
            }))
            .unwrap()
        };
        let lost: Pod = disrupted(json!("2026-11-25T10:00:00Z"));
        assert_eq!(
            ended("Running", Some(&lost), None),
            Some("its pod is taken off host-2: Taint manager".into())
        );
        let asked: Pod = disrupted(json!(null));
        assert_eq!(ended("Running", Some(&asked), None), None);
        assert_eq!(
            ended("Succeeded", None, None),
            Some("it powered off".into())
        );
    }
}
