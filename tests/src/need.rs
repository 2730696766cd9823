//! What a test needs of the machine. A test whose needs are not met says `SKIP name: reason` and
//! passes; `KNEST_REQUIRE=vm,cluster` (or `all`) turns such a skip into a failure, so that a
//! machine that is meant to run them can't skip them unseen. `KNEST_SKIPS` names a file that gets
//! every such line, for the count at the end of `make test`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::env::{cloud_hypervisor, program};
use crate::host::PROGRAMS;
use crate::images::built;

/// One thing that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Cloud Hypervisor and a `/dev/kvm` that it may use: enough for small guests, which is not
    /// to say that a stock kernel boots there.
    Vm,
    /// QEMU, namespaces and TAPs, the node image and the kernel: a whole cluster under emulation.
    Cluster,
    /// The software-emulated host in which the real Cloud Hypervisor boots a stock kernel.
    Lab,
    /// The node image and the kernel, in this machine's image store.
    Images,
    /// Kubernetes's and etcd's programs, which the images' build leaves in knest's cache, and what
    /// a namespace for them is made with: a host control plane.
    Host,
    /// What hollow nodes are made of: the node image, the hollow kubelet, and namespaces.
    Hollow,
    /// Virtink's own controller, `virt-controller` on `PATH`.
    Virtink,
    /// A real registry: Debian's `docker-registry`, or one built from the same source.
    Registry,
    /// `e2fsck` and `debugfs`.
    Fsck,
    /// The super-user: what can't be tried without.
    Root,
    /// The long tier, `KNEST_TEST=full`.
    Full,
}

impl Need {
    /// The name that `KNEST_REQUIRE` has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Cluster => "cluster",
            Self::Lab => "lab",
            Self::Images => "images",
            Self::Host => "host",
            Self::Hollow => "hollow",
            Self::Virtink => "virtink",
            Self::Registry => "registry",
            Self::Fsck => "fsck",
            Self::Root => "root",
            Self::Full => "full",
        }
    }

    /// Why this machine can't give it, or `None` if it can.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Vm => cloud_hypervisor_missing().or_else(|| unopenable("/dev/kvm")),
            Self::Cluster => program_missing(&["qemu-system-x86_64", "ip", "nft"])
                .or_else(|| unopenable("/dev/net/tun"))
                .or_else(crate::images::missing),
            Self::Lab => cloud_hypervisor_missing().or_else(crate::lab::missing),
            Self::Images => crate::images::missing(),
            Self::Host => Self::Root
                .missing()
                .or_else(|| program_missing(&["ip", "nft", "setpriv"]))
                .or_else(|| unbuilt(&PROGRAMS)),
            Self::Hollow => Self::Root
                .missing()
                .or_else(|| program_missing(&crate::hollow::PROGRAMS))
                .or_else(crate::hollow::missing),
            Self::Virtink => program_missing(&["virt-controller"]),
            Self::Registry => program_missing(&["docker-registry"]),
            Self::Fsck => program_missing(&["e2fsck", "debugfs"]),
            Self::Root => {
                (!rustix::process::geteuid().is_root()).then(|| "only root can run it".to_owned())
            }
            Self::Full => (std::env::var_os("KNEST_TEST").is_none_or(|tier| tier != "full"))
                .then(|| "long; `KNEST_TEST=full make test` runs it".to_owned()),
        }
    }
}

/// Leaves the calling test with a printed reason unless this machine has all that is named:
/// `need!(Cluster, Full);`.
#[macro_export]
macro_rules! need {
    ($($need:ident),+ $(,)?) => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here);
        let name = name.strip_suffix("::here").unwrap_or(name);
        if !$crate::need::met(name, &[$($crate::need::Need::$need),+]) {
            return;
        }
    }};
}

/// Whether every need is met. The first that is not is printed, kept in the file that
/// `KNEST_SKIPS` names, and a panic if `KNEST_REQUIRE` names it.
#[must_use]
pub fn met(test: &str, needs: &[Need]) -> bool {
    let Some((need, reason)) = needs
        .iter()
        .find_map(|need| need.missing().map(|reason| (need, reason)))
    else {
        return true;
    };
    let required = std::env::var("KNEST_REQUIRE").unwrap_or_default();
    assert!(
        !names(&required, need.name()),
        "{test}: {reason} (KNEST_REQUIRE={required} forbids to skip it)"
    );
    skip(test, &reason);
    false
}

/// Says that a test is skipped, for a reason found while it ran.
pub fn skip(test: &str, reason: &str) {
    note(&format!("SKIP {test}: {reason}"));
}

/// Says that a test that runs leaves something out.
pub fn partly(test: &str, reason: &str) {
    note(&format!("PARTLY {test}: {reason}"));
}

fn note(line: &str) {
    println!("{line}");
    if let Some(path) = std::env::var_os("KNEST_SKIPS") {
        let appended = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = appended {
            println!("KNEST_SKIPS: {error}");
        }
    }
}

fn names(list: &str, name: &str) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|item| item == name || item == "all")
}

fn program_missing(names: &[&str]) -> Option<String> {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| program(name).is_none())
        .collect();
    (!missing.is_empty()).then(|| format!("not found: {}", missing.join(", ")))
}

fn unbuilt(names: &[&str]) -> Option<String> {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| built(name).is_none())
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "not built: {} (`images/build.sh` builds them)",
            missing.join(", ")
        )
    })
}

fn cloud_hypervisor_missing() -> Option<String> {
    cloud_hypervisor()
        .is_none()
        .then(|| "Cloud Hypervisor is not found".to_owned())
}

fn unopenable(path: &str) -> Option<String> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new(path));
    opened.err().map(|error| format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_needs() {
        assert!(names("vm,cluster", "cluster"));
        assert!(names("vm, lab", "lab"));
        assert!(names("all", "fsck"));
        assert!(!names("", "vm"));
        assert!(!names("cluster", "vm"));
    }

    #[test]
    fn a_missing_program_is_named() {
        assert_eq!(program_missing(&["sh"]), None);
        assert_eq!(
            program_missing(&["sh", "no-such-a"]).unwrap(),
            "not found: no-such-a"
        );
    }
}
