//! `knest start`.

use super::{Env, place};
use crate::cluster::name::ClusterName;
use crate::failure::Result;
use crate::step::{self, OnFailure};
use crate::{interrupt, ui};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster's name
    name: ClusterName,
    #[command(flatten)]
    place: place::Where,
    /// How long it may take
    #[arg(long, default_value = "20m", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    let cancel = interrupt::token()?;
    let home = place::find(&args.name, &args.place, env).await?;
    let provider = home.provider();
    let (_lock, record) = super::locked(provider, &args.name).await?;
    super::settled(&record)?;
    let reporter = ui::reporter(env.printer.output, env.printer.quiet);
    let mut cx = step::Context {
        provider,
        reporter: reporter.as_ref(),
        record,
        deadline: Instant::now() + args.timeout,
    };
    step::execute(&step::start_plan(), &mut cx, &cancel, OnFailure::Keep).await?;
    env.printer
        .note(&format!("Cluster {} is ready.", args.name));
    Ok(())
}
