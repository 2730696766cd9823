//! The command line: one file a verb, named as it is typed. A verb's file turns flags into what
//! the inner rings take, runs it, and prints the answer.

mod completion;
mod config;
mod create;
mod delete;
mod doctor;
mod image;
mod install;
mod kubeconfig;
mod list;
mod man;
mod persistent;
mod place;
mod scale;
mod setup;
mod start;
mod stop;
pub(crate) mod supervise;
mod upgrade;
mod version;
mod vm;

use crate::cluster::name::ClusterName;
use crate::cluster::record::{NodeState, Phase, Record};
use crate::failure::{Failure, Result};
use crate::paths::Paths;
use crate::provider::{Lock, Provider};
use crate::ui::{Output, Printer};
use clap::{Parser, Subcommand};
use std::time::Duration;

/// Kubernetes clusters whose nodes are virtual machines run by Cloud Hypervisor.
#[derive(Debug, Parser)]
#[command(
    name = "knest",
    version,
    about,
    max_term_width = 100,
    propagate_version = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Flags that every verb takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// How answers and progress are written
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Print answers and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

impl Global {
    /// What writes as they say.
    pub(crate) fn printer(&self) -> Printer {
        Printer {
            output: self.output,
            quiet: self.quiet,
        }
    }
}

/// What knest can be asked to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a cluster, or go on with one whose creation stopped half-way
    Create(Box<create::Args>),
    /// Delete clusters and all that belongs to them
    Delete(delete::Args),
    /// List clusters
    List(list::Args),
    /// Change how many nodes a cluster has, and replace those that were lost
    Scale(scale::Args),
    /// Take a cluster to a newer Kubernetes version, node by node
    Upgrade(upgrade::Args),
    /// Shut a cluster's machines down; they keep their disks and addresses
    Stop(stop::Args),
    /// Start the machines of a cluster that was stopped, or of one whose host was
    Start(start::Args),
    /// Print a cluster's kubeconfig
    Kubeconfig(kubeconfig::Args),
    /// Manage the local image store
    #[command(subcommand)]
    Image(image::Verb),
    /// Run single virtual machines under Cloud Hypervisor
    #[command(subcommand)]
    Vm(vm::Verb),
    /// Say what this host can do, and what would help where it can't
    Doctor(doctor::Args),
    /// Fetch Cloud Hypervisor's pinned release into knest's cache
    Setup(setup::Args),
    /// Install Virtink, and cert-manager, on a host cluster; repair what is incomplete
    Install(install::Args),
    /// Set what is taken where no flag says otherwise
    #[command(subcommand)]
    Config(config::Verb),
    /// Print a completion script
    Completion(completion::Args),
    /// Write manual pages
    #[command(hide = true)]
    Man(man::Args),
    /// Print knest's version and what it makes by default
    Version,
}

/// What every verb is given beside its own flags.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) printer: Printer,
    pub(crate) paths: Paths,
}

/// The record of a cluster that must be there.
async fn existing(provider: &dyn Provider, name: &ClusterName) -> Result<Record> {
    if let Some(record) = provider.load(name).await? {
        return Ok(record);
    }
    let known = provider.names().await?;
    let others = known
        .iter()
        .map(ClusterName::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let failure = Failure::usage(format!("there is no cluster {name}"));
    Err(match known.is_empty() {
        true => failure.hint(format!("make it: knest create {name}")),
        false => failure.hint(format!("there are: {others}")),
    })
}

/// The lock under which a cluster may be changed, and its record; an error if there is no such cluster.
async fn locked(provider: &dyn Provider, name: &ClusterName) -> Result<(Box<dyn Lock>, Record)> {
    // A look before the lock, which would leave a directory for a cluster that never was.
    let record = existing(provider, name).await?;
    let lock = provider.lock(name).await?;
    // What another command changed between the look and the lock.
    Ok((lock, provider.load(name).await?.unwrap_or(record)))
}

/// Whether a cluster is whole, so that it can be changed; else what is to be done first.
fn complete(record: &Record) -> Result<()> {
    let name = &record.spec.name;
    Err(match record.phase {
        Phase::Ready => return Ok(()),
        Phase::Creating => Failure::usage(format!("cluster {name} is not complete"))
            .hint("run its create again with the same arguments"),
        Phase::Stopped => {
            Failure::usage(format!("cluster {name} is stopped")).hint(format!("knest start {name}"))
        }
        Phase::Deleting => Failure::usage(format!("cluster {name} is being deleted"))
            .hint(format!("finish that first: knest delete {name}")),
    })
}

/// Whether no upgrade is under way; which node then comes or leaves is the upgrade's to say.
fn of_one_version(record: &Record) -> Result<()> {
    let (name, version) = (&record.spec.name, record.spec.kubernetes_version);
    match record.upgrading() {
        false => Ok(()),
        true => Err(Failure::usage(format!(
            "the upgrade of cluster {name} to {version} has not ended"
        ))
        .hint(format!(
            "finish that first: knest upgrade {name} --kubernetes-version {version}"
        ))),
    }
}

/// Whether a cluster may be stopped or started: a node half-way to being one would not survive it.
fn settled(record: &Record) -> Result<()> {
    let name = &record.spec.name;
    if record.phase != Phase::Stopped {
        complete(record)?;
    }
    let Some(node) = record.in_state(NodeState::Wanted).next() else {
        return Ok(());
    };
    of_one_version(record)?;
    Err(Failure::usage(format!(
        "node {} of cluster {name} is not Ready yet",
        node.name
    ))
    .hint(format!("finish that first: knest scale {name}")))
}

/// `90s`, `20m`, `1h30m`, `7d`; at least a second.
fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || format!("{text:?} is not a duration like 90s, 20m or 1h30m");
    let (mut total, mut digits) = (0u64, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return Err(malformed()),
        };
        let number: u64 = digits.parse().map_err(|_| malformed())?;
        let seconds = number.checked_mul(unit).ok_or_else(malformed)?;
        total = total.checked_add(seconds).ok_or_else(malformed)?;
        digits.clear();
    }
    let year = 365 * 24 * 3600;
    match digits.is_empty() && (1..year).contains(&total) {
        true => Ok(Duration::from_secs(total)),
        false => Err(malformed()),
    }
}

/// Runs a verb.
pub(crate) async fn run(verb: Verb, env: &Env) -> Result<()> {
    match verb {
        Verb::Create(args) => create::run(*args, env).await,
        Verb::Delete(args) => delete::run(args, env).await,
        Verb::List(args) => list::run(args, env).await,
        Verb::Scale(args) => scale::run(args, env).await,
        Verb::Upgrade(args) => upgrade::run(args, env).await,
        Verb::Stop(args) => stop::run(args, env).await,
        Verb::Start(args) => start::run(args, env).await,
        Verb::Kubeconfig(args) => kubeconfig::run(args, env).await,
        Verb::Image(verb) => image::run(verb, env).await,
        Verb::Vm(verb) => vm::run(verb, env).await,
        Verb::Doctor(args) => doctor::run(args, env).await,
        Verb::Setup(args) => setup::run(args, env).await,
        Verb::Install(args) => install::run(args, env).await,
        Verb::Config(verb) => config::run(verb, env),
        Verb::Completion(args) => completion::run(args, env),
        Verb::Man(args) => man::run(&args, env),
        Verb::Version => version::run(env),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in [
            "",
            "0s",
            "10",
            "m",
            "1.5h",
            "-1m",
            "1w",
            "99999999999999999999h",
            "9999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
