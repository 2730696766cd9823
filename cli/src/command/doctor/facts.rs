//! What was found on this host, before anybody judges it.

use knest_vmm::preflight::{Host, Report};
use knest_vmm::virtiofsd::Flavor;
use std::path::PathBuf;

/// A program that knest would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Missing,
    /// It is there and does not tell its version.
    Silent {
        path: PathBuf,
        error: String,
    },
    Found {
        path: PathBuf,
        version: String,
    },
}

impl Program {
    /// Whether it is there, working or not.
    pub(super) fn is_installed(&self) -> bool {
        *self != Self::Missing
    }

    /// Whether it is there and answers.
    pub(super) fn works(&self) -> bool {
        matches!(self, Self::Found { .. })
    }
}

/// A failure in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) remedies: Vec<String>,
}

/// A place for files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) writable: bool,
    /// Bytes that this user can still write there.
    pub(super) room: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kvm: Report,
    pub(super) host: Host,
    pub(super) cloud_hypervisor: Program,
    pub(super) qemu: Program,
    pub(super) nft: Program,
    pub(super) pasta: Program,
    pub(super) virtiofsd: Program,
    /// Which virtiofsd, where one answers.
    pub(super) flavor: Option<Flavor>,
    /// What a trial of namespaces, a bridge, a TAP and nftables came to.
    pub(super) network: Result<(), Refusal>,
    /// Whether this user is the super-user.
    pub(super) root: bool,
    /// What keeps others than the super-user from what knest needs, as remedies.
    pub(super) obstacles: Vec<String>,
    /// Bytes that programs can still get.
    pub(super) memory: u64,
    pub(super) state: Place,
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use knest_vmm::preflight::{Access, HugePages, Limit, Limits, Outcome, Probe, Verdict};

    fn program(path: &str, version: &str) -> Program {
        Program::Found {
            path: path.into(),
            version: version.into(),
        }
    }

    /// A host where nothing is missing.
    pub(crate) fn facts() -> Facts {
        let many = Limit {
            soft: Some(1 << 20),
            hard: None,
        };
        Facts {
            kvm: Report {
                device: "/dev/kvm".into(),
                access: Access::Granted,
                api_version: Some(12),
                missing_capabilities: vec![],
                limits: Limits {
                    recommended_vcpus: 8,
                    max_vcpus: 1024,
                    memory_slots: 32764,
                },
                nested_state: true,
                modules: vec!["kvm_amd"],
                settings: vec!["nested=1".into(), "npt=Y".into()],
                probes: Probe::ALL.map(|probe| (probe, Outcome::Passed)).to_vec(),
            },
            host: Host {
                io_uring: Verdict::Yes,
                userfaultfd: Verdict::Yes,
                landlock: Some(6),
                vfio: Access::Granted,
                iommu_groups: 12,
                huge_pages: vec![HugePages {
                    size: 2 << 20,
                    total: 512,
                    free: 500,
                }],
                open_files: many,
                locked_memory: many,
            },
            cloud_hypervisor: program("/usr/bin/cloud-hypervisor", "v53.0"),
            qemu: program("/usr/bin/qemu-system-x86_64", "10.1"),
            nft: program("/usr/sbin/nft", "1.1.1"),
            pasta: program("/usr/bin/pasta", "2025"),
            virtiofsd: program("/usr/libexec/virtiofsd", "1.14.0"),
            flavor: Some(Flavor::Rust),
            network: Ok(()),
            root: false,
            obstacles: vec![],
            memory: 16 << 30,
            state: Place {
                path: "/home/me/.local/state/knest".into(),
                writable: true,
                room: 100 << 30,
            },
        }
    }
}
