//! `knest scale`.

use super::Env;
use crate::cluster::name::ClusterName;
use crate::cluster::record::{NodeState, Phase, Record};
use crate::cluster::spec::Role;
use crate::failure::{Failure, Result};
use crate::provider::Provider;
use crate::provider::local::Local;
use crate::step::{self, OnFailure};
use crate::{interrupt, ui};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster's name
    name: ClusterName,
    /// How many worker nodes it should have
    #[arg(long, value_name = "N")]
    worker_machine_count: u32,
    /// Keep new nodes when they do not become Ready in time
    #[arg(long)]
    retain: bool,
    /// How long it may take
    #[arg(long, default_value = "20m", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    let provider = Local::new(&env.paths);
    let cancel = interrupt::token()?;
    let record = super::existing(&provider, &args.name).await?;
    let _lock = provider.lock(&args.name).await?;
    // What another command changed between the look and the lock.
    let mut record = provider.load(&args.name).await?.unwrap_or(record);
    match record.phase {
        Phase::Ready => {}
        Phase::Creating => {
            return Err(
                Failure::usage(format!("cluster {} is not complete", args.name))
                    .hint("run its create again with the same arguments"),
            );
        }
        Phase::Deleting => {
            return Err(Failure::usage(format!(
                "cluster {} is being deleted",
                args.name
            )));
        }
    }
    resize(
        &mut record,
        Role::Worker,
        args.worker_machine_count,
        &provider,
    )?;
    record.spec.check()?;
    let reporter = ui::reporter(env.printer.output, env.printer.quiet);
    let deadline = Instant::now() + args.timeout;
    let mut cx = step::Context {
        provider: &provider,
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

/// In memory: adds nodes, or marks as leaving those that came last. Workers that are on their way
/// out already, and nodes of an interrupted scale that are still wanted, count as what they are.
fn resize(record: &mut Record, role: Role, count: u32, provider: &dyn Provider) -> Result<()> {
    let staying = u32::try_from(record.staying(role).count()).unwrap_or(u32::MAX);
    record.spec.machine_mut(role).count = count;
    if count > staying {
        return step::add_nodes(provider, record, role, count - staying);
    }
    let surplus = record.nodes.iter_mut().rev();
    let surplus = surplus.filter(|n| n.role == role && n.state != NodeState::Leaving);
    for node in surplus.take((staying - count) as usize) {
        node.state = NodeState::Leaving;
    }
    Ok(())
}
