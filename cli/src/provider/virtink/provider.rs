//! `Virtink`: the provider's acts, each out of the parts beside this file.

use super::api::VirtualMachine;
use super::complaints::Complaints;
use super::console::Consoles;
use super::disk;
use super::endpoint;
use super::fill::Disks;
use super::host::{Host, together};
use super::index::{self, Place};
use super::lock::{Held, LeaseLock};
use super::objects::{self, RECORD_TYPE, selector, user_data_name};
use super::persistent::Persistent;
use super::preflight;
use super::store::Records;
use super::watch::{Machines, ended, waits};
use crate::cluster::name::{ClusterName, NodeName};
use crate::cluster::record::{Endpoint, NodeRecord, NodeState, Record};
use crate::cluster::spec::{ProviderSpec, Role, VirtinkSpec};
use crate::failure::{Failure, Kind, Result};
use crate::image::Registries;
use crate::paths::Paths;
use crate::provider::{Lock, MachineRequest, MachineState, MachineStatus, NodeAddress, Provider};
use crate::ui::Reporter;
use async_trait::async_trait;
use futures::FutureExt;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How long new machines may take to show up in the watch.
const SHOW: Duration = Duration::from_secs(60);
/// How long machines may take to go.
const GO: Duration = Duration::from_secs(240);

/// Machines on a host cluster.
pub(crate) struct Virtink {
    paths: Paths,
    pub(super) host: Host,
    pub(super) records: Records,
    consoles: Consoles,
    complaints: Complaints,
    /// What is known of the clusters that this process works on.
    known: Mutex<BTreeMap<ClusterName, Known>>,
}

#[derive(Clone, Default)]
struct Known {
    /// As it was read or written last.
    record: Option<Record>,
    /// Machines that were there once: absent, they are lost.
    made: BTreeSet<NodeName>,
    watch: Option<Arc<Machines>>,
    lock: Option<Held>,
}

impl Virtink {
    pub(crate) fn new(paths: &Paths, host: Host) -> Self {
        Self {
            paths: paths.clone(),
            records: Records::of(host.clone()),
            consoles: Consoles::of(host.clone()),
            complaints: Complaints::of(host.clone()),
            host,
            known: Mutex::default(),
        }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Ranges of the host's that the user may see.
    pub(crate) async fn taken_ranges(&self) -> Vec<Ipv4Net> {
        let taken = preflight::taken(&self.host).await;
        taken.into_iter().map(|(_, range)| range).collect()
    }

    /// Whether the host's nodes can have the images of machines to come; what there is to know of them.
    pub(crate) async fn check_images(&self, record: &Record) -> Result<Vec<String>> {
        let registries = Registries::read(&self.paths)?;
        preflight::check_images(&self.host, record, &registries).await
    }

    /// Where all of its objects are.
    pub(crate) fn namespace(&self) -> &str {
        &self.host.namespace
    }

    /// The same host's other namespaces that have clusters, and this one if it has.
    pub(crate) async fn everywhere(&self) -> Result<Vec<Self>> {
        let namespaces = Records::namespaces(&self.host).await?;
        let of = |namespace| {
            let host = Host {
                namespace,
                ..self.host.clone()
            };
            Self::new(&self.paths, host)
        };
        Ok(namespaces.into_iter().map(of).collect())
    }

    /// `CONTEXT/NAMESPACE`.
    pub(crate) fn word(&self) -> String {
        format!("{}/{}", self.host.context, self.host.namespace)
    }

    /// Where a cluster of this name is, for the index.
    fn place(&self, name: &ClusterName) -> Place {
        Place {
            name: name.clone(),
            context: self.host.context.clone(),
            host_kubeconfig: self.host.kubeconfig.clone(),
            namespace: self.host.namespace.clone(),
            kubeconfig: None,
        }
    }

    /// What this machine's index says of it.
    fn indexed(&self, name: &ClusterName) -> Result<Option<Place>> {
        let place = self.place(name);
        Ok(index::read(&self.paths)?
            .into_iter()
            .find(|p| p.same(&place)))
    }

    fn known<T>(&self, name: &ClusterName, act: impl FnOnce(&mut Known) -> T) -> Result<T> {
        let mut all = self
            .known
            .lock()
            .map_err(|_| Failure::internal("another task of this process failed"))?;
        Ok(act(all.entry(name.clone()).or_default()))
    }

    pub(super) async fn watch(&self, name: &ClusterName) -> Result<Arc<Machines>> {
        let watch = self.known(name, |known| {
            let new = || Arc::new(Machines::watch(&self.host, name));
            Arc::clone(known.watch.get_or_insert_with(new))
        })?;
        watch.ready().await?;
        Ok(watch)
    }

    /// Nothing is written once another may be writing.
    pub(super) fn held(&self, name: &ClusterName) -> Result<()> {
        let lock = self.known(name, |known| known.lock.clone())?;
        match lock.and_then(|lock| lock.lost()) {
            Some(why) => Err(
                Failure::host(format!("the lock on cluster {name} was lost: {why}"))
                    .hint("run the command again: it goes on where it stopped"),
            ),
            None => Ok(()),
        }
    }

    /// Secret first: a machine without one fails.
    async fn make(&self, record: &Record, request: &MachineRequest) -> Result<()> {
        let (virtink, node) = (virtink(record)?, &request.node);
        let owner = self.records.owner(&record.spec.name)?;
        let script = Some(request.user_data.as_str());
        let secret = objects::user_data(record, &self.host.namespace, node, script, &owner);
        let machine = objects::machine(record, virtink, node, &owner);
        let what = format!("making machine {}", node.name);
        let secret_name = user_data_name(&node.name);
        self.host.apply(&what, &secret_name, &secret).await?;
        let name = node.name.as_str();
        self.host.apply(&what, name, &machine).await.map(drop)
    }

    async fn unmake(&self, node: &NodeName) -> Result<()> {
        let what = format!("removing machine {node}");
        let host = &self.host;
        host.delete::<VirtualMachine>(&what, node.as_str()).await?;
        host.delete::<Secret>(&what, &user_data_name(node)).await
    }

    /// What refers to the Secret still finds it.
    async fn empty(
        &self,
        record: &Record,
        node: &NodeRecord,
        owner: &OwnerReference,
    ) -> Result<()> {
        let secret = objects::user_data(record, &self.host.namespace, node, None, owner);
        let what = format!("emptying the user-data of {}", node.name);
        let secret_name = user_data_name(&node.name);
        self.host
            .apply(&what, &secret_name, &secret)
            .await
            .map(drop)
    }

    /// Waits until none of these machines is there, all of them where none is named.
    async fn gone(
        &self,
        name: &ClusterName,
        nodes: Option<&[NodeName]>,
        reporter: Option<&dyn Reporter>,
    ) -> Result<()> {
        let watch = self.watch(name).await?;
        let waited = watch.until(Instant::now() + GO, |watch| {
            let left: Vec<_> = watch
                .all()
                .into_iter()
                .filter(|vm| {
                    nodes.is_none_or(|nodes| nodes.iter().any(|n| n.as_str() == vm.name_any()))
                })
                .collect();
            let Some(first) = left.first() else {
                return Ok(None);
            };
            let missing = format!("{} machines left: {}", left.len(), keeps(first));
            if let Some(reporter) = reporter {
                reporter.detail(&missing);
            }
            Ok(Some(missing))
        });
        waited.await.map_err(|failure| {
            failure
                .while_doing(format!("not gone after {} s", GO.as_secs()))
                .hint(
                    "Virtink's daemon on that node of the host frees a machine: if the node is \
                     lost, remove it from the host, then delete again",
                )
        })
    }

    fn status(
        &self,
        vm: &VirtualMachine,
        watch: &Machines,
        console: Option<String>,
    ) -> Option<MachineStatus> {
        let pod = watch.pod(vm);
        let pod = pod.as_deref();
        let console = console.unwrap_or_default();
        let state = match ended(vm, pod, watch.told(vm)) {
            None => MachineState::Running,
            Some(reason) if disk::stays(vm) => MachineState::Stopped { reason },
            // It runs once, and its disk was its pod's.
            Some(reason) => MachineState::Lost { reason },
        };
        let about = |uid: Option<String>| self.complaints.about(&uid?);
        let complaint = about(pod.and_then(ResourceExt::uid)).or_else(|| about(vm.uid()));
        let tail = match waits(vm, pod, complaint) {
            Some(waits) if console.is_empty() && state == MachineState::Running => {
                format!("its machine: {waits}")
            }
            _ => console,
        };
        Some(MachineStatus {
            name: vm.name_any().parse().ok()?,
            state,
            // The script itself tells one that began anew: the host does not.
            reboots: 0,
            console_tail: tail,
        })
    }
}

/// What keeps a machine from going.
fn keeps(vm: &VirtualMachine) -> String {
    let name = vm.name_any();
    let node = vm.status.as_ref().and_then(|s| s.node_name.as_deref());
    match (vm.metadata.deletion_timestamp.is_some(), node) {
        (true, Some(node)) => format!("{name} is held by Virtink's daemon on {node}"),
        (true, None) => format!("{name} is held by Virtink's controller"),
        (false, _) => format!("{name} is not being deleted yet"),
    }
}

fn virtink(record: &Record) -> Result<&VirtinkSpec> {
    match &record.spec.provider {
        ProviderSpec::Virtink(virtink) => Ok(virtink),
        ProviderSpec::Local { .. } => Err(Failure::internal(format!(
            "cluster {} is not on a host cluster",
            record.spec.name
        ))),
    }
}

#[async_trait]
impl Provider for Virtink {
    fn place(&self) -> String {
        format!(
            "in namespace {} of context {}",
            self.host.namespace, self.host.context
        )
    }

    fn notes(&self, _: &Record) -> Vec<String> {
        vec![]
    }

    async fn preflight(&self, record: &Record) -> Result<()> {
        preflight::check(&self.host, record, virtink(record)?).await?;
        match Persistent::of(record) {
            Some(persistent) => persistent.check(&self.host, &self.records).await,
            None => Ok(()),
        }
    }

    async fn lock(&self, name: &ClusterName) -> Result<Box<dyn Lock>> {
        preflight::namespace(&self.host).await?;
        let lock = match LeaseLock::acquire(&self.host, name).await {
            Ok(lock) => lock,
            // Where this is not allowed, more may be missing: all of it is told at once.
            Err(failure) if failure.kind == Kind::Host => {
                preflight::check_access(&self.host, false).await?;
                return Err(failure);
            }
            Err(failure) => return Err(failure),
        };
        self.known(name, |known| known.lock = Some(lock.flag()))?;
        Ok(Box::new(lock))
    }

    async fn exists(&self, name: &ClusterName) -> Result<bool> {
        if self.records.exists(name).await? {
            return Ok(true);
        }
        let api: Api<VirtualMachine> = self.host.api();
        let one = ListParams::default().labels(&selector(name)).limit(1);
        let left = self
            .host
            .call_opt("looking for machines", || api.list(&one))
            .await?;
        let exists = left.is_some_and(|l| !l.items.is_empty());
        if !exists {
            index::remove(&self.paths, &self.place(name))?;
        }
        Ok(exists)
    }

    /// As it concerns this machine: which kubeconfig of its holds the context.
    async fn load(&self, name: &ClusterName) -> Result<Option<Record>> {
        let Some(mut record) = self.records.load(name).await? else {
            index::remove(&self.paths, &self.place(name))?;
            return Ok(None);
        };
        record.kubeconfig = self.indexed(name)?.and_then(|p| p.kubeconfig);
        self.known(name, |known| known.record = Some(record.clone()))?;
        Ok(Some(record))
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let name = &record.spec.name;
        self.held(name)?;
        let place = Place {
            kubeconfig: record.kubeconfig.clone(),
            ..self.place(name)
        };
        index::put(&self.paths, place)?;
        let shared = Record {
            kubeconfig: None,
            ..record.clone()
        };
        self.records.save(&shared).await?;
        self.known(name, |known| known.record = Some(record.clone()))
    }

    async fn forget(&self, name: &ClusterName) -> Result<()> {
        self.held(name)?;
        self.records.remove(name).await?;
        index::remove(&self.paths, &self.place(name))
    }

    async fn names(&self) -> Result<Vec<ClusterName>> {
        self.records.names().await
    }

    async fn reserve_endpoint(&self, record: &Record) -> Result<Endpoint> {
        let name = &record.spec.name;
        self.held(name)?;
        let (expose, owner) = (virtink(record)?.expose, self.records.owner(name)?);
        endpoint::reserve(&self.host, name, expose, &owner).await
    }

    fn reserve_address(&self, _: &Record, _: Role) -> Result<NodeAddress> {
        // The host's network gives both.
        Ok(NodeAddress {
            address: None,
            mac: String::new(),
        })
    }

    async fn claim_addresses(&self, record: &Record) -> Result<Record> {
        self.claim(record).await
    }

    /// The host's nodes pull the images, and Virtink makes disks of them that go with their pods;
    /// only disks that stay are made here.
    async fn prepare(&self, record: &Record, reporter: &dyn Reporter) -> Result<()> {
        let Some(persistent) = Persistent::of(record) else {
            return Ok(());
        };
        let name = &record.spec.name;
        self.held(name)?;
        let owner = self.records.owner(name)?;
        let wanted: Vec<&NodeRecord> = record.in_state(NodeState::Wanted).collect();
        let disks = Disks(&self.host);
        disks.clear_failed(name).await?;
        disks.fill(&persistent, &wanted, &owner, reporter).await
    }

    async fn keep_disks(&self, record: &Record) -> Result<Vec<String>> {
        let name = &record.spec.name;
        self.held(name)?;
        match Persistent::of(record) {
            Some(_) => Disks(&self.host).keep(name).await,
            None => Err(Failure::usage(format!(
                "cluster {name} is not persistent: its disks are its machines' pods'"
            ))),
        }
    }

    /// Returns once Virtink has been told of every machine: whether they run is seen in
    /// [`Self::machines`], with what keeps them from it.
    async fn start_machines(&self, record: &Record, machines: &[MachineRequest]) -> Result<()> {
        let name = &record.spec.name;
        self.held(name)?;
        let watch = self.watch(name).await?;
        let there: BTreeSet<String> = watch.all().iter().map(|vm| vm.name_any()).collect();
        let mut work = vec![];
        for request in machines {
            if !there.contains(request.node.name.as_str()) {
                work.push(self.make(record, request).boxed());
            }
        }
        together(work).await?;
        let all: BTreeSet<NodeName> = machines.iter().map(|m| m.node.name.clone()).collect();
        watch
            .until(Instant::now() + SHOW, |watch| {
                let there: BTreeSet<String> = watch.all().iter().map(|vm| vm.name_any()).collect();
                let missing = all.iter().find(|n| !there.contains(n.as_str()));
                Ok(missing.map(|n| format!("machine {n} does not show up on the host")))
            })
            .await?;
        self.known(name, |known| known.made.extend(all))
    }

    async fn machines(&self, name: &ClusterName) -> Result<Vec<MachineStatus>> {
        // Who waits for them does so in vain once it may write nothing.
        self.held(name)?;
        let watch = self.watch(name).await?;
        let (record, made) =
            self.known(name, |known| (known.record.clone(), known.made.clone()))?;
        let nodes = record.map(|r| r.nodes).unwrap_or_default();
        let all = watch.all();
        // Whose console is worth a request: those that are to become nodes, and those that ended.
        let young = |vm: &VirtualMachine| {
            let name = vm.name_any();
            nodes
                .iter()
                .any(|n| n.name.as_str() == name && n.state == NodeState::Wanted)
        };
        let mut pods = vec![];
        for vm in &all {
            let pod = watch.pod(vm);
            if (young(vm) || ended(vm, pod.as_deref(), None).is_some())
                && let Some(pod) = pod
            {
                pods.push((vm.name_any(), pod));
            }
        }
        let working = self.known(name, |known| known.lock.is_some())?;
        if working && all.iter().any(|vm| ended(vm, None, None).is_some()) {
            // They may have ended with all that is there.
            preflight::namespace(&self.host).await?;
        }
        self.consoles.look(&pods).await;
        if all.iter().any(|vm| waits(vm, None, None).is_some()) {
            self.complaints.look().await;
        }
        let mut statuses: Vec<MachineStatus> = all
            .iter()
            .filter_map(|vm| self.status(vm, &watch, self.consoles.tail(&vm.name_any())))
            .collect();
        let lost = nodes.iter().filter(|n| {
            let expected = n.state == NodeState::Ready || made.contains(&n.name);
            n.state != NodeState::Leaving && expected && !statuses.iter().any(|s| s.name == n.name)
        });
        let lost: Vec<_> = lost
            .map(|node| MachineStatus {
                name: node.name.clone(),
                state: MachineState::Lost {
                    reason: "its VirtualMachine is gone from the host".into(),
                },
                reboots: 0,
                console_tail: String::new(),
            })
            .collect();
        statuses.extend(lost);
        Ok(statuses)
    }

    fn can_stop(&self, record: &Record) -> Result<()> {
        if Persistent::of(record).is_some() {
            return Ok(());
        }
        let name = &record.spec.name;
        Err(Failure::usage(format!(
            "cluster {name} can't be stopped: a machine of its host that is off has lost its disk"
        ))
        .hint(format!(
            "what runs in it can be taken away instead: knest scale {name} --worker-machine-count 0"
        )))
    }

    async fn stop_machines(&self, record: &Record, reporter: &dyn Reporter) -> Result<()> {
        self.can_stop(record)?;
        self.halt(record, reporter).await
    }

    async fn resume_machines(&self, record: &Record) -> Result<()> {
        let name = &record.spec.name;
        let machines = self.machines(name).await?;
        let lost = machines
            .iter()
            .find(|m| matches!(m.state, MachineState::Lost { .. }));
        match lost {
            None if Persistent::of(record).is_some() => self.wake(record).await,
            None => Ok(()),
            Some(machine) => Err(Failure::guest(format!(
                "machine {} is lost, and its disk with it",
                machine.name
            ))
            .hint(format!("knest scale {name} replaces it"))),
        }
    }

    async fn remove_machines(&self, record: &Record, nodes: &[NodeName]) -> Result<()> {
        let name = &record.spec.name;
        self.held(name)?;
        self.known(name, |known| {
            known.made.retain(|n| !nodes.contains(n));
        })?;
        let mut work = vec![];
        for node in nodes {
            work.push(self.unmake(node).boxed());
        }
        together(work).await?;
        self.gone(name, Some(nodes), None).await?;
        if Persistent::of(record).is_some() {
            for node in nodes {
                Disks(&self.host).remove(node).await?;
            }
        }
        Ok(())
    }

    async fn seal(&self, record: &Record, nodes: &[NodeName]) -> Result<()> {
        let name = &record.spec.name;
        self.held(name)?;
        let owner = self.records.owner(name)?;
        let named: BTreeSet<&NodeName> = nodes.iter().collect();
        let mut work = vec![];
        for node in &record.nodes {
            if named.contains(&node.name) {
                work.push(self.empty(record, node, &owner).boxed());
            }
        }
        together(work).await.map(drop)
    }

    async fn teardown(&self, name: &ClusterName, reporter: &dyn Reporter) -> Result<()> {
        self.held(name)?;
        self.known(name, |known| known.made.clear())?;
        let ours = ListParams::default().labels(&selector(name));
        let parameters = DeleteParams::background();
        let machines: Api<VirtualMachine> = self.host.api();
        let removed = self
            .host
            .call_opt("removing the machines", || {
                machines.delete_collection(&parameters, &ours)
            })
            .await?;
        // No such kind, no such machine.
        if removed.is_some() {
            self.gone(name, None, Some(reporter)).await?;
        }
        let record = self.known(name, |known| known.record.clone())?;
        if record.as_ref().and_then(Persistent::of).is_some() {
            Disks(&self.host).remove_all(name, reporter).await?;
        }
        let service = objects::name_of(name);
        self.host
            .delete::<Service>("removing the API's Service", &service)
            .await?;
        let secrets: Api<Secret> = self.host.api();
        let scripts = ours.fields(&format!("type!={RECORD_TYPE}"));
        self.host
            .call("removing the machines' Secrets", || {
                secrets.delete_collection(&parameters, &scripts)
            })
            .await
            .map(drop)
    }
}
