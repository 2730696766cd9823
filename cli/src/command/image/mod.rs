//! `knest image`: the local image store, one file a verb.

mod inspect;
mod list;
mod load;
mod remove;

use super::Env;
use crate::failure::{Failure, Result};
use clap::Subcommand;
use knest_rootfs::{Error, Store};

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Copy an image into the store from an archive or a layout directory
    Load(load::Args),
    /// List the store's images
    List(list::Args),
    /// Print what an image says of itself
    Inspect(inspect::Args),
    /// Forget images, and delete what no other image needs
    Remove(remove::Args),
}

pub(super) async fn run(verb: Verb, env: &Env) -> Result<()> {
    match verb {
        Verb::Load(args) => load::run(args, env).await,
        Verb::List(args) => list::run(args, env),
        Verb::Inspect(args) => inspect::run(args, env),
        Verb::Remove(args) => remove::run(args, env),
    }
}

fn store(env: &Env) -> Result<Store> {
    Store::open(env.paths.images()).map_err(failure)
}

/// Whose turn it is when the image crate fails: a file of this machine's is the host's, all else
/// is about the image that was named.
fn failure(error: Error) -> Failure {
    match &error {
        Error::Cancelled => Failure::interrupted(),
        Error::File { .. } => Failure::host("the image store").because(error),
        Error::NoImage { .. } => {
            Failure::usage(error.to_string()).hint("see what there is: knest image list")
        }
        _ => Failure::usage("the image").because(error),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1_048_576)),
    }
}
