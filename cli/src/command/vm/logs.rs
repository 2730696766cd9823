//! `knest vm logs`: ttyS0, byte for byte.

use super::{Env, Named, stream};
use crate::failure::{Context, Result};
use crate::vm::{self, VmDir};
use knest_vmm::log::Reader;
use std::time::Duration;

const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    vm: Named,
    /// Go on with what it writes from now on, until it ends
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let dir = vm::existing(&env.paths, &args.vm.name)?;
    print(&dir, args.follow).await
}

/// Prints what is there, and what comes until the VM ends.
pub(super) async fn print(dir: &VmDir, follow: bool) -> Result<()> {
    let mut log = Reader::oldest(dir.serial_log());
    loop {
        // Looked at first: what was written before the end is read after it.
        let running = follow && !vm::has_ended(dir)?;
        loop {
            let mut piece = vec![];
            if log.read(&mut piece).host("reading the serial log")? == 0 {
                break;
            }
            if !stream(&piece)? {
                return Ok(());
            }
        }
        if !running {
            return Ok(());
        }
        vm::keep_supervised(dir).await;
        tokio::time::sleep(POLL).await;
    }
}
