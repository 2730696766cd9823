//! Provider `local`: machines on this host, one supervisor a cluster.
//!
//! ```text
//! provider ──► state, lock            the cluster's directory
//!    │    ──► preflight, host, kvm    what this host can do
//!    │    ──► image, disk, seed       what machines are made from; vmlinux: which kernels boot
//!    └──────► supervisor ──► network  one process a cluster, inside its namespace
//!                        └─► vmm      the programs that run machines
//! ```
//!
//! What a single VM on this host needs as well (`crate::vm`) is visible beyond this folder.

pub(crate) mod daemon;
pub(crate) mod disk;
mod host;
pub(crate) mod image;
mod kvm;
pub(crate) mod life;
pub(crate) mod lock;
mod machine;
pub(crate) mod network;
mod preflight;
pub(crate) mod process;
mod provider;
mod report;
pub(crate) mod seed;
pub(crate) mod socket;
pub(crate) mod state;
mod supervisor;
mod sys;
mod vmlinux;
mod vmm;

pub(crate) use host::{disk_available, find_nft, memory_available, namespaces, need_nft, probe};
pub(crate) use kvm::{look as look_at_kvm, refusal as kvm_refusal, remedy as kvm_remedy};
pub(crate) use machine::DiskFormat;
pub(crate) use network::{find_pasta, obstacles as namespace_obstacles};
pub(crate) use process::printable;
pub(crate) use provider::Local;
pub(crate) use report::Report;
pub(crate) use state::write_json;
pub(crate) use supervisor::run as supervise;
pub(crate) use vmm::{find_cloud_hypervisor, find_qemu, need_cloud_hypervisor};
