//! The lines, of what was found. Pure: a fact in, a grade with its remedy out.

use super::check::{Check, Grade};
use super::facts::{Facts, Program};
use crate::provider::local::kvm_remedy;
use knest_vmm::preflight::{Access, Limit, Verdict};
use knest_vmm::virtiofsd::Flavor;

/// One node of the default size, and what runs it.
const MEMORY: u64 = 2560 << 20;
/// The default node image as a disk, and a machine that writes a little.
const DISK: u64 = 6 << 30;
/// A supervisor with a cluster's machines, consoles and the API's connections.
const OPEN_FILES: u64 = 1024;

/// Every line, what matters most first.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![kvm(facts)];
    checks.extend(sizes(facts));
    checks.push(snapshot(facts));
    checks.push(cloud_hypervisor(facts));
    checks.push(qemu(facts));
    checks.push(nft(facts));
    checks.push(pasta(facts));
    checks.push(network(facts));
    checks.push(virtiofsd(facts));
    checks.extend(other_users(facts));
    checks.push(io_uring(facts));
    checks.push(userfaultfd(facts));
    checks.push(landlock(facts));
    checks.push(huge_pages(facts));
    checks.push(passthrough(facts));
    checks.push(open_files(facts));
    checks.push(memory(facts));
    checks.push(disk(facts));
    checks
}

fn kvm(facts: &Facts) -> Check {
    const NAME: &str = "kvm";
    let report = &facts.kvm;
    let Verdict::No { reason } = report.can_boot_stock_kernel() else {
        let settings = [&report.modules.join(" "), &report.settings.join(" ")];
        let found = format!(
            "boots stock kernels ({})",
            settings.map(String::as_str).join(" ")
        );
        return match report.pages_in_hardware() {
            Verdict::Yes => Check::ok(NAME, found),
            Verdict::No { reason } => Check::warning(
                NAME,
                format!("boots stock kernels, and slowly: {reason}"),
                "load its module again with ept=1 (kvm_intel) or npt=1 (kvm_amd)",
            ),
        };
    };
    // QEMU makes up for it.
    let grade = or_qemu(facts);
    let found = match report.can_run() {
        Verdict::Yes => format!("usable, but boots no stock kernel: {reason}"),
        Verdict::No { .. } => reason,
    };
    Check::bad(NAME, grade, found, kvm_remedy(report))
}

fn or_qemu(facts: &Facts) -> Grade {
    if facts.qemu.works() {
        Grade::Warning
    } else {
        Grade::Failure
    }
}

/// Nothing where KVM can't be asked: its own line says so.
fn sizes(facts: &Facts) -> Option<Check> {
    facts.kvm.can_run().is_yes().then(|| {
        let limits = facts.kvm.limits;
        let found = format!(
            "at most {} vCPUs a VM ({} recommended), {} memory slots",
            limits.max_vcpus, limits.recommended_vcpus, limits.memory_slots
        );
        Check::ok("vm-size", found)
    })
}

fn snapshot(facts: &Facts) -> Check {
    const NAME: &str = "snapshot";
    match facts.kvm.can_snapshot() {
        Verdict::Yes => Check::ok(NAME, "VMs can be snapshot, restored and migrated"),
        Verdict::No { reason } => {
            let remedy = match facts.kvm.can_run() {
                Verdict::Yes => "snapshots, restoring and migration need another KVM: hardware \
                                 virtualisation, and Linux 4.20 or later"
                    .to_owned(),
                Verdict::No { .. } => kvm_remedy(&facts.kvm),
            };
            Check::warning(NAME, reason, remedy)
        }
    }
}

fn cloud_hypervisor(facts: &Facts) -> Check {
    const NAME: &str = "cloud-hypervisor";
    match &facts.cloud_hypervisor {
        Program::Missing => Check::bad(
            NAME,
            or_qemu(facts),
            "not installed",
            "knest setup fetches it",
        ),
        Program::Silent { path, error } => Check::bad(
            NAME,
            or_qemu(facts),
            format!("{} does not answer: {error}", path.display()),
            "knest setup fetches one that does",
        ),
        Program::Found { .. } => found(NAME, &facts.cloud_hypervisor),
    }
}

/// A program that answered.
fn found(name: &'static str, program: &Program) -> Check {
    match program {
        Program::Found { path, version } => {
            Check::ok(name, format!("{version}, {}", path.display()))
        }
        Program::Silent { path, error } => {
            let found = format!("{} does not tell its version: {error}", path.display());
            Check::warning(name, found, "install it anew")
        }
        Program::Missing => Check::ok(name, "not installed, and not needed"),
    }
}

fn qemu(facts: &Facts) -> Check {
    const NAME: &str = "qemu";
    let needed = !facts.kvm.can_boot_stock_kernel().is_yes() || !facts.cloud_hypervisor.works();
    match &facts.qemu {
        Program::Missing if needed => {
            Check::failure(NAME, "not installed", "install qemu-system-x86")
        }
        other => found(NAME, other),
    }
}

fn nft(facts: &Facts) -> Check {
    match &facts.nft {
        Program::Missing => Check::failure("nft", "not installed", "install nftables"),
        other => found("nft", other),
    }
}

fn pasta(facts: &Facts) -> Check {
    match &facts.pasta {
        Program::Missing => Check::warning(
            "pasta",
            "not installed: machines reach nothing outside",
            "install passt",
        ),
        other => found("pasta", other),
    }
}

fn network(facts: &Facts) -> Check {
    match &facts.network {
        Ok(()) if facts.root => Check::ok("network", "namespaces, bridge, TAP and nftables work"),
        Ok(()) => Check::ok(
            "network",
            "namespaces, bridge, TAP and nftables work, without root",
        ),
        Err(refusal) => Check {
            name: "network",
            grade: Grade::Failure,
            found: refusal.reason.clone(),
            remedies: refusal.remedies.clone(),
        },
    }
}

fn virtiofsd(facts: &Facts) -> Check {
    const NAME: &str = "virtiofsd";
    const REMEDY: &str =
        "install the one in Rust (package virtiofsd, or `cargo install virtiofsd`)";
    match (&facts.virtiofsd, facts.flavor) {
        (Program::Missing, _) => {
            Check::warning(NAME, "not installed: VMs can share no directory", REMEDY)
        }
        (Program::Found { path, version }, Some(Flavor::C)) => {
            let limits = match facts.root {
                true => "which never shares read-only",
                false => "which shares for root only",
            };
            let found = format!("{version}, {}: QEMU's old one, {limits}", path.display());
            Check::warning(NAME, found, REMEDY)
        }
        (other, _) => found(NAME, other),
    }
}

/// What a user who is not root finds is in every other line; root has to be told.
fn other_users(facts: &Facts) -> Option<Check> {
    const NAME: &str = "other-users";
    facts.root.then(|| match facts.obstacles.is_empty() {
        true => Check::ok(NAME, "nothing known keeps them from using knest too"),
        false => Check {
            name: NAME,
            grade: Grade::Warning,
            found: "only root can use knest here".into(),
            remedies: facts.obstacles.clone(),
        },
    })
}

fn io_uring(facts: &Facts) -> Check {
    match &facts.host.io_uring {
        Verdict::Yes => Check::ok("io-uring", "disks use it"),
        Verdict::No { reason } => Check::warning(
            "io-uring",
            format!("disks are slower without it: {reason}"),
            "sudo sysctl -w kernel.io_uring_disabled=0; in a container, its seccomp profile must \
             allow io_uring_setup",
        ),
    }
}

fn userfaultfd(facts: &Facts) -> Check {
    let found = match &facts.host.userfaultfd {
        Verdict::Yes => "VMs can be restored on demand".to_owned(),
        Verdict::No { reason } => format!("VMs are restored whole, not on demand: {reason}"),
    };
    Check::ok("userfaultfd", found)
}

fn landlock(facts: &Facts) -> Check {
    let found = match facts.host.landlock {
        Some(version) => format!("version {version}: a VM can be fenced in by landlock_enable"),
        None => "not in this kernel: landlock_enable can't be used".to_owned(),
    };
    Check::ok("landlock", found)
}

fn huge_pages(facts: &Facts) -> Check {
    let set_aside: Vec<String> = facts
        .host
        .huge_pages
        .iter()
        .filter(|pages| pages.total > 0)
        .map(|pages| {
            let size = pages.size >> 20;
            format!("{} of {} of {size} MiB free", pages.free, pages.total)
        })
        .collect();
    let found = match set_aside.is_empty() {
        true => "none set aside: memory of huge pages can't be asked for".to_owned(),
        false => set_aside.join(", "),
    };
    Check::ok("huge-pages", found)
}

fn passthrough(facts: &Facts) -> Check {
    let host = &facts.host;
    // All of such a VM's memory is locked.
    let size = match host.locked_memory.soft {
        Some(bytes) => format!("at most {:.1} GiB (locked memory)", gib(bytes)),
        None => "any size".to_owned(),
    };
    let found = match (&host.vfio, host.iommu_groups) {
        (_, 0) => "no IOMMU: devices can't be passed through".to_owned(),
        (Access::Granted, groups) => {
            format!("devices of {groups} IOMMU groups can be passed through to VMs of {size}")
        }
        (Access::Missing, _) => "the module vfio-pci is not loaded".to_owned(),
        (Access::Denied, _) => "this user may not pass devices through".to_owned(),
        (Access::Failed(error), _) => format!("/dev/vfio/vfio: {error}"),
    };
    Check::ok("passthrough", found)
}

fn open_files(facts: &Facts) -> Check {
    const NAME: &str = "open-files";
    let Limit { soft, hard } = facts.host.open_files;
    let number =
        |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let found = format!("{} a process (at most {})", number(soft), number(hard));
    match soft {
        Some(few) if few < OPEN_FILES => {
            Check::warning(NAME, found, format!("ulimit -n {}", 4 * OPEN_FILES))
        }
        _ => Check::ok(NAME, found),
    }
}

fn memory(facts: &Facts) -> Check {
    room("memory", facts.memory, MEMORY)
}

fn disk(facts: &Facts) -> Check {
    let state = &facts.state;
    if !state.writable {
        return Check::failure(
            "disk",
            format!("{} can't be written", state.path.display()),
            "make it this user's, or set XDG_STATE_HOME to a directory that is",
        );
    }
    room("disk", state.room, DISK)
}

fn room(name: &'static str, available: u64, wanted: u64) -> Check {
    let found = format!("{:.1} GiB available", gib(available));
    if available >= wanted {
        return Check::ok(name, found);
    }
    let remedy = format!("a cluster of one node takes about {:.1} GiB", gib(wanted));
    Check::warning(name, found, remedy)
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
#[path = "checks/tests.rs"]
mod tests;
