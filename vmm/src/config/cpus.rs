//! vCPUs: counts, topology, pinning.

use serde::{Deserialize, Serialize};

use crate::serde_skip::is_false;

/// How many vCPUs and how they look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpusConfig {
    /// vCPUs present at boot, at least 1. Up to 254 before v48, more later.
    pub boot_vcpus: u32,
    /// The most that `vm.resize` may reach, at least `boot_vcpus`.
    pub max_vcpus: u32,
    /// Threads, cores, dies, packages; flat when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<CpuTopology>,
    /// Hyper-V enlightenments, for Windows guests.
    #[serde(skip_serializing_if = "is_false")]
    pub kvm_hyperv: bool,
    /// The most physical address bits the guest may see; 46 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_phys_bits: Option<u8>,
    /// Nested virtualisation in the guest (v50); on when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested: Option<bool>,
    /// Host CPUs for each vCPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub affinity: Vec<CpuAffinity>,
    /// CPU features that are off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<CpuFeatures>,
    /// Core scheduling cookies (v52); one for the whole VM when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_scheduling: Option<CoreScheduling>,
    /// A CPU profile by name (v53), `Host` when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

impl Default for CpusConfig {
    fn default() -> Self {
        Self::fixed(1)
    }
}

impl CpusConfig {
    /// `count` vCPUs at boot and never more.
    #[must_use]
    pub fn fixed(count: u32) -> Self {
        Self {
            boot_vcpus: count,
            max_vcpus: count,
            topology: None,
            kvm_hyperv: false,
            max_phys_bits: None,
            nested: None,
            affinity: Vec::new(),
            features: None,
            core_scheduling: None,
            profile: None,
        }
    }
}

/// The host CPUs on which one vCPU may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuAffinity {
    /// The vCPU, from 0.
    pub vcpu: u32,
    /// Host CPU numbers.
    pub host_cpus: Vec<usize>,
}

/// Features that have to be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuFeatures {
    /// Intel AMX.
    pub amx: bool,
}

/// How vCPUs are grouped. The product of all four must be `max_vcpus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTopology {
    /// Hardware threads of a core. The kernel of Cloud Hypervisor takes 1 or 2.
    pub threads_per_core: u16,
    /// Cores of a die.
    pub cores_per_die: u16,
    /// Dies of a package.
    pub dies_per_package: u16,
    /// Sockets.
    pub packages: u16,
}

/// Which vCPUs may share a physical core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CoreScheduling {
    /// vCPUs of this VM with each other.
    Vm,
    /// None with any other.
    Vcpu,
    /// No cookie is set.
    Off,
    /// A mode this crate does not know; answers only.
    #[serde(other)]
    Unknown,
}
