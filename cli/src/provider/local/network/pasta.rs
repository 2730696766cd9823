//! The way out: pasta, which turns the namespace's traffic into sockets of this user outside.
//! It has to be outside itself, so it is begun before the namespace is entered: a shell that waits
//! for the number of a process inside, then becomes pasta. Nothing is forwarded inwards, and the
//! host's loopback can't be reached from inside.

use super::namespace::Namespaces;
use crate::failure::{Context, Result};
use crate::paths::find_program;
use crate::provider::local::process::{Identity, MARK};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// The interface that pasta makes inside.
pub(crate) const OUTSIDE: &str = "outside";

/// Queries sent here are answered by the host's own resolver, wherever that listens.
pub(crate) const DNS_FORWARD: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// `read` fails, and the shell ends, if whoever began it ends before releasing it.
///
/// In root's namespace, pasta would become nobody, whom the kernel keeps out of it: so the
/// namespace comes as an open file, and pasta stays root (with no capability but over it).
const WAIT: &str = r#"read -r kind pid || exit 0
case $kind in
network) exec 7<"/proc/$pid/ns/net" && exec "$@" --netns-only --netns /proc/self/fd/7 ;;
*) exec "$@" "$pid" ;;
esac"#;

/// pasta's binary, if it is installed.
pub(crate) fn find() -> Option<PathBuf> {
    find_program("pasta", None, None)
}

/// pasta, not let loose yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    child: Child,
    input: ChildStdin,
}

/// Starts the shell that waits. `log` gets all that pasta says.
pub(crate) fn prepare(pasta: &Path, log: &Path, directory: &Path) -> Result<Waiting> {
    let what = "starting pasta";
    let mut options = fs_err::OpenOptions::new();
    let log = options
        .create(true)
        .append(true)
        .open(log)
        .host(what)?
        .into_file();
    let errors = log.try_clone().host(what)?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", WAIT, "pasta"])
        .arg(pasta)
        .args(arguments(rustix::process::geteuid().is_root()))
        .env(MARK, directory)
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .host(what)?;
    match child.stdin.take() {
        Some(input) => Ok(Waiting { child, input }),
        None => Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).host(what),
    }
}

impl Waiting {
    /// The process that will be pasta.
    pub(crate) fn identity(&self) -> Option<Identity> {
        Identity::of(self.child.id())
    }

    /// Lets it loose on this process's namespaces.
    pub(crate) fn release(mut self, into: Namespaces) -> Result<Child> {
        let kind = match into {
            Namespaces::Network => "network",
            Namespaces::UserAndNetwork => "user",
        };
        let line = format!("{kind} {}\n", std::process::id());
        self.input
            .write_all(line.as_bytes())
            .host("starting pasta")?;
        Ok(self.child)
    }
}

/// All but the namespace. Every option is in the oldest packaged version (2023-03) and the newest.
fn arguments(root: bool) -> Vec<String> {
    let mut arguments: Vec<String> = vec![
        "--foreground".into(),
        // Addresses and routes of the host's default route, on our interface inside.
        "--config-net".into(),
        "--ns-ifname".into(),
        OUTSIDE.into(),
        "--ipv4-only".into(),
        // Without this the gateway's address would be the host's loopback.
        "--no-map-gw".into(),
        // The namespace is ours to end, and pasta with it.
        "--no-netns-quit".into(),
        "--dns-forward".into(),
        DNS_FORWARD.to_string(),
    ];
    // No port of one side appears on the other.
    for direction in ["--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"] {
        arguments.extend([direction.into(), "none".into()]);
    }
    // Everything has its address already.
    for service in ["--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"] {
        arguments.push(service.into());
    }
    if root {
        arguments.extend(["--runas".into(), "0:0".into()]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argv() {
        insta::assert_snapshot!(arguments(false).join(" "), @"--foreground --config-net --ns-ifname outside --ipv4-only --no-map-gw --no-netns-quit --dns-forward 169.254.1.1 --tcp-ports none --udp-ports none --tcp-ns none --udp-ns none --no-dhcp --no-dhcpv6 --no-ndp --no-ra");
    }
}
