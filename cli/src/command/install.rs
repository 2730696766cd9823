//! `knest install`: Virtink on a host cluster, and cert-manager, which it needs. The one thing that
//! changes a host beyond a cluster's own namespace; nothing does it by itself.

use super::Env;
use super::place::{Where, host};
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::provider::virtink::{Host, Sources, install};
use crate::ui::{self, Output};
use std::io::{BufRead, IsTerminal};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is there and works is left alone, what is incomplete is repaired, and nothing is \
    ever downgraded.\n\nExamples:\n  knest install --host-context office\n  \
    knest install --virtink-manifest virtink.yaml --cert-manager-manifest cert-manager.yaml"
)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    sources: Sources,
    /// How long it may take
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    let virtink = host(args.place, env).await?;
    onto(virtink.host(), &args.sources, args.timeout, env).await
}

/// Installs onto a host, and says what that came to.
pub(super) async fn onto(
    host: &Host,
    sources: &Sources,
    timeout: Duration,
    env: &Env,
) -> Result<()> {
    let cancel = interrupt::token()?;
    let reporter = ui::reporter(env.printer.output, env.printer.quiet);
    let deadline = Instant::now() + timeout;
    env.printer
        .note(&format!("Seeing to Virtink on context {}", host.context));
    let work = install(host, sources, &env.paths, reporter.as_ref(), deadline);
    let outcomes = tokio::select! {
        done = work => done?,
        () = cancel.cancelled() => return Err(Failure::interrupted()),
    };
    if env.printer.output == Output::Json {
        return Ok(());
    }
    for outcome in outcomes {
        let version = outcome.version.map_or(String::new(), |v| format!(" {v}"));
        let (name, was) = (outcome.name, outcome.was);
        env.printer
            .note(&format!("{name}{version} works; it was {was}."));
    }
    Ok(())
}

/// Sees to it that a new cluster's host has Virtink: where it is missing, by asking on a terminal, or
/// because the user said `--install`; else it is an error.
pub(super) async fn ensure(
    host: &Host,
    agreed: bool,
    sources: &Sources,
    timeout: Duration,
    env: &Env,
) -> Result<()> {
    if host.serves_virtink().await? {
        return Ok(());
    }
    let context = &host.context;
    let question = format!(
        "Context {context} has no Virtink. Install it there, with cert-manager where that is missing?"
    );
    if agreed || ask(&question, env)? {
        return onto(host, sources, timeout, env).await;
    }
    Err(Failure::usage(format!("context {context} has no Virtink"))
        .hint("--install installs it; knest install does that alone"))
}

/// Asks on a terminal; `false` where there is none.
fn ask(question: &str, env: &Env) -> Result<bool> {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !terminal || env.printer.quiet || env.printer.output == Output::Json {
        return Ok(false);
    }
    env.printer.prompt(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| Failure::host("reading the answer").because(e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
