//! Into the machines' namespace: the living one, if any machine still holds it, else a new one, with
//! the way out beside it. All of this happens while the process has one thread. What was begun is in
//! two files of a directory: a cluster's, or a single VM's.

use super::namespace::{self, Namespaces};
use super::pasta;
use crate::failure::{Failure, Result};
use crate::provider::local::process::Identity;
use crate::provider::local::state::{read_json, remove, write_json};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Child;

/// The namespace, and who connects it with the world.
pub(crate) const NETWORK: &str = "network.json";
/// What that process says.
pub(crate) const PASTA_LOG: &str = "pasta.log";

/// `network.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Network {
    version: u32,
    /// The network namespace's inode.
    namespace: u64,
    /// Who connects it with the world; nobody where pasta is not installed.
    pub(crate) pasta: Option<Identity>,
}

const VERSION: u32 = 1;

/// Where the process is now.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) network: Network,
    /// pasta, if this process began it: to be reaped.
    pub(crate) pasta: Option<Child>,
    /// Whether the namespace was there before.
    pub(crate) joined: bool,
}

/// Enters the namespace that the `living` machines are in, or makes one. What is begun for it is
/// in `network.json` before it is let loose.
pub(crate) fn enter(dir: &Path, living: &[Identity]) -> Result<Entry> {
    let earlier = read_json::<Network>(&dir.join(NETWORK))?.and_then(|n| n.pasta);
    let target = living.iter().find(|i| i.alive());
    if target.is_none()
        && let Some(pasta) = &earlier
    {
        // It serves a namespace that nobody is in any more.
        pasta.end()?;
    }
    let kept = earlier.filter(Identity::alive);
    let waiting = match (&kept, pasta::find()) {
        (None, Some(program)) => Some(pasta::prepare(&program, &dir.join(PASTA_LOG), dir)?),
        _ => None,
    };
    let before = namespace::network_of("self");
    let namespaces: Namespaces = match target {
        Some(machine) => namespace::join(machine.pid)?,
        None => namespace::create()?,
    };
    let inside = namespace::network_of("self").filter(|n| Some(*n) != before);
    let Some(inside) = inside else {
        return Err(Failure::host(
            "still in the host's network namespace; nothing was done there",
        ));
    };
    let started = waiting.as_ref().and_then(pasta::Waiting::identity);
    let network = Network {
        version: VERSION,
        namespace: inside,
        pasta: kept.or(started),
    };
    write_json(&dir.join(NETWORK), &network)?;
    let pasta = waiting.map(|w| w.release(namespaces)).transpose()?;
    Ok(Entry {
        network,
        pasta,
        joined: target.is_some(),
    })
}

/// Ends what `network.json` names and removes it.
pub(crate) fn leftover(dir: &Path) -> Result<()> {
    if let Some(network) = read_json::<Network>(&dir.join(NETWORK))?
        && let Some(pasta) = network.pasta
    {
        pasta.end()?;
    }
    remove(&dir.join(NETWORK))
}
