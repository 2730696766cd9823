//! Devices: the entries of `vm.create` and the bodies of the `vm.add-*` calls.
//!
//! A device's `id` names it in later calls (`vm.remove-device`, `vm.resize-disk`, counters) and must
//! be unique in the VM. Cloud Hypervisor gives ids that begin with `_` itself, so don't.

mod disk;
mod net;
mod other;
mod rate;
mod slot;
mod vfio;

pub use disk::{DiskConfig, ImageType, LockGranularity, VirtQueueAffinity};
pub use net::{NetBackend, NetConfig, VhostMode};
pub use other::{
    BalloonConfig, FsConfig, GenericVhostUserConfig, IvshmemConfig, PmemConfig, RngConfig,
    RtcConfig, VsockConfig,
};
pub use rate::{RateLimitGroupConfig, RateLimiterConfig, TokenBucket};
pub use slot::PciSlot;
pub use vfio::{DeviceConfig, UserDeviceConfig, VdpaConfig};
