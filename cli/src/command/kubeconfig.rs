//! `knest kubeconfig`: to standard output, for one cluster alone; or merged again.

use super::{Env, place};
use crate::cluster::kubeconfig;
use crate::cluster::name::ClusterName;
use crate::failure::{Failure, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster's name
    #[arg(default_value = "knest")]
    name: ClusterName,
    /// Merge it into the user's kubeconfig instead, and choose its context
    #[arg(long)]
    merge: bool,
    #[command(flatten)]
    place: place::Where,
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    let record = {
        let home = place::find(&args.name, &args.place, env).await?;
        super::existing(home.provider(), &args.name).await?
    };
    if record.endpoint.is_none() || record.pki.is_none() {
        return Err(
            Failure::usage(format!("cluster {} has no API yet", args.name))
                .hint("go on with its creation: run the same create again"),
        );
    }
    let text = kubeconfig::for_record(&record)?;
    match record.kubeconfig {
        Some(path) if args.merge => {
            kubeconfig::merge(&path, &text)?;
            env.printer
                .note(&format!("Merged into {}.", path.display()));
            Ok(())
        }
        _ => env.printer.answer(&text),
    }
}
