//! `knest vm console`.

use super::{Env, Named};
use crate::failure::{Context, Result};
use crate::provider::local::socket::SocketDir;
use crate::vm::{self, Left, Life, VmDir};
use std::io::IsTerminal;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    vm: Named,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let dir = vm::existing(&env.paths, &args.vm.name)?;
    join(&dir, env).await.map(drop)
}

/// Joins this terminal to the console of a VM that must run.
pub(super) async fn join(dir: &VmDir, env: &Env) -> Result<Left> {
    if dir.living()?.is_none() {
        return Err(vm::not_running(dir)?);
    }
    vm::ensure_supervisor(dir).await?;
    let console = SocketDir::open(dir.path())?.connect("console.sock").await;
    let console = console.host("connecting to the console")?;
    let leave = match std::io::stdin().is_terminal() {
        true => "; Ctrl-] leaves it",
        false => "",
    };
    env.printer
        .note(&format!("Console of VM {}{leave}.", dir.name));
    let left = vm::session(console).await?;
    if left == Left::Escaped && dir.living()?.is_some() {
        env.printer.note(&format!(
            "VM {0} goes on. Its console again: knest vm console {0}",
            dir.name
        ));
    }
    Ok(left)
}
