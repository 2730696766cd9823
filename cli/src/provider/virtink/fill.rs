//! Disks that outlive their machines' pods: made, filled by Jobs, all at once, and removed. What
//! was interrupted is gone on with; a disk that is whole is never written to again.

use super::disk::{self, FILLED, Progress, Sight, claim_name, job_name, kept, ours};
use super::host::{Host, together};
use super::objects::selector;
use super::persistent::Persistent;
use crate::cluster::name::{ClusterName, NodeName};
use crate::cluster::record::NodeRecord;
use crate::failure::{Failure, Result};
use crate::ui::Reporter;
use futures::FutureExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often the host is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a disk may be in trouble before that is an error.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// How long disks may take to go.
const GO: Duration = Duration::from_secs(120);

/// What the host shows of a cluster's disks.
struct View {
    claims: Vec<PersistentVolumeClaim>,
    jobs: Vec<Job>,
    pods: Vec<Pod>,
    events: Vec<Event>,
}

/// The disks of one host's clusters.
pub(super) struct Disks<'a>(pub(super) &'a Host);

impl Disks<'_> {
    /// Makes the nodes' disks and fills them; returns once all are whole.
    pub(super) async fn fill(
        &self,
        persistent: &Persistent<'_>,
        nodes: &[&NodeRecord],
        owner: &OwnerReference,
        reporter: &dyn Reporter,
    ) -> Result<()> {
        let cluster = &persistent.record.spec.name;
        let deadline = Instant::now() + LIMIT;
        let mut troubled: BTreeMap<&NodeName, Instant> = BTreeMap::new();
        loop {
            let view = self.view(cluster).await?;
            let sights: Vec<_> = nodes.iter().map(|n| (*n, view.of(&n.name))).collect();
            let mut waiting = vec![];
            let mut work = vec![];
            for (node, sight) in &sights {
                let progress = sight.progress(owner);
                if !matches!(progress, Progress::Troubled(_)) {
                    troubled.remove(&node.name);
                }
                match progress {
                    Progress::Whole => {
                        work.push(self.finish(node, sight).boxed());
                        continue;
                    }
                    Progress::Failed(why) => return Err(failed(&node.name, &why)),
                    Progress::Troubled(why) => {
                        let since = *troubled.entry(&node.name).or_insert_with(Instant::now);
                        if since.elapsed() >= PATIENCE {
                            return Err(stuck(persistent, &node.name, &why));
                        }
                        waiting.push((&node.name, why));
                    }
                    Progress::Waits(why) => waiting.push((&node.name, why)),
                }
                work.push(self.begin(persistent, node, sight, owner).boxed());
            }
            together(work).await?;
            let Some((name, why)) = waiting.first() else {
                return Ok(());
            };
            let whole = nodes.len() - waiting.len();
            let seen = format!("{whole} of {} disks filled; {name}: {why}", nodes.len());
            reporter.detail(&seen);
            if Instant::now() > deadline {
                let waited = LIMIT.as_secs();
                return Err(Failure::timeout(format!("after {waited} s: {seen}")));
            }
            sleep(LOOK).await;
        }
    }

    /// Whatever of claim and Job is not there yet.
    async fn begin(
        &self,
        persistent: &Persistent<'_>,
        node: &NodeRecord,
        sight: &Sight<'_>,
        owner: &OwnerReference,
    ) -> Result<()> {
        let Persistent {
            record,
            virtink,
            spec,
        } = *persistent;
        let name = &node.name;
        match sight.claim {
            None => {
                let claim = disk::claim(record, virtink, spec, node, owner);
                let what = format!("asking for a disk for {name}");
                self.0.apply(&what, &claim_name(name), &claim).await?;
            }
            Some(claim) if !ours(claim, owner) => return Ok(()),
            Some(_) => {}
        }
        if sight.job.is_none() {
            let job = disk::fill(record, virtink, spec, node, owner);
            let what = format!("starting to fill the disk of {name}");
            self.0.apply(&what, &job_name(name), &job).await?;
        }
        Ok(())
    }

    /// Writes down that a disk is whole; then its Job has served.
    async fn finish(&self, node: &NodeRecord, sight: &Sight<'_>) -> Result<()> {
        let name = &node.name;
        if let (Some(claim), Some(job)) = (sight.claim, sight.job) {
            if !claim.annotations().contains_key(FILLED) {
                let container = job.spec.as_ref().and_then(|s| s.template.spec.as_ref());
                let image = container.and_then(|p| p.containers.first()?.image.as_deref());
                let filled = json!({"metadata": {
                    // Of this one, not of one that took its place.
                    "uid": claim.uid(),
                    "annotations": {FILLED: image.unwrap_or_default()},
                }});
                let (filled, merge) = (Patch::Merge(filled), PatchParams::default());
                let (api, claim) = (self.0.api::<PersistentVolumeClaim>(), claim_name(name));
                let what = format!("marking the disk of {name} as filled");
                self.0
                    .call(what, || api.patch(&claim, &merge, &filled))
                    .await?;
            }
            self.remove_job(name).await?;
        }
        Ok(())
    }

    async fn remove_job(&self, node: &NodeName) -> Result<()> {
        let what = format!("removing the Job that fills the disk of {node}");
        self.0.delete::<Job>(&what, &job_name(node)).await
    }

    /// Jobs that gave up are out of the way, so that what they did is tried again.
    pub(super) async fn clear_failed(&self, cluster: &ClusterName) -> Result<()> {
        let deadline = Instant::now() + GO;
        loop {
            let view = self.view(cluster).await?;
            let failed = view.jobs.iter().filter(|job| {
                let conditions = job.status.as_ref().and_then(|s| s.conditions.as_ref());
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|c| c.type_ == "Failed" && c.status == "True")
            });
            let failed: Vec<String> = failed.map(ResourceExt::name_any).collect();
            let Some(first) = failed.first() else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(Failure::timeout(format!("Job {first} does not go")));
            }
            let api = self.0.api::<Job>();
            let with_pods = DeleteParams::foreground();
            for job in &failed {
                self.0
                    .call_opt("removing a Job that failed", || api.delete(job, &with_pods))
                    .await?;
            }
            sleep(LOOK).await;
        }
    }

    /// Removes a node's disk, whole or not.
    pub(super) async fn remove(&self, node: &NodeName) -> Result<()> {
        self.remove_job(node).await?;
        let what = format!("removing the disk of {node}");
        let claim = claim_name(node);
        self.0.delete::<PersistentVolumeClaim>(&what, &claim).await
    }

    /// Removes every disk of a cluster, and waits until they are gone: the next cluster of this
    /// name must not find them.
    pub(super) async fn remove_all(
        &self,
        cluster: &ClusterName,
        reporter: &dyn Reporter,
    ) -> Result<()> {
        let ours = ListParams::default().labels(&selector(cluster));
        let (jobs, claims) = (self.0.api::<Job>(), self.0.api::<PersistentVolumeClaim>());
        let parameters = DeleteParams::background();
        self.0
            .call("removing the Jobs that fill disks", || {
                jobs.delete_collection(&parameters, &ours)
            })
            .await?;
        self.0
            .call("removing the disks", || {
                claims.delete_collection(&parameters, &ours)
            })
            .await?;
        let deadline = Instant::now() + GO;
        loop {
            let left = self
                .0
                .call("looking for disks that are left", || {
                    claims.list_metadata(&ours)
                })
                .await?;
            let Some(first) = left.items.first() else {
                return Ok(());
            };
            let seen = format!(
                "{} disks left: {} is held by {}",
                left.items.len(),
                first.name_any(),
                first.finalizers().join(", ")
            );
            reporter.detail(&seen);
            if Instant::now() > deadline {
                return Err(
                    Failure::timeout(format!("not gone after {} s: {seen}", GO.as_secs()))
                        .hint("pods that use a disk hold it: kubectl describe pvc"),
                );
            }
            sleep(LOOK).await;
        }
    }

    /// Makes the disks nobody's but their user's: what is removed with the cluster is not they.
    /// Their names.
    pub(super) async fn keep(&self, cluster: &ClusterName) -> Result<Vec<String>> {
        let api = self.0.api::<PersistentVolumeClaim>();
        let ours = ListParams::default().labels(&selector(cluster));
        let there = self
            .0
            .call("looking for disks", || api.list_metadata(&ours))
            .await?;
        let (patch, merge) = (Patch::Merge(kept(cluster)), PatchParams::default());
        let mut names = vec![];
        for claim in there.items {
            // One that was never whole is worth nothing.
            if claim.annotations().contains_key(FILLED) {
                let name = claim.name_any();
                self.0
                    .call(format!("keeping disk {name}"), || {
                        api.patch_metadata(&name, &merge, &patch)
                    })
                    .await?;
                names.push(name);
            }
        }
        Ok(names)
    }

    async fn view(&self, cluster: &ClusterName) -> Result<View> {
        let host = self.0;
        let ours = ListParams::default().labels(&selector(cluster));
        let (claims, jobs, pods) = (host.api(), host.api(), host.api());
        let what = "looking at the disks";
        let events = host.api::<Event>();
        let of = |fields: &str| ListParams::default().fields(fields);
        let of_claims = of("involvedObject.kind=PersistentVolumeClaim");
        let of_pods = of("involvedObject.kind=Pod,type=Warning");
        let claims = host.call(what, || claims.list(&ours)).await?.items;
        let jobs = host.call(what, || jobs.list(&ours)).await?.items;
        let pods = host.call(what, || pods.list(&ours)).await?.items;
        let mut all = host.call(what, || events.list(&of_claims)).await?.items;
        all.extend(host.call(what, || events.list(&of_pods)).await?.items);
        all.sort_by_key(|e| e.last_timestamp.clone());
        Ok(View {
            claims,
            jobs,
            pods,
            events: all,
        })
    }
}

impl View {
    fn of(&self, node: &NodeName) -> Sight<'_> {
        let (claim, job) = (claim_name(node), job_name(node));
        let job = self.jobs.iter().find(|j| j.name_any() == job);
        let uid = job.and_then(ResourceExt::uid);
        let pods = self.pods.iter().filter(|pod| {
            let owners = pod.owner_references();
            owners.iter().any(|o| Some(&o.uid) == uid.as_ref())
        });
        Sight {
            claim: self.claims.iter().find(|c| c.name_any() == claim),
            job,
            pods: pods.collect(),
            events: self.events.iter().collect(),
        }
    }
}

fn failed(node: &NodeName, why: &str) -> Failure {
    Failure::host(format!("the disk of {node} could not be filled: {why}"))
        .hint("run the command again: it tries anew what is not whole yet")
        .hint("the root image must be one that Virtink can make a disk of (images/README.md)")
}

fn stuck(persistent: &Persistent<'_>, node: &NodeName, why: &str) -> Failure {
    let spec = persistent.spec;
    let class = match &spec.storage_class {
        Some(class) => format!("storage class {class}"),
        None => "the host's default storage class".into(),
    };
    Failure::host(format!(
        "the disk of {node} is not to be had from {class} ({}, {}): {why}",
        spec.access_mode, spec.volume_mode
    ))
    .hint("--storage-class, --access-mode and --volume-mode ask for another kind of disk")
}
