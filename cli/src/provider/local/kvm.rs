//! What this host's KVM is good for here.

use super::vmm::Accelerator;
use crate::failure::Failure;
use knest_vmm::preflight::{Access, Report, Verdict, inspect};
use std::path::Path;

/// A few milliseconds, blocking.
pub(crate) fn look() -> Report {
    inspect(Path::new("/dev/kvm"))
}

/// How QEMU runs machines here: with KVM only where it boots a stock kernel.
pub(crate) fn accelerator() -> Accelerator {
    match look().can_boot_stock_kernel() {
        Verdict::Yes => Accelerator::Kvm,
        Verdict::No { .. } => Accelerator::Tcg,
    }
}

/// What would help a KVM that is not what it should be.
pub(crate) fn remedy(report: &Report) -> String {
    match &report.access {
        Access::Missing => "switch virtualisation on in the firmware (or nested virtualisation on \
                            the host of this virtual machine) and load kvm_intel or kvm_amd"
            .into(),
        Access::Denied => {
            "add yourself to the device's group: sudo usermod -aG kvm $USER, then log in anew"
                .into()
        }
        Access::Failed(_) | Access::Granted => {
            "this needs another KVM: hardware virtualisation, not a software one".into()
        }
    }
}

/// Why Cloud Hypervisor can't run machines here; `None` if it can.
pub(crate) fn refusal(report: &Report) -> Option<Failure> {
    let Verdict::No { reason } = report.can_boot_stock_kernel() else {
        return None;
    };
    Some(
        Failure::host(format!(
            "Cloud Hypervisor can't run machines here: {reason}"
        ))
        .hint(remedy(report)),
    )
}
