//! `VmConfig`: the whole machine, the body of `PUT /api/v1/vm.create`.

use serde::{Deserialize, Serialize};

use super::{
    ConsoleConfig, CpusConfig, DebugConsoleConfig, LandlockConfig, MemoryConfig, NumaConfig,
    Payload, PciSegmentConfig, PlatformConfig, SerialConfig, TpmConfig,
};
use crate::device::{
    BalloonConfig, DeviceConfig, DiskConfig, FsConfig, GenericVhostUserConfig, IvshmemConfig,
    NetConfig, PmemConfig, RateLimitGroupConfig, RngConfig, RtcConfig, UserDeviceConfig,
    VdpaConfig, VsockConfig,
};
use crate::serde_skip::is_false;

/// A virtual machine as Cloud Hypervisor stores it. `vm.create` checks none of it; `vm.boot` does.
///
/// The order of `disks` and `net` is the order in which the guest finds them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmConfig {
    /// vCPUs; one when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpusConfig>,
    /// Memory; 512 MiB when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryConfig>,
    /// What is booted. Answers of a VM without one leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// Rate limits that several disks share by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limit_groups: Vec<RateLimitGroupConfig>,
    /// virtio-blk devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskConfig>,
    /// virtio-net devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net: Vec<NetConfig>,
    /// virtio-rng; Cloud Hypervisor adds one on `/dev/urandom` when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng: Option<RngConfig>,
    /// virtio-balloon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonConfig>,
    /// virtio-fs devices; they need shared memory or huge pages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fs: Vec<FsConfig>,
    /// Other vhost-user devices (v52); they need shared memory or huge pages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_vhost_user: Vec<GenericVhostUserConfig>,
    /// virtio-pmem devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pmem: Vec<PmemConfig>,
    /// The 16550 serial port, ttyS0; nothing is attached when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<SerialConfig>,
    /// virtio-console, hvc0; **on Cloud Hypervisor's own stdout when unset**.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<ConsoleConfig>,
    /// The debug port; off when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_console: Option<DebugConsoleConfig>,
    /// VFIO devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceConfig>,
    /// vfio-user devices; they need shared memory or huge pages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user_devices: Vec<UserDeviceConfig>,
    /// vDPA devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vdpa: Vec<VdpaConfig>,
    /// virtio-vsock, at most one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// Guest NUMA nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub numa: Vec<NumaConfig>,
    /// A virtual IOMMU.
    #[serde(skip_serializing_if = "is_false")]
    pub iommu: bool,
    /// virtio-watchdog.
    #[serde(skip_serializing_if = "is_false")]
    pub watchdog: bool,
    /// virtio-rtc (v53).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtc: Option<RtcConfig>,
    /// The pvpanic device: a guest that panics says so in the event stream.
    #[serde(skip_serializing_if = "is_false")]
    pub pvpanic: bool,
    /// Shares of the MMIO apertures for each PCI segment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pci_segments: Vec<PciSegmentConfig>,
    /// SMBIOS strings, PCI segments, confidential computing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformConfig>,
    /// A TPM behind a swtpm socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmConfig>,
    /// Confine Cloud Hypervisor with Landlock to what its configuration names.
    #[serde(skip_serializing_if = "is_false")]
    pub landlock_enable: bool,
    /// Further paths that Landlock shall allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub landlock_rules: Vec<LandlockConfig>,
    /// Memory shared with other VMs (v48, builds with the feature `ivshmem`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ivshmem: Option<IvshmemConfig>,
}
