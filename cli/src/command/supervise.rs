//! `knest supervise`: what `create` leaves running, one a cluster. Not for people.

use super::Env;
use crate::cluster::name::ClusterName;
use crate::failure::{Failure, Result};
use crate::provider::local;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster to supervise
    #[arg(long, required_unless_present = "probe")]
    cluster: Option<ClusterName>,
    /// Only try whether this user can make a cluster's network
    #[arg(long, conflicts_with = "cluster")]
    probe: bool,
}

/// To be called while the process has one thread: it enters namespaces, and threads stay where they
/// were born.
pub(crate) fn run(args: Args, env: &Env) -> Result<()> {
    match args.cluster {
        _ if args.probe => local::probe(),
        Some(name) => local::supervise(&env.paths, &name),
        None => Err(Failure::usage("name a cluster")),
    }
}
