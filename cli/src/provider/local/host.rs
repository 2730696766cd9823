//! What this host is and has, asked one by one; `doctor` shows it, `preflight` acts on it.

use super::network::{self, Links};
use crate::failure::{Context, Failure, Result};
use crate::paths::find_program;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// A trial of namespaces takes milliseconds.
const TRIAL: Duration = Duration::from_secs(20);

/// nftables' program.
pub(crate) fn find_nft() -> Option<PathBuf> {
    find_program("nft", None, None)
}

/// The same where nothing goes without it.
pub(crate) fn need_nft() -> Result<PathBuf> {
    find_nft().ok_or_else(|| Failure::host("nft is not installed").hint("install nftables"))
}

/// Bytes of memory that programs can still get.
pub(crate) fn memory_available() -> Result<u64> {
    let text = fs_err::read_to_string("/proc/meminfo").host("reading the memory's state")?;
    parse_meminfo(&text)
        .ok_or_else(|| Failure::host("/proc/meminfo does not say how much memory is available"))
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// Bytes that this user can still write at a path, or where it would be made.
pub(crate) fn disk_available(path: &Path) -> Result<u64> {
    let exists = |p: &&Path| p.exists();
    let place = path
        .ancestors()
        .find(exists)
        .unwrap_or_else(|| Path::new("/"));
    let stat =
        rustix::fs::statvfs(place).host(format!("asking for space at {}", place.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether this user can make what a cluster's network is made of: tried in a process of its own,
/// whose end takes everything away again.
pub(crate) async fn namespaces() -> Result<()> {
    let child = Command::new("/proc/self/exe")
        .arg0("knest")
        .args(["supervise", "--probe", "--output", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .output();
    let late = |_| {
        Failure::timeout(format!(
            "the trial of namespaces took over {} s",
            TRIAL.as_secs()
        ))
    };
    let output = tokio::time::timeout(TRIAL, child).await.map_err(late)?;
    let output = output.host("trying namespaces")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let reported = text.lines().find_map(|line| {
        let mut value: serde_json::Value = serde_json::from_str(line).ok()?;
        serde_json::from_value::<super::report::Report>(value.get_mut("error")?.take()).ok()
    });
    Err(match reported {
        Some(report) => Failure::from(report).while_doing("a network of this user's own"),
        None => Failure::host(format!("trying namespaces: {}", output.status)).evidence(text),
    })
}

/// The trial itself, in a process that has one thread and ends afterwards.
pub(crate) fn probe() -> Result<()> {
    // A device that nobody can open would be found only after everything else.
    let tun = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    drop(tun.map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        Failure::host("TAP devices can't be made")
            .because(error)
            .hint(if missing {
                "load the module tun (sudo modprobe tun); in a container, give it the device \
             /dev/net/tun"
            } else {
                "let this user read and write it: sudo chmod 666 /dev/net/tun"
            })
    })?);
    network::create()?;
    let range = "192.0.2.0/30".parse().host("a range for the trial")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .host("starting the runtime")?;
    runtime
        .block_on(async {
            let links = Links::open()?;
            links.ensure_bridge(range).await?;
            links.ensure_tap("tap0").await?;
            match find_nft() {
                Some(nft) => network::install_masquerade(&nft, range).await,
                None => Ok(()),
            }
        })
        .map_err(|failure| network::remedies().into_iter().fold(failure, Failure::hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo() {
        let text = "MemTotal:  100 kB\nMemAvailable:       42 kB\n";
        assert_eq!(parse_meminfo(text), Some(42 * 1024));
        assert_eq!(parse_meminfo("MemTotal: 1 kB\n"), None);
        assert!(memory_available().unwrap() > 0);
        assert!(disk_available(Path::new("/nowhere/at/all")).unwrap() > 0);
    }
}
