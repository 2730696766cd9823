//! One knest at a time on a cluster, from whatever machines: a Lease that its holder renews.
//!
//! ```text
//!  absent ──create──► held by us ──renew, every few seconds──► held by us
//!  held by another:  renewed while we look ─► refused, its holder named
//!                    not renewed for its whole duration ─► taken over
//!                    by a process of this machine that is gone ─► taken over at once
//! ```
//!
//! Clocks are not compared: what counts is whether the Lease changes while we look.

use super::host::{Host, is, passing};
use super::objects::{meta, name_of};
use crate::cluster::name::ClusterName;
use crate::failure::{Failure, Result, innermost};
use crate::provider;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A Lease that is not renewed for so long is nobody's.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(4);
/// How often another's is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long giving it back may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// Whether a lock is still held: shared by the guard, its renewal, and whoever writes under it.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<Mutex<Option<String>>>);

impl Held {
    /// Why it is not held any more.
    pub(super) fn lost(&self) -> Option<String> {
        match self.0.lock() {
            Ok(lost) => lost.clone(),
            Err(_) => Some("another task of this process failed".into()),
        }
    }
    fn lose(&self, why: impl ToString) {
        if let Ok(mut lost) = self.0.lock() {
            *lost = Some(why.to_string());
        }
    }
}

/// The held Lease.
pub(super) struct LeaseLock {
    api: Api<Lease>,
    name: String,
    uid: Option<String>,
    held: Held,
    renewal: tokio::task::JoinHandle<()>,
}

impl LeaseLock {
    pub(super) async fn acquire(host: &Host, cluster: &ClusterName) -> Result<Self> {
        let api: Api<Lease> = host.api();
        let name = name_of(cluster);
        let what = format!("locking cluster {cluster}");
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            let ours = lease(host, cluster);
            let post = PostParams::default();
            let Some(there) = host.call_opt(&what, || api.get(&name)).await? else {
                let made = host.call(&what, || async {
                    unless_late(api.create(&post, &ours).await)
                });
                match made.await? {
                    Some(lease) => return Ok(Self::held(api, lease, cluster)),
                    // Somebody was faster, or our own attempt was heard after all: look again.
                    None => continue,
                }
            };
            if there
                .metadata
                .labels
                .as_ref()
                .is_none_or(|l| !l.contains_key(super::objects::CLUSTER))
            {
                return Err(foreign(host, "Lease", &name));
            }
            let version = there.metadata.resource_version.clone();
            let holder = holder_of(&there);
            let free = holder.is_empty() || gone(&holder);
            let (since, changed) = match &seen {
                Some((before, since)) if *before == version => (*since, false),
                Some(_) => (Instant::now(), true),
                None => (Instant::now(), false),
            };
            if free || since.elapsed() >= DURATION {
                // The version makes it fail where the holder lives on after all.
                let mut taken = ours;
                taken.metadata.resource_version = version;
                let made = host.call(&what, || async {
                    unless_late(api.replace(&name, &post, &taken).await)
                });
                match made.await? {
                    Some(lease) => return Ok(Self::held(api, lease, cluster)),
                    None => {
                        seen = None;
                        continue;
                    }
                }
            }
            if changed {
                return Err(Failure::host(format!(
                    "cluster {cluster} is being worked on: held by {holder}"
                ))
                .hint("wait for that command, or stop it with Ctrl-C"));
            }
            seen = Some((version, since));
            sleep(LOOK).await;
        }
    }

    fn held(api: Api<Lease>, lease: Lease, cluster: &ClusterName) -> Self {
        let held = Held::default();
        let name = name_of(cluster);
        let uid = lease.metadata.uid.clone();
        let renewal = tokio::spawn(renew(api.clone(), lease, held.clone()));
        Self {
            api,
            name,
            uid,
            held,
            renewal,
        }
    }

    pub(super) fn flag(&self) -> Held {
        self.held.clone()
    }
}

/// Renews until the guard goes, or until another holds it: then nothing more may be written.
async fn renew(api: Api<Lease>, mut lease: Lease, held: Held) {
    let name = lease.metadata.name.clone().unwrap_or_default();
    let mut renewed = Instant::now();
    let late = |renewed: Instant| renewed.elapsed() >= DURATION.saturating_sub(RENEWAL);
    loop {
        sleep(RENEWAL).await;
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(now());
        }
        let post = PostParams::default();
        let attempt = api.replace(&name, &post, &lease);
        match tokio::time::timeout(RENEWAL, attempt).await {
            Ok(Ok(now)) => {
                lease = now;
                renewed = Instant::now();
            }
            Ok(Err(error)) if is(&error, 409) || is(&error, 404) => {
                // Ours all the same, if only an answer was lost.
                match api.get(&name).await {
                    Ok(there) if holder_of(&there) == holder_of(&lease) => lease = there,
                    _ => return held.lose("another knest took it"),
                }
            }
            // The host is away for a moment. Before others take it for free, so do we.
            Ok(Err(error)) if late(renewed) => return held.lose(innermost(&error)),
            Err(_) if late(renewed) => return held.lose("the host cluster does not answer"),
            _ => {}
        }
    }
}

impl provider::Lock for LeaseLock {}

impl Drop for LeaseLock {
    fn drop(&mut self) {
        self.renewal.abort();
        if self.held.lost().is_some() {
            return;
        }
        let parameters = DeleteParams {
            preconditions: self.uid.clone().map(|uid| Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let (api, name) = (self.api.clone(), self.name.clone());
        let farewell = async move {
            let given_back = async {
                while api
                    .delete(&name, &parameters)
                    .await
                    .is_err_and(|e| passing(&e))
                {
                    sleep(LOOK).await;
                }
            };
            drop(tokio::time::timeout(FAREWELL, given_back).await);
        };
        // The process may end right after: then nobody would be left to do it later.
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| runtime.block_on(farewell));
    }
}

/// `None` where another was faster.
fn unless_late(answer: kube::Result<Lease>) -> kube::Result<Option<Lease>> {
    match answer {
        Err(error) if is(&error, 409) || is(&error, 404) => Ok(None),
        other => other.map(Some),
    }
}

fn lease(host: &Host, cluster: &ClusterName) -> Lease {
    Lease {
        metadata: meta(name_of(cluster), &host.namespace, cluster, None, None),
        spec: Some(LeaseSpec {
            holder_identity: Some(identity()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now()),
            renew_time: Some(now()),
            ..LeaseSpec::default()
        }),
    }
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}

fn holder_of(lease: &Lease) -> String {
    let spec = lease.spec.as_ref();
    spec.and_then(|s| s.holder_identity.clone())
        .unwrap_or_default()
}

/// `knest create demo (process 123 of office.example, boot …)`: what a person can make sense of,
/// and what tells whether a process of this machine is still there.
fn identity() -> String {
    let program = std::env::args().skip(1).take(2);
    let words: Vec<String> = program.collect();
    format!(
        "knest {} (process {} of {}, boot {})",
        words.join(" "),
        std::process::id(),
        host_name(),
        boot()
    )
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// What tells one run of one machine's kernel from every other, and whose process numbers they
/// are.
fn boot() -> String {
    let id = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match (id.trim(), fs_err::read_link("/proc/self/ns/pid")) {
        ("", _) | (_, Err(_)) => String::new(),
        (id, Ok(namespace)) => format!("{id} {}", namespace.display()),
    }
}

/// Whether the holder was a process of this machine and is there no more.
fn gone(holder: &str) -> bool {
    let boot = boot();
    if boot.is_empty() || !holder.ends_with(&format!("boot {boot})")) {
        return false;
    }
    let pid = holder
        .rsplit_once("(process ")
        .and_then(|(_, rest)| rest.split(' ').next())
        .and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| {
        pid == std::process::id() || !std::path::Path::new(&format!("/proc/{pid}")).exists()
    })
}

/// An object of this name that is not knest's is never touched.
pub(super) fn foreign(host: &Host, kind: &str, name: &str) -> Failure {
    Failure::usage(format!(
        "{kind} {name} in namespace {} is not knest's",
        host.namespace
    ))
    .hint("give the cluster another name, or name another namespace with -n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_that_is_gone_is_known_by_its_boot_and_number() {
        let here = identity();
        assert!(gone(&here), "our own old Lease is ours to take: {here}");
        let pid = format!("process {} ", std::process::id());
        let another = |number: &str| here.replace(&pid, &format!("process {number} "));
        assert!(!gone(&another("1")), "the first process lives");
        assert!(gone(&another("4194305")), "beyond the largest number");
        assert!(!gone(
            "knest create demo (process 4194305 of x, boot other)"
        ));
        assert!(!gone(""));
    }
}
