//! `knest doctor`: what this host can do, each line with its remedy, and which VMM that comes to.
//!
//! ```text
//! look ──► Facts ──► checks ──► [Check] ──┐
//! (effects)    └───► advice ──► Advice ───┴─► render
//! ```

mod advice;
mod check;
mod checks;
mod facts;
mod look;
mod render;

use super::Env;
use crate::failure::{Failure, Result};
use crate::ui::Output;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 0 when clusters can run here, warnings or not, and with 3 when they can't.

Examples:
  knest doctor
  knest doctor -o json")]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, env: &Env) -> Result<()> {
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
