//! Provider `local`: machines on this host, one supervisor a cluster.
//!
//! ```text
//! provider ──► state, lock            the cluster's directory
//!    │    ──► preflight, host, kvm    what this host can do
//!    │    ──► image, disk, seed       what machines are made from
//!    └──────► supervisor ──► network  one process a cluster, inside its namespace
//!                        └─► vmm      the programs that run machines
//! ```

mod disk;
mod host;
mod image;
mod kvm;
mod lock;
mod machine;
mod network;
mod preflight;
mod process;
mod provider;
mod seed;
mod socket;
mod state;
mod supervisor;
mod sys;
mod vmm;
mod work;

pub(crate) use host::{disk_available, find_nft, memory_available, namespaces, probe};
pub(crate) use kvm::{look as look_at_kvm, remedy as kvm_remedy};
pub(crate) use network::find_pasta;
pub(crate) use provider::Local;
pub(crate) use supervisor::run as supervise;
pub(crate) use vmm::{find_cloud_hypervisor, find_qemu};
