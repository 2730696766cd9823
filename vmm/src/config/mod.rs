//! The body of `vm.create` and its parts, for Cloud Hypervisor v42 … v53.
//!
//! One set of types serves every version: what a request leaves out is left to Cloud Hypervisor's
//! default, what an answer leaves out is this crate's `Default`. Cloud Hypervisor drops fields it
//! does not know without a word; [`crate::capability`] tells beforehand. Nothing here knows of
//! sockets or processes. Sizes are bytes.
//!
//! Where the published OpenAPI file and the code of Cloud Hypervisor disagree, the code wins:
//! `generic_vhost_user` has an underscore, `iommu_address_width_bits` its suffix. Two fields of the code
//! have no type here: `pvmemcontrol`, because no answer tells whether a build understands it, and `gdb`,
//! which works only together with arguments on the command line.

mod console;
mod cpus;
mod machine;
mod memory;
mod payload;
mod platform;

pub use console::{ConsoleConfig, ConsoleMode, DebugConsoleConfig, DebugConsoleMode, SerialConfig};
pub use cpus::{CoreScheduling, CpuAffinity, CpuFeatures, CpuTopology, CpusConfig};
pub use machine::VmConfig;
pub use memory::{HotplugMethod, MemoryConfig, MemoryZoneConfig};
pub use payload::{FwCfgConfig, FwCfgItem, Payload};
pub use platform::{
    LandlockConfig, NumaConfig, NumaDistance, PciSegmentConfig, PlatformConfig, TpmConfig,
};
