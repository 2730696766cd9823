//! `knest vm start`.

use super::{Env, Named};
use crate::failure::{Failure, Result};
use crate::vm::{self, Life, VmLock};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    vm: Named,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let dir = vm::existing(&env.paths, &args.vm.name)?;
    let _lock = VmLock::acquire(&dir)?;
    if dir.living()?.is_some() {
        return Err(Failure::usage(format!("VM {} runs already", dir.name)));
    }
    vm::start(&dir).await
}
