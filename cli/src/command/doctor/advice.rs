//! Which VMM to use here. Pure: Cloud Hypervisor wherever it works; never QEMU for less than its need.

use super::facts::Facts;
use knest_vmm::preflight::Verdict;
use serde::Serialize;

/// The VMM to use and why, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Advice {
    pub(super) recommended_vmm: Option<&'static str>,
    pub(super) reason: String,
}

pub(super) fn advise(facts: &Facts) -> Advice {
    let advice = |vmm, reason: &str| Advice {
        recommended_vmm: vmm,
        reason: reason.into(),
    };
    if !facts.nft.is_installed() {
        return advice(None, "nft is not installed");
    }
    if let Err(refusal) = &facts.network {
        return advice(None, &refusal.reason);
    }
    if !facts.state.writable {
        let place = facts.state.path.display();
        return advice(None, &format!("{place} can't be written"));
    }
    let kvm = facts.kvm.can_boot_stock_kernel();
    match (kvm, facts.cloud_hypervisor.works(), facts.qemu.works()) {
        (Verdict::Yes, true, _) => advice(
            Some("cloud-hypervisor"),
            "KVM boots stock kernels and Cloud Hypervisor is installed",
        ),
        (Verdict::Yes, false, true) => advice(
            Some("qemu"),
            "KVM boots stock kernels, Cloud Hypervisor is not installed (knest setup fetches it), \
             QEMU is",
        ),
        (Verdict::No { reason }, _, true) => advice(
            Some("qemu"),
            &format!("{}; QEMU emulates the processor instead", brief(&reason)),
        ),
        (Verdict::Yes, false, false) => advice(
            None,
            "neither Cloud Hypervisor (knest setup fetches it) nor QEMU is installed",
        ),
        (Verdict::No { reason }, _, false) => advice(
            None,
            &format!(
                "{}, and QEMU, which could emulate, is not installed",
                brief(&reason)
            ),
        ),
    }
}

/// A reason without its details, which have a line of their own.
fn brief(reason: &str) -> &str {
    reason.split(": ").next().unwrap_or(reason)
}

#[cfg(test)]
mod tests {
    use super::super::facts::testing::facts;
    use super::super::facts::{Program, Refusal};
    use super::*;
    use knest_vmm::preflight::Access;

    #[test]
    fn cloud_hypervisor_wherever_it_works() {
        let advised = |kvm: bool, cloud_hypervisor: bool, qemu: bool| {
            let mut it = facts();
            if !kvm {
                it.kvm.access = Access::Missing;
            }
            if !cloud_hypervisor {
                it.cloud_hypervisor = Program::Missing;
            }
            if !qemu {
                it.qemu = Program::Missing;
            }
            advise(&it).recommended_vmm
        };
        assert_eq!(advised(true, true, true), Some("cloud-hypervisor"));
        assert_eq!(advised(true, true, false), Some("cloud-hypervisor"));
        assert_eq!(advised(true, false, true), Some("qemu"));
        assert_eq!(advised(false, true, true), Some("qemu"));
        assert_eq!(advised(false, true, false), None);
        assert_eq!(advised(true, false, false), None);
    }

    #[test]
    fn no_vmm_makes_up_for_what_every_one_needs() {
        let mut it = facts();
        it.network = Err(Refusal {
            reason: "no TAP".into(),
            remedies: vec![],
        });
        let fenced = advise(&it);
        assert_eq!((fenced.recommended_vmm, &*fenced.reason), (None, "no TAP"));
        let mut it = facts();
        it.nft = Program::Missing;
        assert_eq!(advise(&it).recommended_vmm, None);
        let mut it = facts();
        it.state.writable = false;
        assert!(advise(&it).reason.contains("can't be written"));
    }
}
