//! Drives [Cloud Hypervisor](https://www.cloudhypervisor.org) v42 … v53: types, client, process, VM.
//!
//! Knows nothing of images or Kubernetes. Prints nothing, ends no process but those it started or was
//! told to attach to, and reads no environment variable.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use knest_vmm::config::{ConsoleConfig, CpusConfig, MemoryConfig, Payload, SerialConfig, VmConfig};
//! use knest_vmm::device::{DiskConfig, NetConfig};
//! use knest_vmm::hypervisor::Launch;
//! use knest_vmm::shutdown::Ladder;
//! use knest_vmm::vm::Vm;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), knest_vmm::Error> {
//! let config = VmConfig {
//!     cpus: Some(CpusConfig::fixed(2)),
//!     memory: Some(MemoryConfig::of(1 << 30)),
//!     payload: Some(Payload::kernel("vmlinux", "console=ttyS0 root=/dev/vda rw")),
//!     disks: vec![DiskConfig::qcow2("root.qcow2"), DiskConfig::raw("seed.img").read_only()],
//!     net: vec![NetConfig::tap("tap0", "02:00:00:00:00:01")],
//!     serial: Some(SerialConfig::Tty), // onto serial.log
//!     console: Some(ConsoleConfig::off()),
//!     ..VmConfig::default()
//! };
//! let dir = Path::new("/run/knest/demo"); // exists, mode 0700
//! let vm = Vm::start(Launch::new("/usr/bin/cloud-hypervisor", dir), config).await?;
//!
//! // Enough to find it again from another process: Vm::attach(Files::in_dir(dir), identity).
//! let identity = vm.identity();
//!
//! let outcome = vm.stop(&Ladder::default()).await?;
//! println!("{identity}: {} by {:?}", outcome.exit, outcome.by);
//! # Ok(())
//! # }
//! ```
//!
//! Three rings; an inner one never sees an outer one:
//!
//! ```text
//! pure      endpoint config device migration info request capability validate error
//! effects   client exchange fdpass process virtiofsd event log wait sys preflight
//! together  hypervisor shutdown vm console                         testing
//! ```

mod exchange;
mod fdpass;
mod serde_skip;
mod sys;

pub mod capability;
pub mod client;
pub mod config;
pub mod console;
pub mod device;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod hypervisor;
pub mod info;
pub mod log;
pub mod migration;
pub mod preflight;
pub mod process;
pub mod request;
pub mod shutdown;
#[cfg(feature = "testing")]
pub mod testing;
pub mod validate;
pub mod virtiofsd;
pub mod vm;
pub mod wait;

pub use error::{Error, Result};

/// Compiles the program of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/vmm.md")]
struct Guide;
