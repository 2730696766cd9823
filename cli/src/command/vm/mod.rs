//! `knest vm`: single VMs under Cloud Hypervisor, one file a verb.

mod api;
mod console;
mod events;
mod info;
mod list;
mod logs;
mod reboot;
mod remove;
mod run;
mod start;
mod stop;

use super::Env;
use crate::cluster::name::VmName;
use crate::failure::{Context, Result};
use clap::Subcommand;
use std::io::{ErrorKind, Write};

/// What can be done with a VM.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a VM from an image or a disk, and boot it
    Run(Box<run::Args>),
    /// Boot a VM that has ended
    Start(start::Args),
    /// List the VMs
    List(list::Args),
    /// Print all that is known of a VM
    Info(info::Args),
    /// Join this terminal to a VM's console; Ctrl-] leaves it
    Console(console::Args),
    /// Print what a VM wrote to its serial port
    Logs(logs::Args),
    /// Print what Cloud Hypervisor reported of a VM
    Events(events::Args),
    /// Stop a VM: by its power button, and by force if that does not help
    Stop(stop::Args),
    /// Reset a VM at once
    Reboot(reboot::Args),
    /// Make any call of Cloud Hypervisor's API
    Api(api::Args),
    /// Remove VMs that have ended, with all that belongs to them
    Remove(remove::Args),
}

/// The VM that a verb is about.
#[derive(Debug, clap::Args)]
struct Named {
    /// The VM's name
    name: VmName,
}

/// A piece of an answer that may go on for ever, to standard output; `false` once nobody reads it.
fn stream(bytes: &[u8]) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => other.host("writing the answer").map(|()| true),
    }
}

pub(super) async fn run(verb: Verb, env: &Env) -> Result<()> {
    match verb {
        Verb::Run(args) => run::run(*args, env).await,
        Verb::Start(args) => start::run(args, env).await,
        Verb::List(args) => list::run(args, env).await,
        Verb::Info(args) => info::run(args, env).await,
        Verb::Console(args) => console::run(args, env).await,
        Verb::Logs(args) => logs::run(args, env).await,
        Verb::Events(args) => events::run(args, env).await,
        Verb::Stop(args) => stop::run(args, env).await,
        Verb::Reboot(args) => reboot::run(args, env).await,
        Verb::Api(args) => api::run(args, env).await,
        Verb::Remove(args) => remove::run(args, env).await,
    }
}
