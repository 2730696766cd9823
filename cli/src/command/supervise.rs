//! `knest supervise`: what `create` leaves running, one a cluster, and `vm run`, one a VM. Not for
//! people.

use super::Env;
use crate::cluster::name::{ClusterName, VmName};
use crate::failure::{Failure, Result};
use crate::provider::local;
use crate::vm;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster to supervise
    #[arg(long, required_unless_present_any = ["probe", "vm"])]
    cluster: Option<ClusterName>,
    /// The VM to supervise
    #[arg(long, conflicts_with = "cluster")]
    vm: Option<VmName>,
    /// Only try whether this user can make a cluster's network
    #[arg(long, conflicts_with_all = ["cluster", "vm"])]
    probe: bool,
}

/// To be called while the process has one thread: it enters namespaces, and threads stay where they
/// were born.
pub(crate) fn run(args: Args, env: &Env) -> Result<()> {
    match (args.cluster, args.vm) {
        _ if args.probe => local::probe(),
        (Some(name), _) => local::supervise(&env.paths, &name),
        (None, Some(name)) => vm::supervise(&env.paths, &name),
        (None, None) => Err(Failure::usage("name a cluster or a VM")),
    }
}
