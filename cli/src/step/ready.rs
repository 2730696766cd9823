//! The steps that wait: for the API, for nodes, for CoreDNS. They look at the cluster's own API
//! and at the machines, never into them; a machine that ended while it was waited for ends the
//! waiting with its last words.

use super::{Context, Step};
use crate::cluster::guest::{Guest, NodeSeen};
use crate::cluster::record::{NodeState, Record};
use crate::failure::{Failure, Kind, Result};
use crate::provider::{MachineState, MachineStatus};
use crate::wait::{Seen, wait_until};
use async_trait::async_trait;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(2);

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
    let staying = || {
        record
            .nodes
            .iter()
            .filter(|n| n.state != NodeState::Leaving)
    };
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

/// Waits for `probe` while the machines of nodes that are to stay live. The consoles' last lines
/// accompany what was observed, so that a wait of minutes shows that something moves.
async fn waiting(
    cx: &Context<'_>,
    what: &str,
    mut probe: impl AsyncFnMut(&Record) -> Result<Seen<()>>,
) -> Result<()> {
    let (record, mut consoles) = (&cx.record, vec![]);
    let waited = wait_until(what, cx.deadline, INTERVAL, cx.reporter, async || {
        let machines = cx.provider.machines(&record.spec.name).await?;
        if let Some(failure) = ended(record, &machines).or_else(|| gave_up(record, &machines)) {
            return Err(failure);
        }
        let seen = probe(record).await?;
        consoles = machines;
        Ok(match seen {
            Seen::NotYet(observation) => Seen::NotYet(match last_line(record, &consoles) {
                Some(line) => format!("{observation} · {line}"),
                None => observation,
            }),
            there @ Seen::There(()) => there,
        })
    })
    .await;
    waited.map_err(|failure| match failure.kind {
        Kind::Timeout => consoles.iter().filter(|m| !m.console_tail.is_empty()).fold(
            failure,
            |failure, machine| {
                failure.evidence(format!(
                    "{}'s console:\n{}",
                    machine.name, machine.console_tail
                ))
            },
        ),
        _ => failure,
    })
}

/// The last line on the console of the first node that is still wanted.
fn last_line(record: &Record, machines: &[MachineStatus]) -> Option<String> {
    let wanted = record.in_state(NodeState::Wanted).next()?;
    let machine = machines.iter().find(|m| m.name == wanted.name)?;
    let line = machine
        .console_tail
        .lines()
        .rev()
        .find(|l| !l.trim().is_empty())?;
    Some(line.trim().chars().take(80).collect())
}

fn ended(record: &Record, machines: &[MachineStatus]) -> Option<Failure> {
    let stays = |m: &&MachineStatus| {
        record
            .nodes
            .iter()
            .any(|n| n.name == m.name && n.state != NodeState::Leaving)
    };
    machines
        .iter()
        .filter(stays)
        .find_map(|machine| match &machine.state {
            MachineState::Running => None,
            MachineState::Stopped { reason } => Some(
                Failure::guest(format!("machine {} ended: {reason}", machine.name))
                    .evidence(machine.console_tail.clone()),
            ),
        })
}

/// What user-data's script prints at its end, followed by its exit status.
const SCRIPT_ENDS: &str = "knest: user-data ends (";

/// A node whose script failed will not become one: no need to wait for the deadline.
fn gave_up(record: &Record, machines: &[MachineStatus]) -> Option<Failure> {
    let wanted = |m: &&MachineStatus| record.in_state(NodeState::Wanted).any(|n| n.name == m.name);
    machines.iter().filter(wanted).find_map(|machine| {
        let line = machine
            .console_tail
            .lines()
            .rev()
            .find(|l| l.contains(SCRIPT_ENDS))?;
        let (_, status) = line.split_once(SCRIPT_ENDS)?;
        let status = status.trim_end().trim_end_matches(')');
        (status != "0").then(|| {
            Failure::guest(format!(
                "machine {} could not be made a node: status {status}",
                machine.name
            ))
            .evidence(machine.console_tail.clone())
            .hint("--retain keeps the machine for a closer look")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;

    fn machine(name: &str, state: MachineState, console: &str) -> MachineStatus {
        MachineStatus {
            name: name.parse().unwrap(),
            state,
            console_tail: console.into(),
        }
    }

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

    #[test]
    fn a_machine_that_ended_is_reported_with_its_last_words() {
        let record = fixture::record(1, 1);
        let stopped = MachineState::Stopped {
            reason: "killed by SIGKILL".into(),
        };
        let failure = ended(
            &record,
            &[machine("demo-worker-1", stopped.clone(), "Kernel panic")],
        );
        let text = failure.unwrap().render();
        assert!(
            text.contains("machine demo-worker-1 ended: killed by SIGKILL"),
            "{text}"
        );
        assert!(text.contains("  | Kernel panic"), "{text}");
        // One that is on its way out may end.
        assert!(ended(&record, &[machine("demo-worker-9", stopped, "")]).is_none());
    }

    #[test]
    fn a_script_that_failed_ends_the_waiting() {
        let record = fixture::record(1, 1);
        let console = |text: &str| [machine("demo-worker-1", MachineState::Running, text)];
        assert!(gave_up(&record, &console("knest: user-data begins\n")).is_none());
        assert!(gave_up(&record, &console("knest: user-data ends (0)\r\n")).is_none());
        assert!(gave_up(&record, &console("knest: user-data ends (1)\r\nlogin:")).is_some());
    }
}
