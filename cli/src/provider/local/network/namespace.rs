//! Making and joining namespaces. Both must happen while the process has one thread: a thread
//! that is born later is born inside.

use crate::failure::{Context, Failure, Result};
use nix::sched::{CloneFlags, setns, unshare};
use std::os::unix::fs::MetadataExt;

/// What was made or joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    /// A network namespace alone: this is root.
    Network,
    /// A user namespace in which this user is root, and a network namespace that it owns.
    UserAndNetwork,
}

/// Enters new namespaces: root makes a network namespace; anybody else, and a root without the
/// right to, makes a user namespace first.
pub(crate) fn create() -> Result<Namespaces> {
    let uid = rustix::process::geteuid();
    let gid = rustix::process::getegid();
    if uid.is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(Namespaces::Network);
    }
    let user = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .host("making a user and a network namespace")
        .and_then(|()| {
            let write = |file: &str, text: String| {
                fs_err::write(format!("/proc/self/{file}"), text).host("mapping this user")
            };
            // Groups first: without this an unprivileged process may not map its group.
            write("setgroups", "deny".into())?;
            write("uid_map", format!("0 {} 1", uid.as_raw()))?;
            write("gid_map", format!("0 {} 1", gid.as_raw()))
        });
    user.map_err(with_remedies)?;
    Ok(Namespaces::UserAndNetwork)
}

/// Enters the namespaces of a living process.
pub(crate) fn join(pid: u32) -> Result<Namespaces> {
    let what = format!("joining the namespaces of process {pid}");
    let open = |kind: &str| fs_err::File::open(format!("/proc/{pid}/ns/{kind}")).host(&what);
    let (user, network) = (open("user")?, open("net")?);
    let own = fs_err::metadata("/proc/self/ns/user").host(&what)?.ino();
    let same = user.metadata().host(&what)?.ino() == own;
    if !same {
        setns(&user, CloneFlags::CLONE_NEWUSER).host(&what)?;
    }
    setns(&network, CloneFlags::CLONE_NEWNET).host(&what)?;
    Ok(if same {
        Namespaces::Network
    } else {
        Namespaces::UserAndNetwork
    })
}

/// The network namespace of a process, by its inode's number: unique while it lives.
pub(crate) fn network_of(pid: &str) -> Option<u64> {
    fs_err::metadata(format!("/proc/{pid}/ns/net"))
        .ok()
        .map(|m| m.ino())
}

fn with_remedies(failure: Failure) -> Failure {
    remedies().into_iter().fold(failure, Failure::hint)
}

/// What would help a user who can't make namespaces here, as hints; there always is something.
pub(crate) fn remedies() -> Vec<String> {
    let mut hints = obstacles();
    if hints.is_empty() {
        hints.push(
            "in a container, its seccomp profile must allow unshare and setns, or it must have \
             CAP_SYS_ADMIN and CAP_NET_ADMIN"
                .into(),
        );
    }
    hints
}

/// What is known to keep users other than root from making namespaces here, as hints.
pub(crate) fn obstacles() -> Vec<String> {
    known_obstacles(|name| {
        let text = fs_err::read_to_string(format!("/proc/sys/{name}")).ok()?;
        text.trim().parse().ok()
    })
}

fn known_obstacles(sysctl: impl Fn(&str) -> Option<u64>) -> Vec<String> {
    let mut hints = vec![];
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        hints.push(
            "AppArmor keeps users from making namespaces here: sudo sysctl -w \
             kernel.apparmor_restrict_unprivileged_userns=0"
                .into(),
        );
    }
    if sysctl("kernel/unprivileged_userns_clone") == Some(0) {
        hints.push(
            "this kernel keeps users from making namespaces: sudo sysctl -w \
             kernel.unprivileged_userns_clone=1"
                .into(),
        );
    }
    for kind in ["user", "net"] {
        if sysctl(&format!("user/max_{kind}_namespaces")) == Some(0) {
            hints.push(format!(
                "no {kind} namespaces are allowed here: sudo sysctl -w \
                 user.max_{kind}_namespaces=10000"
            ));
        }
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_what_is_in_the_way() {
        let ubuntu = known_obstacles(|name| {
            (name == "kernel/apparmor_restrict_unprivileged_userns").then_some(1)
        });
        assert!(
            ubuntu.len() == 1 && ubuntu[0].contains("AppArmor"),
            "{ubuntu:?}"
        );
        let none = known_obstacles(|name| name.starts_with("user/").then_some(0));
        assert_eq!(none.len(), 2);
        assert!(known_obstacles(|_| None).is_empty() && !remedies().is_empty());
    }
}
