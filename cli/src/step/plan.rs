//! THE lists: what the commands that change a cluster consist of, in order. Each list reads as the
//! recipe; what a step does is in its own file.

use super::Step;
use super::leave::{Bury, Drain, Leave};
use super::machines::{Disks, JoinControlPlanes, Machines, Seal};
use super::prepare::{Addresses, Endpoint, Keys, Preflight, WriteRecord};
use super::ready::{Api, CoreDns, Nodes};
use super::resize::Resize;
use super::rest::{MarkStopped, Resume, Stop};
use super::teardown::{Forget, ForgetKubeconfig, KeepDisks, MarkDeleting, Teardown};
use super::token::Token;
use super::upgrade::{Grow, KubeadmVersion, MoveDns, Settle, Shrink, older};
use super::{finish::Finish, kubeconfig::Kubeconfig};
use crate::cluster::record::Record;
use crate::cluster::spec::Role;

/// From nothing, or from where another run stopped, to Ready nodes and a kubeconfig.
pub(crate) fn create_plan() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(Preflight),
        Box::new(WriteRecord),
        Box::new(Addresses),
        Box::new(Endpoint),
        Box::new(Keys),
        Box::new(Disks),
        Box::new(Token),
        Box::new(Machines),
        Box::new(Api),
        Box::new(JoinControlPlanes),
        Box::new(Nodes),
        Box::new(CoreDns),
        Box::new(Seal),
        Box::new(Kubeconfig),
        Box::new(Finish),
    ]
}

/// From the nodes that are there to those that the record wants: lost ones out of the way, then new
/// ones, then farewell to those that leave.
pub(crate) fn scale_plan() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(Preflight),
        Box::new(Resize),
        Box::new(Addresses),
        Box::new(Api),
        Box::new(Bury),
        Box::new(Disks),
        Box::new(Token),
        Box::new(Machines),
        Box::new(JoinControlPlanes),
        Box::new(Nodes),
        Box::new(Seal),
        Box::new(Drain),
        Box::new(Leave),
    ]
}

/// From nodes of one version to nodes of the record's: as many rounds as there are older ones.
pub(crate) fn upgrade_plan(record: &Record) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> = vec![
        Box::new(Preflight),
        Box::new(Resize),
        Box::new(Api),
        // What an earlier run left on its way out.
        Box::new(Drain),
        Box::new(Leave),
        Box::new(KubeadmVersion),
    ];
    for role in [Role::ControlPlane, Role::Worker] {
        for _ in older(record, role) {
            steps.extend(successor_plan(role));
        }
    }
    steps.push(Box::new(Settle));
    steps
}

/// One node of a role comes, and then an older one leaves.
fn successor_plan(role: Role) -> Vec<Box<dyn Step>> {
    vec![
        Box::new(Grow(role)),
        Box::new(Disks),
        Box::new(Token),
        Box::new(Machines),
        Box::new(JoinControlPlanes),
        Box::new(Nodes),
        Box::new(MoveDns),
        Box::new(Seal),
        Box::new(Shrink(role)),
        Box::new(Drain),
        Box::new(Leave),
    ]
}

/// From running machines to machines that are off and keep all that they have.
pub(crate) fn stop_plan() -> Vec<Box<dyn Step>> {
    vec![Box::new(MarkStopped), Box::new(Stop)]
}

/// From machines that are off, all or some, to the same cluster as before.
pub(crate) fn start_plan() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(Resume),
        Box::new(Api),
        Box::new(Nodes),
        Box::new(CoreDns),
        Box::new(Finish),
    ]
}

/// From whatever is there to nothing; with `keep_disks`, to the disks of persistent nodes.
pub(crate) fn delete_plan(keep_disks: bool) -> Vec<Box<dyn Step>> {
    let mut steps: Vec<Box<dyn Step>> = vec![
        Box::new(MarkDeleting),
        Box::new(ForgetKubeconfig),
        Box::new(Teardown),
        Box::new(Forget),
    ];
    if keep_disks {
        steps.insert(0, Box::new(KeepDisks));
    }
    steps
}
