//! `knest delete`: idempotent, and works from whatever an interruption left.

use super::{Env, place};
use crate::cluster::name::ClusterName;
use crate::failure::Result;
use crate::provider::Provider;
use crate::step::{self, OnFailure};
use crate::{interrupt, ui};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The clusters' names
    #[arg(default_value = "knest")]
    names: Vec<ClusterName>,
    /// Delete every cluster on this machine, or in the host's namespace that is named
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    place: place::Where,
    /// Keep the disks of persistent nodes: on the host cluster they are the user's from then on
    #[arg(long)]
    keep_disks: bool,
    /// How long one deletion may take
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    let cancel = interrupt::token()?;
    let keep = args.keep_disks;
    if args.all {
        // The first place is the one that is named, or this machine.
        let home = place::all(&args.place, env).await?.swap_remove(0);
        for name in home.provider().names().await? {
            delete(&name, home.provider(), keep, args.timeout, &cancel, env).await?;
        }
        return Ok(());
    }
    for name in args.names {
        let home = place::find(&name, &args.place, env).await?;
        delete(&name, home.provider(), keep, args.timeout, &cancel, env).await?;
    }
    Ok(())
}

async fn delete(
    name: &ClusterName,
    provider: &dyn Provider,
    keep_disks: bool,
    timeout: Duration,
    cancel: &CancellationToken,
    env: &Env,
) -> Result<()> {
    // A look before the lock, which would leave a directory for a cluster that never was.
    if !provider.exists(name).await? {
        env.printer.note(&format!("There is no cluster {name}."));
        return Ok(());
    }
    let _lock = provider.lock(name).await?;
    let reporter = ui::reporter(env.printer.output, env.printer.quiet);
    let Some(record) = provider.load(name).await? else {
        // Interrupted before its record was written, or after it was removed.
        provider.teardown(name, reporter.as_ref()).await?;
        return provider.forget(name).await;
    };
    let deadline = Instant::now() + timeout;
    let mut cx = step::Context {
        provider,
        reporter: reporter.as_ref(),
        record,
        deadline,
    };
    step::execute(
        &step::delete_plan(keep_disks),
        &mut cx,
        cancel,
        OnFailure::Keep,
    )
    .await?;
    env.printer.note(&format!("Cluster {name} is deleted."));
    if keep_disks {
        env.printer.note(&format!(
            "Its disks are kept: PersistentVolumeClaims labelled knest.dev/kept-from={name}."
        ));
    }
    Ok(())
}
