//! What the host complains of about machines that do not run yet, where their pods' own status says
//! nothing: Virtink that may not make a pod, a kubelet that can't mount a volume. It is in events, which
//! are looked at now and then, all at once, however many machines there are.

use super::host::Host;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How soon they are looked at again.
const EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(3);
/// More than this are not looked through.
const MOST: u32 = 500;

#[derive(Default)]
struct Heard {
    again: Option<Instant>,
    /// By the UID of what it is about.
    last: BTreeMap<String, String>,
}

/// What was heard last about each object of the namespace.
pub(super) struct Complaints {
    host: Host,
    heard: Mutex<Heard>,
}

impl Complaints {
    pub(super) fn of(host: Host) -> Self {
        Self {
            host,
            heard: Mutex::default(),
        }
    }

    /// About the object of this UID.
    pub(super) fn about(&self, uid: &str) -> Option<String> {
        let heard = self.heard.lock().ok()?;
        heard.last.get(uid).cloned()
    }

    /// Looks, if it is time. Who may not is told less.
    pub(super) async fn look(&self) {
        let now = Instant::now();
        match self.heard.lock() {
            Ok(mut heard) if heard.again.is_none_or(|again| again <= now) => {
                heard.again = Some(now + EVERY);
            }
            _ => return,
        }
        let warnings = ListParams::default().fields("type=Warning").limit(MOST);
        let api = self.host.api::<Event>();
        match timeout(PATIENCE, api.list(&warnings)).await {
            Ok(Ok(events)) => {
                if let Ok(mut heard) = self.heard.lock() {
                    heard.last = latest(events.items);
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "events"),
            Err(_) => tracing::debug!("events: no answer"),
        }
    }
}

/// The last one about each object.
fn latest(mut events: Vec<Event>) -> BTreeMap<String, String> {
    events.sort_by_key(when);
    let words = |event: Event| {
        let uid = event.involved_object.uid?;
        Some((uid, format!("{}: {}", event.reason?, event.message?.trim())))
    };
    events.into_iter().filter_map(words).collect()
}

/// Of the three times that an event may have, by who wrote it.
fn when(event: &Event) -> Option<Timestamp> {
    let series = event
        .series
        .as_ref()
        .and_then(|s| s.last_observed_time.as_ref());
    let seen = event.last_timestamp.as_ref().map(|t| t.0);
    seen.or_else(|| series.or(event.event_time.as_ref()).map(|t| t.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event(about: &str, reason: &str, times: Value) -> Event {
        let mut event = json!({
            "metadata": {}, "involvedObject": {"uid": about}, "reason": reason, "message": "no\n",
        });
        let fields = event.as_object_mut().unwrap();
        fields.extend(times.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn the_last_one_counts_whoever_wrote_it() {
        let early = json!({"lastTimestamp": "2026-11-25T10:00:00Z"});
        let late = json!({"eventTime": "2026-11-25T10:00:01.5Z", "lastTimestamp": null});
        let series = json!({"series": {"count": 2, "lastObservedTime": "2026-11-25T10:00:02.0Z"},
            "eventTime": "2026-11-25T09:00:00.0Z"});
        let heard = latest(vec![
            event("a", "Late", late.clone()),
            event("a", "Early", early.clone()),
            event("b", "Series", series),
            event("b", "Late", late),
            event("c", "Early", early),
        ]);
        let words: Vec<&str> = heard.values().map(String::as_str).collect();
        assert_eq!(words, ["Late: no", "Series: no", "Early: no"]);
    }
}
