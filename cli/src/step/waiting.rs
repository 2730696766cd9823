//! Waiting for the cluster's own API while its machines live. They are looked at and never into; one
//! that can't become what is waited for ends the waiting with its last words.

use super::Context;
use crate::cluster::name::ClusterName;
use crate::cluster::record::{NodeState, Record};
use crate::failure::{Failure, Kind, Result};
use crate::provider::{MachineState, MachineStatus};
use crate::wait::{Seen, wait_until};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(2);

/// Waits for `probe` while the machines of nodes that are to stay live. The consoles' last lines
/// accompany what was observed, so that a wait of minutes shows that something moves.
pub(super) async fn waiting(
    cx: &Context<'_>,
    what: &str,
    mut probe: impl AsyncFnMut(&Record) -> Result<Seen<()>>,
) -> Result<()> {
    let (record, mut consoles) = (&cx.record, vec![]);
    let waited = wait_until(what, cx.deadline, INTERVAL, cx.reporter, async || {
        let machines = cx.provider.machines(&record.spec.name).await?;
        if let Some(failure) = lost_cause(record, &machines) {
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

/// Why waiting is in vain, if it is.
fn lost_cause(record: &Record, machines: &[MachineStatus]) -> Option<Failure> {
    machines.iter().find_map(|machine| {
        let node = record.nodes.iter().find(|n| n.name == machine.name)?;
        let failure = match node.state {
            NodeState::Wanted => ended(machine)
                .or_else(|| began_anew(machine))
                .or_else(|| gave_up(machine))
                .or_else(|| froze(machine))?,
            NodeState::Ready => ended(machine)?.hint(remedy(machine, &record.spec.name)),
            NodeState::Leaving | NodeState::Lost => return None,
        };
        Some(failure.evidence(machine.console_tail.clone()))
    })
}

fn ended(machine: &MachineStatus) -> Option<Failure> {
    match &machine.state {
        MachineState::Running => None,
        MachineState::Stopped { reason } | MachineState::Lost { reason } => Some(Failure::guest(
            format!("machine {} ended: {reason}", machine.name),
        )),
    }
}

/// What brings a node back whose machine ended.
fn remedy(machine: &MachineStatus, cluster: &ClusterName) -> String {
    match machine.state {
        MachineState::Lost { .. } => format!("knest scale {cluster} replaces what is lost"),
        MachineState::Running | MachineState::Stopped { .. } => {
            format!("knest start {cluster} starts machines that are off")
        }
    }
}

/// What makes a machine a node is run once, and a machine that began anew had begun that already.
fn began_anew(machine: &MachineStatus) -> Option<Failure> {
    (machine.reboots > 0).then(|| {
        Failure::guest(format!(
            "machine {} rebooted before its node was Ready, and its first boot can't be taken up \
             again",
            machine.name
        ))
    })
}

/// What user-data's script prints at its end, followed by its exit status.
const SCRIPT_ENDS: &str = "knest: user-data ends (";

/// A node whose script failed will not become one: no need to wait for the deadline.
fn gave_up(machine: &MachineStatus) -> Option<Failure> {
    let mut lines = machine.console_tail.lines().rev();
    let (_, status) = lines.find_map(|line| line.split_once(SCRIPT_ENDS))?;
    let status = status.trim_end().trim_end_matches(')');
    (status != "0").then(|| {
        Failure::guest(format!(
            "machine {} could not be made a node: status {status}",
            machine.name
        ))
        .hint("--retain keeps the machine for a closer look")
    })
}

/// Last words after which a guest does nothing more: the kernel's, and systemd's.
const FROZEN: [&str; 4] = [
    "Kernel panic - not syncing",
    "Freezing execution",
    ", freezing.",
    "You are in emergency mode",
];

fn froze(machine: &MachineStatus) -> Option<Failure> {
    let line = machine
        .console_tail
        .lines()
        .find(|line| FROZEN.iter().any(|words| line.contains(words)))?;
    Some(Failure::guest(format!(
        "machine {} froze while it booted: {}",
        machine.name,
        line.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;

    fn machine(name: &str, state: MachineState, console: &str) -> MachineStatus {
        MachineStatus {
            name: name.parse().unwrap(),
            state,
            reboots: 0,
            console_tail: console.into(),
        }
    }

    fn running(console: &str) -> MachineStatus {
        machine("demo-worker-1", MachineState::Running, console)
    }

    #[test]
    fn a_machine_that_ended_is_reported_with_its_last_words() {
        let mut record = fixture::record(1, 1);
        let reason = "killed by SIGKILL".to_owned();
        let stopped = MachineState::Stopped {
            reason: reason.clone(),
        };
        let lost = MachineState::Lost { reason };
        for (state, remedy) in [(stopped, "knest start demo"), (lost, "knest scale demo")] {
            let machines = [machine("demo-worker-1", state, "last words")];
            for (node, hint) in [(NodeState::Wanted, false), (NodeState::Ready, true)] {
                record.nodes[1].state = node;
                let text = lost_cause(&record, &machines).unwrap().render();
                assert!(
                    text.contains("machine demo-worker-1 ended: killed by SIGKILL"),
                    "{text}"
                );
                assert!(text.contains("  | last words"), "{text}");
                assert_eq!(text.contains(remedy), hint, "{text}");
            }
            // One that is on its way out may end, and another's is no concern.
            record.nodes[1].state = NodeState::Leaving;
            assert!(lost_cause(&record, &machines).is_none());
            record.nodes.pop();
            assert!(lost_cause(&record, &machines).is_none());
            record = fixture::record(1, 1);
        }
    }

    #[test]
    fn a_script_that_failed_ends_the_waiting() {
        let record = fixture::record(1, 1);
        let cause = |text: &str| lost_cause(&record, &[running(text)]);
        assert!(cause("knest: user-data begins\n").is_none());
        assert!(cause("knest: user-data ends (0)\r\n").is_none());
        let text = cause("knest: user-data ends (1)\r\nlogin:")
            .unwrap()
            .to_string();
        assert!(text.contains("status 1"), "{text}");
    }

    #[test]
    fn a_guest_that_began_anew_ends_the_waiting_for_its_node() {
        let mut record = fixture::record(1, 1);
        let machines = [MachineStatus {
            reboots: 1,
            ..running("again")
        }];
        let text = lost_cause(&record, &machines).unwrap().render();
        assert!(text.contains("demo-worker-1 rebooted"), "{text}");
        // A node may reboot.
        record.nodes[1].state = NodeState::Ready;
        assert!(lost_cause(&record, &machines).is_none());
    }

    #[test]
    fn a_guest_that_froze_ends_the_waiting() {
        let record = fixture::record(1, 1);
        for last in [
            "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs",
            "systemd[1]: Freezing execution.",
            "[  !!  ] Failed to start up manager, freezing.",
        ] {
            let text = lost_cause(&record, &[running(last)]).unwrap().to_string();
            assert!(
                text.contains("froze while it booted") && text.contains(last),
                "{text}"
            );
        }
        assert!(lost_cause(&record, &[running("systemd[1]: Starting")]).is_none());
    }
}
