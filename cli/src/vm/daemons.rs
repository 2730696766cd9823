//! The virtiofsd of every share: which program, in which sandbox, and whether they hold.

use super::config::share_socket;
use super::spec::ShareSpec;
use crate::failure::{Context, Failure, Result};
use crate::paths::find_program;
use crate::provider::local::process::tail;
use knest_vmm::virtiofsd::{Flavor, Sandbox, Share, Virtiofsd, flavor};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// It says its version in milliseconds.
const ANSWER: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// Distributions keep it out of `PATH`.
const PLACES: [&str; 3] = ["/usr/libexec", "/usr/lib", "/usr/lib/qemu"];

/// The program: `$KNEST_VIRTIOFSD`, then `PATH`, then where distributions put it, then what is in
/// knest's cache.
pub(crate) fn find_virtiofsd(programs: &Path) -> Result<PathBuf> {
    let named = find_program("virtiofsd", Some("KNEST_VIRTIOFSD"), Some(programs));
    let elsewhere = || {
        let beside = |place: &&str| find_program("virtiofsd", None, Some(Path::new(place)));
        PLACES.iter().find_map(beside)
    };
    let overridden = std::env::var_os("KNEST_VIRTIOFSD").is_some_and(|v| !v.is_empty());
    named
        .or_else(|| if overridden { None } else { elsewhere() })
        .ok_or_else(|| {
            Failure::host("virtiofsd is not installed, and sharing a directory needs it")
                .hint("install virtiofsd (in Debian 12 a part of qemu-system-common)")
        })
}

/// Which one it is.
pub(super) async fn flavor_of(program: &Path) -> Result<Flavor> {
    flavor(program, ANSWER)
        .await
        .host("asking virtiofsd for its version")
}

/// Whether it can do what is asked of it.
pub(super) fn check_flavor(program: &Path, flavor: Flavor, read_only: bool) -> Result<()> {
    if flavor == Flavor::Rust {
        return Ok(());
    }
    let name = program.display();
    let rust = "install the one in Rust (package virtiofsd), or name it in KNEST_VIRTIOFSD";
    if read_only {
        return Err(Failure::host(format!(
            "{name} can't share read-only: it is QEMU's old one"
        ))
        .hint(rust));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(
            Failure::host(format!("{name} shares for root only: it is QEMU's old one")).hint(rust),
        );
    }
    Ok(())
}

/// Every share's daemon, running. Must be called in the VM's directory.
pub(super) async fn start(program: &Path, shares: &[ShareSpec]) -> Result<Vec<Virtiofsd>> {
    let flavor = flavor_of(program).await?;
    let mut daemons = vec![];
    for (index, share) in shares.iter().enumerate() {
        let share = Share {
            read_only: share.read_only,
            sandbox: sandbox(flavor),
            ..Share::new(program, flavor, &share.directory, share_socket(index))
        };
        let what = format!("sharing {}", share.directory.display());
        daemons.push(Virtiofsd::start(share).host(what)?);
    }
    Ok(daemons)
}

/// Namespaces where they can be had: root has them, and the Rust daemon gets them as a user too.
fn sandbox(flavor: Flavor) -> Sandbox {
    let root = rustix::process::geteuid().is_root();
    let limit = fs_err::read_to_string("/proc/sys/user/max_user_namespaces");
    let forbidden = limit.is_ok_and(|text| text.trim() == "0");
    match flavor {
        Flavor::Rust if !root && forbidden => Sandbox::None,
        _ => Sandbox::Namespace,
    }
}

/// Waits until a daemon fails; for ever if none does. Cloud Hypervisor would wait a minute for one that
/// never serves.
pub(super) async fn one_fails(daemons: &[Virtiofsd]) -> Failure {
    loop {
        for daemon in daemons {
            if let Some(exit) = daemon.last_exit().filter(|exit| !exit.is_success()) {
                let share = daemon.share();
                return Failure::host(format!(
                    "sharing {}: virtiofsd ended with {exit}",
                    share.directory.display()
                ))
                .evidence(tail(&share.log, 10));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
