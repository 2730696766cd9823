//! The first change of a `scale` or an upgrade: the record says who comes, who leaves, and who is gone.

use super::prepare::add_nodes;
use super::{Context, Step};
use crate::cluster::record::{NodeState, Record};
use crate::cluster::spec::Role;
use crate::failure::{Failure, Result};
use crate::provider::{MachineState, MachineStatus, Provider};
use async_trait::async_trait;

/// Marks the nodes whose machines took their disks along, in memory: they are to be replaced. An
/// error where what is left could not take in anyone: etcd needs the majority of its members.
pub(crate) fn mark_lost(record: &mut Record, machines: &[MachineStatus]) -> Result<()> {
    for node in &mut record.nodes {
        let seen = machines.iter().find(|m| m.name == node.name);
        let lost = seen.is_none_or(|m| matches!(m.state, MachineState::Lost { .. }));
        if lost && node.state == NodeState::Ready {
            node.state = NodeState::Lost;
        }
    }
    let members = || {
        let control_planes = record.nodes.iter().filter(|n| n.role == Role::ControlPlane);
        control_planes.filter(|n| n.state != NodeState::Wanted)
    };
    let (total, lost) = (members().count(), record.in_state(NodeState::Lost));
    let lost: Vec<&str> = lost
        .filter(|n| n.role == Role::ControlPlane)
        .map(|n| n.name.as_str())
        .collect();
    if lost.is_empty() || (total - lost.len()) * 2 > total {
        return Ok(());
    }
    let name = &record.spec.name;
    let what = match lost[..] {
        [only] if total == 1 => {
            format!("{only} was the only control plane of cluster {name}, and is lost")
        }
        _ => format!(
            "{} of {total} control planes of cluster {name} are lost: {}",
            lost.len(),
            lost.join(", ")
        ),
    };
    Err(Failure::guest(format!(
        "{what}: what the cluster knew went with it, and nothing can replace that"
    ))
    .hint(format!("knest delete {name}, and create it again")))
}

/// Adds nodes, or marks as leaving those that came last, in memory. Workers that are on their way out
/// already, and nodes of an interrupted scale that are still wanted, count as what they are.
pub(crate) fn resize(
    record: &mut Record,
    role: Role,
    count: u32,
    provider: &dyn Provider,
) -> Result<()> {
    let staying = u32::try_from(record.staying(role).count()).unwrap_or(u32::MAX);
    record.spec.machine_mut(role).count = count;
    if count > staying {
        return add_nodes(provider, record, role, count - staying);
    }
    let surplus = record.nodes.iter_mut().rev();
    let surplus = surplus.filter(|n| n.role == role && n.stays());
    for node in surplus.take((staying - count) as usize) {
        node.state = NodeState::Leaving;
    }
    Ok(())
}

/// Saves what the command decided; taken back, it drops the nodes that never became Ready.
pub(super) struct Resize;

#[async_trait(?Send)]
impl Step for Resize {
    fn title(&self) -> String {
        "Recording what it is to become".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.save().await
    }
    async fn undo(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.record.nodes.retain(|n| n.state != NodeState::Wanted);
        for role in [Role::ControlPlane, Role::Worker] {
            let staying = u32::try_from(cx.record.staying(role).count()).unwrap_or(u32::MAX);
            cx.record.spec.machine_mut(role).count = staying;
        }
        cx.save().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;
    use crate::provider::fake::Fake;

    fn ready(control_planes: u32, workers: u32) -> Record {
        let mut record = fixture::record(control_planes, workers);
        for node in &mut record.nodes {
            node.state = NodeState::Ready;
        }
        record
    }

    fn states(record: &Record) -> Vec<(&str, NodeState)> {
        let nodes = record.nodes.iter();
        nodes.map(|n| (n.name.as_str(), n.state)).collect()
    }

    fn status(name: &str, state: MachineState) -> MachineStatus {
        MachineStatus {
            name: name.parse().unwrap(),
            state,
            reboots: 0,
            console_tail: String::new(),
        }
    }

    #[test]
    fn those_that_came_last_leave_first() {
        use NodeState::{Leaving, Ready, Wanted};
        let (mut record, provider) = (ready(1, 1), Fake::default());
        resize(&mut record, Role::ControlPlane, 3, &provider).unwrap();
        assert_eq!(
            states(&record)[2..],
            [
                ("demo-control-plane-2", Wanted),
                ("demo-control-plane-3", Wanted)
            ]
        );
        resize(&mut record, Role::ControlPlane, 1, &provider).unwrap();
        assert_eq!(
            states(&record)[2..],
            [
                ("demo-control-plane-2", Leaving),
                ("demo-control-plane-3", Leaving)
            ]
        );
        assert_eq!(states(&record)[0], ("demo-control-plane-1", Ready));
    }

    #[test]
    fn what_lost_its_disk_is_replaced_under_another_name() {
        use NodeState::{Lost, Ready, Wanted};
        let (mut record, provider) = (ready(3, 1), Fake::default());
        let lost = MachineState::Lost {
            reason: "its pod is gone".into(),
        };
        let off = MachineState::Stopped {
            reason: "killed by SIGKILL".into(),
        };
        // One said to be lost, one not there at all; one that is off still has its disk.
        let machines = [
            status("demo-control-plane-1", lost),
            status("demo-control-plane-2", MachineState::Running),
            status("demo-control-plane-3", off),
        ];
        mark_lost(&mut record, &machines).unwrap();
        for role in [Role::ControlPlane, Role::Worker] {
            let count = record.spec.machine(role).count;
            resize(&mut record, role, count, &provider).unwrap();
        }
        assert_eq!(
            states(&record),
            [
                ("demo-control-plane-1", Lost),
                ("demo-control-plane-2", Ready),
                ("demo-control-plane-3", Ready),
                ("demo-worker-1", Lost),
                ("demo-control-plane-4", Wanted),
                ("demo-worker-2", Wanted),
            ]
        );
    }

    #[test]
    fn a_lost_majority_is_called_that() {
        let mut record = ready(1, 1);
        let worker = status("demo-worker-1", MachineState::Running);
        let failure = mark_lost(&mut record, std::slice::from_ref(&worker)).unwrap_err();
        let text = failure.render();
        assert!(text.contains("the only control plane"), "{text}");
        assert!(text.contains("knest delete demo"), "{text}");

        let mut record = ready(3, 1);
        let one = status("demo-control-plane-2", MachineState::Running);
        let failure = mark_lost(&mut record, &[one, worker]).unwrap_err();
        assert!(
            failure.to_string().contains("2 of 3 control planes"),
            "{failure}"
        );
    }
}
