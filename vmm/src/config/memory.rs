//! Guest memory: one size, or zones.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::serde_skip::is_false;

/// Guest memory. With `zones`, `size` is 0 and the zones add up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryConfig {
    /// Bytes at boot.
    pub size: u64,
    /// Bytes that `vm.resize` may add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotplug_size: Option<u64>,
    /// Bytes of `hotplug_size` already plugged at boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotplugged_size: Option<u64>,
    /// Let the host merge equal pages (KSM).
    #[serde(skip_serializing_if = "is_false")]
    pub mergeable: bool,
    /// How memory is hot-plugged; by ACPI when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotplug_method: Option<HotplugMethod>,
    /// Back memory by a shared mapping; every vhost-user device needs this or `hugepages`.
    #[serde(skip_serializing_if = "is_false")]
    pub shared: bool,
    /// Back memory by huge pages.
    #[serde(skip_serializing_if = "is_false")]
    pub hugepages: bool,
    /// Bytes of a huge page; the host's default when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugepage_size: Option<u64>,
    /// Touch every page at boot, which takes about a third of a second a GiB.
    #[serde(skip_serializing_if = "is_false")]
    pub prefault: bool,
    /// Refuse to boot when the host can't promise the memory (v53).
    #[serde(skip_serializing_if = "is_false")]
    pub reserve: bool,
    /// Transparent huge pages; on when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thp: Option<bool>,
    /// Zones instead of one size.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<MemoryZoneConfig>,
}

impl MemoryConfig {
    /// `size` bytes of private memory.
    #[must_use]
    pub fn of(size: u64) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// Whether a vhost-user back end could see this memory.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        if self.zones.is_empty() {
            self.shared || self.hugepages
        } else {
            self.zones.iter().all(|zone| zone.shared || zone.hugepages)
        }
    }
}

/// One zone of memory, with its own backing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryZoneConfig {
    /// The zone's name, unique.
    pub id: String,
    /// Bytes at boot.
    pub size: u64,
    /// A file or device that backs the zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Let the host merge equal pages (v52).
    #[serde(skip_serializing_if = "is_false")]
    pub mergeable: bool,
    /// A shared mapping.
    #[serde(skip_serializing_if = "is_false")]
    pub shared: bool,
    /// Huge pages.
    #[serde(skip_serializing_if = "is_false")]
    pub hugepages: bool,
    /// Bytes of a huge page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugepage_size: Option<u64>,
    /// The host's NUMA node to take memory from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_numa_node: Option<u32>,
    /// Bytes that `vm.resize-zone` may add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotplug_size: Option<u64>,
    /// Bytes of `hotplug_size` already plugged at boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotplugged_size: Option<u64>,
    /// Touch every page at boot.
    #[serde(skip_serializing_if = "is_false")]
    pub prefault: bool,
    /// Refuse to boot when the host can't promise the memory (v53).
    #[serde(skip_serializing_if = "is_false")]
    pub reserve: bool,
}

/// How memory is hot-plugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum HotplugMethod {
    /// Whole DIMMs, added only.
    Acpi,
    /// virtio-mem, both ways.
    VirtioMem,
    /// A method this crate does not know; answers only.
    #[serde(other)]
    Unknown,
}
