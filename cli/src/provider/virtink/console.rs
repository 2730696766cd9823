//! The machines' serial consoles, which are their pods' logs: the last lines of a few at a time, so
//! that a cluster of hundreds costs its host no more than one of three.

use super::host::Host;
use crate::provider::local::printable;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, LogParams};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The container whose output is the console.
pub(crate) const CONTAINER: &str = "cloud-hypervisor";
/// How many are read at one look.
const AT_ONCE: usize = 3;
/// How soon the same one is read again; one that could not be read, later.
const EVERY: Duration = Duration::from_secs(10);
const AFTER_TROUBLE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(3);
const LINES: usize = 20;
const BYTES: i64 = 16 << 10;

struct Console {
    tail: String,
    again: Instant,
}

/// What was read of consoles, by machine.
pub(super) struct Consoles {
    host: Host,
    read: Mutex<BTreeMap<String, Console>>,
}

/// A machine's name and its pod.
type Named = (String, Arc<Pod>);

impl Consoles {
    pub(super) fn of(host: Host) -> Self {
        Self {
            host,
            read: Mutex::default(),
        }
    }

    /// What was read last.
    pub(super) fn tail(&self, machine: &str) -> Option<String> {
        let read = self.read.lock().ok()?;
        read.get(machine).map(|c| c.tail.clone())
    }

    /// Reads a few of these machines' consoles: those that waited longest.
    pub(super) async fn look(&self, pods: &[Named]) {
        let now = Instant::now();
        let mut due: Vec<(Option<Instant>, &Named)> = match self.read.lock() {
            Ok(read) => pods
                .iter()
                .filter(|(_, pod)| started(pod))
                .map(|pod| (read.get(&pod.0).map(|c| c.again), pod))
                .filter(|(again, _)| again.is_none_or(|a| a <= now))
                .collect(),
            Err(_) => vec![],
        };
        due.sort_by_key(|(again, _)| *again);
        let looks = due
            .into_iter()
            .take(AT_ONCE)
            .map(|(_, (machine, pod))| async move {
                let text = self.log(&pod.name_any()).await;
                (machine, text)
            });
        for (machine, text) in futures::future::join_all(looks).await {
            let Ok(mut read) = self.read.lock() else {
                return;
            };
            let console = read.entry(machine.clone()).or_insert(Console {
                tail: String::new(),
                again: now,
            });
            console.again = now + if text.is_some() { EVERY } else { AFTER_TROUBLE };
            if let Some(text) = text {
                console.tail = printable(&text, LINES);
            }
        }
    }

    async fn log(&self, pod: &str) -> Option<String> {
        let api: Api<Pod> = self.host.api();
        let parameters = LogParams {
            container: Some(CONTAINER.into()),
            tail_lines: i64::try_from(LINES * 2).ok(),
            limit_bytes: Some(BYTES),
            ..LogParams::default()
        };
        match timeout(PATIENCE, api.logs(pod, &parameters)).await {
            Ok(Ok(text)) => Some(text),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the console of pod {pod}");
                None
            }
            Err(_) => None,
        }
    }
}

/// Whether there can be a console yet.
fn started(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Running" | "Succeeded" | "Failed"))
}
