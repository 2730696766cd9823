//! `knest vm reboot`.

use super::{Env, Named};
use crate::failure::Result;
use crate::vm;

#[derive(Debug, clap::Args)]
#[command(after_help = "The guest is not asked: this is the reset button.")]
pub(crate) struct Args {
    #[command(flatten)]
    vm: Named,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let dir = vm::existing(&env.paths, &args.vm.name)?;
    let open = vm::open(&dir).await?;
    open.vm.reboot().await.map_err(vm::failure)
}
