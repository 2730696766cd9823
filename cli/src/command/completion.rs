//! `knest completion`.

use super::{Cli, Env};
use crate::failure::Result;
use clap::CommandFactory;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell that is to complete
    shell: Shell,
}

pub(crate) fn run(args: Args, env: &Env) -> Result<()> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), "knest", &mut script);
    env.printer.answer(&String::from_utf8_lossy(&script))
}
