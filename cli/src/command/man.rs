//! `knest man`: manual pages, for packagers and `make install`.

use super::{Cli, Env};
use crate::failure::{Context, Result};
use clap::CommandFactory;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory to write them to
    directory: PathBuf,
}

pub(crate) fn run(args: &Args, env: &Env) -> Result<()> {
    let what = format!("writing manual pages to {}", args.directory.display());
    fs_err::create_dir_all(&args.directory).host(&what)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).host(&what)?;
    env.printer
        .note(&format!("Written to {}.", args.directory.display()));
    Ok(())
}
