//! Firmware tables, NUMA, PCI segments, TPM, Landlock.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::serde_skip::is_false;

/// SMBIOS strings, PCI segments, IOMMU and confidential computing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlatformConfig {
    /// PCI segments, 1 … 96; 1 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_pci_segments: Option<u16>,
    /// Segments behind the virtual IOMMU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub iommu_segments: Vec<u16>,
    /// Address bits of the virtual IOMMU (v44).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iommu_address_width_bits: Option<u8>,
    /// SMBIOS serial number. Sent under its old name, which every version takes.
    #[serde(rename = "serial_number", alias = "system_serial_number")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// SMBIOS UUID. Sent under its old name; both names together are an error.
    #[serde(rename = "uuid", alias = "system_uuid")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// SMBIOS OEM strings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub oem_strings: Vec<String>,
    /// SMBIOS manufacturer (v53).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_manufacturer: Option<String>,
    /// SMBIOS product name (v53).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_product_name: Option<String>,
    /// SMBIOS version (v53).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_version: Option<String>,
    /// SMBIOS family (v53).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_family: Option<String>,
    /// SMBIOS SKU (v53).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_sku_number: Option<String>,
    /// SMBIOS asset tag of the chassis (v53).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chassis_asset_tag: Option<String>,
    /// Intel TDX. A build without the feature would boot an ordinary VM without a word.
    #[serde(skip_serializing_if = "is_false")]
    pub tdx: bool,
    /// AMD SEV-SNP (v45). As for `tdx`.
    #[serde(skip_serializing_if = "is_false")]
    pub sev_snp: bool,
    /// VFIO through iommufd (v52).
    #[serde(skip_serializing_if = "is_false")]
    pub iommufd: bool,
    /// DMA between VFIO devices (v52); on when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vfio_p2p_dma: Option<bool>,
}

/// One PCI segment's share of the MMIO apertures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PciSegmentConfig {
    /// The segment, from 0.
    pub pci_segment: u16,
    /// Weight in the 32-bit aperture; 1 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mmio32_aperture_weight: Option<u32>,
    /// Weight in the 64-bit aperture; 1 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mmio64_aperture_weight: Option<u32>,
}

/// One NUMA node of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NumaConfig {
    /// The node, from 0.
    pub guest_numa_id: u32,
    /// Its vCPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u32>,
    /// Distances to other nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distances: Vec<NumaDistance>,
    /// Its memory zones, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory_zones: Vec<String>,
    /// Its PCI segments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pci_segments: Vec<u16>,
    /// A VFIO device that forms the node (v51).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
}

/// The distance to another NUMA node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NumaDistance {
    /// The other node.
    pub destination: u32,
    /// 10 is local; up to 255.
    pub distance: u8,
}

/// A TPM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TpmConfig {
    /// swtpm's control socket.
    pub socket: PathBuf,
}

/// A path that Landlock shall allow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LandlockConfig {
    /// A file or directory.
    pub path: PathBuf,
    /// `r`, `w` or `rw`.
    pub access: String,
}
