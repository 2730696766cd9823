//! `knest scale`.

use super::{Env, image, place};
use crate::cluster::name::ClusterName;
use crate::cluster::spec::Role;
use crate::failure::Result;
use crate::step::{self, OnFailure};
use crate::{interrupt, ui};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without a count it replaces nodes that were lost with their disks, and ends what an \
    earlier scale left undone.\n\nExamples:\n  knest scale demo --worker-machine-count 3\n  \
    knest scale demo --control-plane-machine-count 3\n  knest scale demo"
)]
pub(crate) struct Args {
    /// The cluster's name
    name: ClusterName,
    /// How many control-plane nodes it should have: an odd number [default: as many as before]
    #[arg(long, value_name = "N")]
    control_plane_machine_count: Option<u32>,
    /// How many worker nodes it should have [default: as many as before]
    #[arg(long, value_name = "N")]
    worker_machine_count: Option<u32>,
    #[command(flatten)]
    place: place::Where,
    /// Keep new nodes when they do not become Ready in time
    #[arg(long)]
    retain: bool,
    /// How long it may take
    #[arg(long, default_value = "20m", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    let cancel = interrupt::token()?;
    let home = place::find(&args.name, &args.place, env).await?;
    let provider = home.provider();
    let (_lock, mut record) = super::locked(provider, &args.name).await?;
    super::complete(&record)?;
    super::of_one_version(&record)?;
    step::mark_lost(&mut record, &provider.machines(&args.name).await?)?;
    for (role, count) in [
        (Role::ControlPlane, args.control_plane_machine_count),
        (Role::Worker, args.worker_machine_count),
    ] {
        let count = count.unwrap_or_else(|| record.spec.machine(role).count);
        step::resize(&mut record, role, count, provider)?;
    }
    record.spec.check()?;
    image::fetch_for(&record, &home, env).await?;
    let reporter = ui::reporter(env.printer.output, env.printer.quiet);
    let deadline = Instant::now() + args.timeout;
    let mut cx = step::Context {
        provider,
        reporter: reporter.as_ref(),
        record,
        deadline,
    };
    let on_failure = if args.retain {
        OnFailure::Keep
    } else {
        OnFailure::Undo
    };
    step::execute(&step::scale_plan(), &mut cx, &cancel, on_failure).await?;
    env.printer.note(&format!(
        "Cluster {} has {} nodes.",
        args.name,
        cx.record.nodes.len()
    ));
    Ok(())
}
