//! `knest vm remove`.

use super::{Env, stop};
use crate::cluster::name::VmName;
use crate::failure::{Failure, Result};
use crate::vm::{self, Life, VmDir, VmLock};
use std::time::Duration;

/// What a command may take that waits for the end which comes of a forced removal.
const READ: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The VMs' names
    #[arg(required = true)]
    names: Vec<VmName>,
    /// Stop a VM that runs, without asking its guest
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    for name in &args.names {
        let dir = VmDir::of(&env.paths, name);
        if !dir.path().exists() {
            env.printer.note(&format!("There is no VM {name}."));
            continue;
        }
        remove(&dir, args.force).await?;
        env.printer.note(&format!("VM {name} is removed."));
    }
    Ok(())
}

async fn remove(dir: &VmDir, force: bool) -> Result<()> {
    // What can't be read names no process; the mark finds it below.
    let lives = dir.living().ok().flatten().is_some();
    if lives && !force {
        let name = &dir.name;
        return Err(Failure::usage(format!("VM {name} runs"))
            .hint(format!("stop it first: knest vm stop {name}"))
            .hint(format!("or both at once: knest vm remove --force {name}")));
    }
    if lives {
        stop::stop(dir, None).await?;
    }
    let _lock = VmLock::acquire_within(dir, READ).await?;
    vm::discard(dir).await
}
