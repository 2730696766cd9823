//! What every PCI device has: a name and a place.

use serde::{Deserialize, Serialize};

use crate::serde_skip::is_false;

/// A device's name and its place on the PCI bus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PciSlot {
    /// The device's name; Cloud Hypervisor makes one up (`_disk0`) when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Behind the virtual IOMMU.
    #[serde(skip_serializing_if = "is_false")]
    pub iommu: bool,
    /// The PCI segment; 0 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_segment: Option<u16>,
    /// The slot, 1 … 31 (v52); the next free one when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_device_id: Option<u8>,
}

impl PciSlot {
    /// A device called `id`, anywhere on the bus.
    #[must_use]
    pub fn named(id: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            ..Self::default()
        }
    }
}
