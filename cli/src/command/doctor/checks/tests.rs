//! Each lack has its line, its grade and a remedy.

use super::super::facts::testing::facts;
use super::super::facts::{Facts, Refusal};
use super::*;
use knest_vmm::preflight::Outcome;

fn line(facts: &Facts, name: &str) -> Check {
    let mut checks = checks(facts).into_iter();
    checks.find(|check| check.name == name).unwrap()
}

#[test]
fn all_is_well_where_nothing_is_missing() {
    let all = checks(&facts());
    for check in &all {
        assert_eq!((check.grade, &check.remedies[..]), (Grade::Ok, &[][..]));
        assert!(!check.found.is_empty() && !check.found.contains('\n'));
    }
    let mut names: Vec<_> = all.iter().map(|check| check.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
}

#[test]
fn each_lack_has_its_line() {
    type Take = fn(&mut Facts);
    let lacks: &[(Take, &str, Grade)] = &[
        (|f| f.kvm.access = Access::Missing, "kvm", Grade::Warning),
        (
            |f| f.kvm.access = Access::Denied,
            "snapshot",
            Grade::Warning,
        ),
        (
            |f| f.kvm.settings = vec!["ept=N".into()],
            "kvm",
            Grade::Warning,
        ),
        (|f| f.kvm.nested_state = false, "snapshot", Grade::Warning),
        (
            |f| f.cloud_hypervisor = Program::Missing,
            "cloud-hypervisor",
            Grade::Warning,
        ),
        (|f| f.nft = Program::Missing, "nft", Grade::Failure),
        (|f| f.pasta = Program::Missing, "pasta", Grade::Warning),
        (
            |f| f.virtiofsd = Program::Missing,
            "virtiofsd",
            Grade::Warning,
        ),
        (|f| f.flavor = Some(Flavor::C), "virtiofsd", Grade::Warning),
        (
            |f| f.host.open_files.soft = Some(256),
            "open-files",
            Grade::Warning,
        ),
        (|f| f.memory = 1 << 30, "memory", Grade::Warning),
        (|f| f.state.room = 1 << 30, "disk", Grade::Warning),
        (|f| f.state.writable = false, "disk", Grade::Failure),
    ];
    for (take, name, grade) in lacks {
        let mut it = facts();
        take(&mut it);
        let check = line(&it, name);
        assert_eq!(check.grade, *grade, "{check:?}");
        assert!(!check.remedies.is_empty(), "{check:?}");
    }
}

#[test]
fn qemu_makes_up_for_kvm_and_nothing_for_qemu() {
    let mut it = facts();
    it.qemu = Program::Missing;
    assert_eq!(line(&it, "qemu").grade, Grade::Ok);
    it.kvm.access = Access::Missing;
    assert_eq!(line(&it, "qemu").grade, Grade::Failure);
    assert_eq!(line(&it, "kvm").grade, Grade::Failure);
    // A size that nobody could be asked for is no line.
    assert!(checks(&it).iter().all(|check| check.name != "vm-size"));
}

#[test]
fn a_kvm_that_runs_but_boots_nothing() {
    let mut it = facts();
    it.kvm.modules = vec!["kvm_pvm"];
    it.kvm.probes[2].1 = Outcome::Failed("stopped at int3 (a breakpoint)".into());
    let check = line(&it, "kvm");
    assert_eq!(check.grade, Grade::Warning);
    assert!(
        check
            .found
            .starts_with("usable, but boots no stock kernel: ")
    );
    assert_eq!(line(&it, "snapshot").grade, Grade::Ok);
}

#[test]
fn what_a_program_says_instead_of_its_version() {
    let mut it = facts();
    it.pasta = Program::Silent {
        path: "/usr/bin/pasta".into(),
        error: "exit status: 127".into(),
    };
    let check = line(&it, "pasta");
    assert_eq!(check.grade, Grade::Warning);
    assert!(check.found.contains("127"));
    it.cloud_hypervisor = it.pasta.clone();
    assert_eq!(line(&it, "cloud-hypervisor").grade, Grade::Warning);
}

#[test]
fn a_refusal_keeps_its_remedies() {
    let mut it = facts();
    it.network = Err(Refusal {
        reason: "no TAP".into(),
        remedies: vec!["modprobe tun".into(), "chmod".into()],
    });
    let check = line(&it, "network");
    assert_eq!((check.grade, check.remedies.len()), (Grade::Failure, 2));
    it.root = true;
    assert_eq!(line(&it, "other-users").grade, Grade::Ok);
    it.obstacles = vec!["AppArmor".into()];
    let check = line(&it, "other-users");
    assert_eq!(
        (check.grade, &check.remedies),
        (Grade::Warning, &it.obstacles)
    );
}

#[test]
fn what_only_some_need_is_never_a_warning() {
    let mut it = facts();
    it.host.userfaultfd = Verdict::No {
        reason: "Operation not permitted".into(),
    };
    it.host.landlock = None;
    it.host.huge_pages.clear();
    it.host.iommu_groups = 0;
    assert!(checks(&it).iter().all(|check| check.grade == Grade::Ok));
    assert!(line(&it, "passthrough").found.contains("no IOMMU"));
    it.host.io_uring = Verdict::No {
        reason: "it is switched off".into(),
    };
    assert_eq!(line(&it, "io-uring").grade, Grade::Warning);
}
