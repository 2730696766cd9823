//! The preflight against this host's own KVM.

mod support;

use knest_vmm::preflight::{Probe, inspect};

#[test]
fn tells_what_this_host_can_do() {
    if support::cloud_hypervisor("tells_what_this_host_can_do").is_none() {
        return;
    }
    let report = inspect("/dev/kvm".as_ref());
    assert!(report.can_run().is_yes(), "{report:?}");
    assert_eq!(report.probes.len(), Probe::ALL.len());
    println!("stock kernel: {}", report.can_boot_stock_kernel());
    println!("snapshot: {}", report.can_snapshot());
    if report.modules == ["kvm_pvm"] {
        assert!(!report.can_boot_stock_kernel().is_yes());
    }
}
