//! `knest vm stop`: down the ladder, and what came of it.

use super::{Env, Named};
use crate::failure::{Context, Failure, Result};
use crate::ui::Output;
use crate::vm::{self, Life, VmDir};
use knest_vmm::process::Process;
use knest_vmm::shutdown::{Ladder, Outcome, Rung};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// How long a killed process may take to be gone.
const KILL: Duration = Duration::from_secs(10);
/// Between two tries to reach one that is busy.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The ladder: power button (for --timeout), vm.shutdown, vmm.shutdown, SIGTERM, \
    SIGKILL. Its directory stays, unless it was made with --rm: knest vm start, knest vm remove."
)]
pub(crate) struct Args {
    #[command(flatten)]
    vm: Named,
    /// How long the guest may take to power itself off
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = crate::command::duration)]
    timeout: Duration,
    /// Don't ask the guest
    #[arg(long, conflicts_with = "timeout")]
    force: bool,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let dir = vm::existing(&env.paths, &args.vm.name)?;
    let patience = (!args.force).then_some(args.timeout);
    let stopped = stop(&dir, patience).await?;
    let name = &dir.name;
    match (stopped, env.printer.output) {
        (None, Output::Table) => env.printer.note(&format!("VM {name} does not run.")),
        (None, Output::Json) => env.printer.json(&json!({"name": name, "by": null}))?,
        (Some(how), Output::Table) => env.printer.note(&format!("VM {name} {}.", how.text())),
        (Some(how), Output::Json) => env.printer.json(&json!({
            "name": name, "by": how.by, "exit": how.exit, "seconds": how.took.as_secs_f64(),
        }))?,
    }
    Ok(())
}

/// How a VM was stopped.
pub(super) struct Stopped {
    /// The rung that did it.
    by: &'static str,
    exit: String,
    took: Duration,
    graceful: bool,
}

impl Stopped {
    fn text(&self) -> String {
        let seconds = self.took.as_secs_f64();
        match self.graceful {
            true => format!("powered itself off in {seconds:.1} s"),
            false => format!(
                "was stopped by {} after {seconds:.1} s ({})",
                self.by, self.exit
            ),
        }
    }
}

/// Stops a VM, asking its guest first for as long as `patience`; `None` if it does not run. Nothing of
/// it is left running.
pub(super) async fn stop(dir: &VmDir, patience: Option<Duration>) -> Result<Option<Stopped>> {
    let Some(process) = dir.living()? else {
        vm::settled(dir).await?;
        return Ok(None);
    };
    let ladder = patience.map_or_else(Ladder::forced, Ladder::graceful);
    let begun = Instant::now();
    let reached = reach(dir, begun + patience.unwrap_or(AGAIN)).await?;
    let stopped = match reached {
        Some(open) => of(open.vm.stop(&ladder).await.map_err(vm::failure)?),
        // It lives and does not answer, so no call would help.
        None => kill(&process.watched(), begun).await?,
    };
    vm::settled(dir).await?;
    Ok(Some(stopped))
}

/// Its Cloud Hypervisor, as soon as that answers; `None` if it does not.
async fn reach(dir: &VmDir, deadline: Instant) -> Result<Option<vm::Open>> {
    vm::keep_supervised(dir).await;
    loop {
        match vm::attach(dir).await {
            Ok(open) => return Ok(Some(open)),
            Err(_) if dir.living()?.is_none() || Instant::now() >= deadline => return Ok(None),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn kill(process: &knest_vmm::process::Identity, begun: Instant) -> Result<Stopped> {
    let stopped = |by, exit: String| Stopped {
        by,
        exit,
        took: begun.elapsed(),
        graceful: false,
    };
    let Ok(process) = Process::attach(*process) else {
        return Ok(stopped("itself", "it ended meanwhile".into()));
    };
    process.kill().host("stopping Cloud Hypervisor")?;
    match process.wait_within(KILL).await {
        Some(exit) => Ok(stopped("SIGKILL", exit.to_string())),
        None => Err(Failure::timeout(format!(
            "process {} was still there {} s after SIGKILL",
            process.pid(),
            KILL.as_secs()
        ))),
    }
}

fn of(outcome: Outcome) -> Stopped {
    Stopped {
        by: match outcome.by {
            Some(Rung::PowerButton) => "its power button",
            Some(Rung::VmShutdown) => "vm.shutdown",
            Some(Rung::VmmShutdown) => "vmm.shutdown",
            Some(Rung::Terminate) => "SIGTERM",
            Some(Rung::Kill) => "SIGKILL",
            None => "itself",
        },
        graceful: outcome.is_graceful(),
        exit: outcome.exit.to_string(),
        took: outcome.took,
    }
}
