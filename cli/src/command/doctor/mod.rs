//! `knest doctor`: what this host can do, each line with its remedy, and which VMM that comes to;
//! or what a host cluster can.
//!
//! ```text
//! look ──► Facts ──► checks ──► [Check] ──┐
//! (effects)    └───► advice ──► Advice ───┴─► render
//! ```

mod advice;
mod check;
mod checks;
mod facts;
mod hosted;
mod look;
mod render;

use super::Env;
use super::place::Where;
use crate::failure::{Failure, Result};
use crate::ui::Output;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 0 when clusters can run there, warnings or not, and with 3 when they can't.

Examples:
  knest doctor
  knest doctor -o json
  knest doctor --provider virtink --host-context office")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    if args.place.names_host() {
        return hosted::run(args.place, env).await;
    }
    let facts = look::look(&env.paths).await?;
    let (checks, advice) = (checks::checks(&facts), advice::advise(&facts));
    match env.printer.output {
        Output::Json => env.printer.json(&render::json(&checks, &advice)),
        Output::Table => env.printer.answer(&render::table(&checks, &advice)),
    }?;
    match advice.recommended_vmm {
        Some(_) => Ok(()),
        None => Err(Failure::host(format!(
            "no cluster can run here: {}",
            advice.reason
        ))),
    }
}
