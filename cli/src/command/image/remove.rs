//! `knest image remove`.

use super::{Env, failure, store};
use crate::failure::{Failure, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The images' names
    #[arg(required = true)]
    names: Vec<String>,
}

pub(super) fn run(args: Args, env: &Env) -> Result<()> {
    let store = store(env)?;
    for name in &args.names {
        if !store.remove(name).map_err(failure)? {
            return Err(Failure::usage(format!("there is no image {name}"))
                .hint("see what there is: knest image list"));
        }
    }
    Ok(())
}
