//! Devices passed through: VFIO, vfio-user, vDPA.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::PciSlot;

/// A VFIO device, by its path or (v53) by a descriptor sent beside the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// `/sys/bus/pci/devices/…`. Unset only when a descriptor is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Cloud Hypervisor's own number of the descriptor; answers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<i32>,
    /// NVIDIA GPUDirect clique, 0 … 15.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x_nv_gpudirect_clique: Option<u8>,
    /// BARs that are not mapped into the guest (v52).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub x_exclude_mmap_bars: Vec<u64>,
}

/// A vfio-user device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserDeviceConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// The device's socket.
    pub socket: PathBuf,
}

/// A vDPA device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VdpaConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// `/dev/vhost-vdpa-N`.
    pub path: PathBuf,
    /// Queues; 1 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_queues: Option<usize>,
}
