//! `knest`: Kubernetes clusters whose nodes are virtual machines. Parses, dispatches, exits.

mod cluster;
mod command;
mod failure;
mod fetch;
mod image;
mod interrupt;
mod paths;
mod provider;
mod step;
mod ui;
mod vm;
mod wait;
mod work;

use clap::Parser;
use command::{Cli, Env, Verb, supervise};
use failure::{Failure, Result};
use std::process::ExitCode;
use ui::Printer;

fn main() -> ExitCode {
    if let Some(args) = supervise::Args::of_command_line() {
        // It enters its namespaces while it still is a single thread.
        let printer = args.global.printer();
        return ended(
            printer,
            environment(printer).and_then(|env| supervise::run(args, &env)),
        );
    }
    let cli = Cli::parse();
    let printer = cli.global.printer();
    ended(
        printer,
        environment(printer).and_then(|env| dispatch(cli.verb, &env)),
    )
}

fn ended(printer: Printer, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

fn environment(printer: Printer) -> Result<Env> {
    let paths = paths::Paths::from_env()?;
    Ok(Env { printer, paths })
}

fn dispatch(verb: Verb, env: &Env) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::host("starting the runtime").because(e))?;
    runtime.block_on(command::run(verb, env))
}
