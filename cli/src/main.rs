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
use command::{Cli, Env, Verb};
use failure::{Failure, Result};
use std::process::ExitCode;
use ui::Printer;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let printer = Printer {
        output: cli.global.output,
        quiet: cli.global.quiet,
    };
    match dispatch(cli.verb, printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

fn dispatch(verb: Verb, printer: Printer) -> Result<()> {
    let env = Env {
        printer,
        paths: paths::Paths::from_env()?,
    };
    // The supervisor enters its namespaces while it still is a single thread.
    if let Verb::Supervise(args) = verb {
        return command::supervise::run(args, &env);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::host("starting the runtime").because(e))?;
    runtime.block_on(command::run(verb, &env))
}
