//! The steps that wait: for the API, for nodes, for CoreDNS.

use super::waiting::waiting;
use super::{Context, Step};
use crate::cluster::guest::{Guest, NodeSeen};
use crate::cluster::record::{NodeState, Record};
use crate::failure::Result;
use crate::wait::Seen;
use async_trait::async_trait;

/// Until the API server calls itself ready.
pub(super) struct Api;

#[async_trait(?Send)]
impl Step for Api {
    fn title(&self) -> String {
        "Waiting for the API server".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let guest = Guest::of(&cx.record).await?;
        waiting(cx, "the API server is ready", async |_| {
            Ok(match guest.ready().await {
                Ok(()) => Seen::There(()),
                Err(observation) => Seen::NotYet(observation),
            })
        })
        .await
    }
}

/// Until every node that is to stay is Ready.
pub(super) struct Nodes;

#[async_trait(?Send)]
impl Step for Nodes {
    fn title(&self) -> String {
        "Waiting for the nodes".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let guest = Guest::of(&cx.record).await?;
        waiting(cx, "every node is Ready", async |record| {
            Ok(match guest.nodes().await {
                Ok(seen) => missing(record, &seen).map_or(Seen::There(()), Seen::NotYet),
                Err(observation) => Seen::NotYet(observation),
            })
        })
        .await?;
        for node in &mut cx.record.nodes {
            if node.state == NodeState::Wanted {
                node.state = NodeState::Ready;
            }
        }
        cx.save().await
    }
}

/// What is still missing of the nodes, `None` when all are Ready.
fn missing(record: &Record, seen: &[NodeSeen]) -> Option<String> {
    let staying = || record.nodes.iter().filter(|n| n.stays());
    let of = |name: &str| seen.iter().find(|s| s.name == name);
    let late: Vec<_> = staying()
        .filter(|n| !of(n.name.as_str()).is_some_and(|s| s.ready))
        .collect();
    let first = late.first()?;
    let why = of(first.name.as_str()).map_or("has not joined yet", |s| s.message.as_str());
    let total = staying().count();
    Some(format!(
        "{} of {total} nodes Ready; {}: {why}",
        total - late.len(),
        first.name
    ))
}

/// Until names resolve.
pub(super) struct CoreDns;

#[async_trait(?Send)]
impl Step for CoreDns {
    fn title(&self) -> String {
        "Waiting for CoreDNS".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let guest = Guest::of(&cx.record).await?;
        waiting(cx, "CoreDNS is available", async |_| {
            Ok(match guest.coredns().await {
                Ok(()) => Seen::There(()),
                Err(observation) => Seen::NotYet(observation),
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;

    #[test]
    fn a_node_is_named_until_all_are_ready() {
        let record = fixture::record(1, 1);
        let seen = |name: &str, ready, message: &str| NodeSeen {
            name: name.into(),
            ready,
            message: message.into(),
        };
        let ready = seen("demo-control-plane-1", true, "");
        assert_eq!(
            missing(&record, std::slice::from_ref(&ready)),
            Some("1 of 2 nodes Ready; demo-worker-1: has not joined yet".into())
        );
        assert_eq!(
            missing(
                &record,
                &[ready.clone(), seen("demo-worker-1", false, "no CNI")]
            ),
            Some("1 of 2 nodes Ready; demo-worker-1: no CNI".into())
        );
        assert_eq!(
            missing(&record, &[ready, seen("demo-worker-1", true, "")]),
            None
        );
    }
}
