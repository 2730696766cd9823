//! `knest image remove`.

use super::{Env, store};
use crate::failure::Result;
use crate::image::{self, failure};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The images' names
    #[arg(required = true)]
    names: Vec<String>,
}

pub(super) fn run(args: Args, env: &Env) -> Result<()> {
    let store = store(env)?;
    for name in &args.names {
        let removed = image::names(name)
            .map(|name| store.remove(&name).map_err(failure))
            .find(|removed| !matches!(removed, Ok(false)));
        if !removed.unwrap_or(Ok(false))? {
            return Err(image::missing(&store, name));
        }
    }
    Ok(())
}
