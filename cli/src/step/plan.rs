//! THE lists: what `create`, `scale` and `delete` consist of, in order. Each list reads as the
//! recipe; what a step does is in its own file.

use super::Step;
use super::drain::{Drain, RemoveMachines};
use super::machines::{Disks, Machines, Seal};
use super::prepare::{Endpoint, Keys, Preflight, WriteRecord};
use super::ready::{Api, CoreDns, Nodes};
use super::resize::Resize;
use super::teardown::{Forget, ForgetKubeconfig, MarkDeleting, Teardown};
use super::token::Token;
use super::{finish::Finish, kubeconfig::Kubeconfig};

/// From nothing, or from where another run stopped, to Ready nodes and a kubeconfig.
pub(crate) fn create_plan() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(Preflight),
        Box::new(WriteRecord),
        Box::new(Endpoint),
        Box::new(Keys),
        Box::new(Disks),
        Box::new(Token),
        Box::new(Machines),
        Box::new(Api),
        Box::new(Nodes),
        Box::new(CoreDns),
        Box::new(Seal),
        Box::new(Kubeconfig),
        Box::new(Finish),
    ]
}

/// From the nodes that are there to those that the record wants: new ones first, then farewell to
/// those that leave.
pub(crate) fn scale_plan() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(Preflight),
        Box::new(Resize),
        Box::new(Api),
        Box::new(Disks),
        Box::new(Token),
        Box::new(Machines),
        Box::new(Nodes),
        Box::new(Seal),
        Box::new(Drain),
        Box::new(RemoveMachines),
    ]
}

/// From whatever is there to nothing.
pub(crate) fn delete_plan() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(MarkDeleting),
        Box::new(ForgetKubeconfig),
        Box::new(Teardown),
        Box::new(Forget),
    ]
}
