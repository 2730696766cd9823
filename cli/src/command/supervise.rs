//! `knest supervise`: what `create` leaves running, one a cluster, and `vm run`, one a VM. Not for
//! people.

use super::{Env, Global};
use crate::cluster::name::{ClusterName, VmName};
use crate::failure::{Failure, Result};
use crate::provider::local;
use crate::vm;
use clap::Parser;

/// Keep one cluster's machines, or one VM, running
#[derive(Debug, Parser)]
#[command(name = "knest supervise")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
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

impl Args {
    /// If this is what the command line says. It is no member of the tree of all commands: what that
    /// takes would stay in a supervisor's memory as long as it lives.
    pub(crate) fn of_command_line() -> Option<Self> {
        let mut words = std::env::args_os().skip(1).peekable();
        words
            .peek()
            .is_some_and(|verb| verb == "supervise")
            .then(|| Self::parse_from(words))
    }
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
