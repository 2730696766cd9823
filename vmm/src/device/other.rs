//! Small virtio devices: rng, rtc, balloon, fs, generic vhost-user, pmem, vsock, ivshmem.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::PciSlot;
use crate::serde_skip::is_false;

/// virtio-rng.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RngConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// Where entropy comes from.
    pub src: PathBuf,
}

impl Default for RngConfig {
    fn default() -> Self {
        Self {
            pci: PciSlot::default(),
            src: "/dev/urandom".into(),
        }
    }
}

/// virtio-rtc (v53).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RtcConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
}

/// virtio-balloon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalloonConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// Bytes taken from the guest.
    pub size: u64,
    /// Give memory back when the guest runs out.
    #[serde(skip_serializing_if = "is_false")]
    pub deflate_on_oom: bool,
    /// Let the guest report free pages.
    #[serde(skip_serializing_if = "is_false")]
    pub free_page_reporting: bool,
}

/// virtio-fs behind a virtiofsd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FsConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// The name by which the guest mounts it, up to 36 bytes.
    pub tag: String,
    /// virtiofsd's socket.
    pub socket: PathBuf,
    /// Request queues; 1 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_queues: Option<usize>,
    /// Entries of a queue; 1024 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_size: Option<u16>,
}

/// Any other vhost-user device (v52).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenericVhostUserConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// The back end's socket.
    pub socket: PathBuf,
    /// Entries of each queue.
    pub queue_sizes: Vec<u16>,
    /// The virtio device type, a number of the virtio specification.
    pub device_type: u32,
}

/// virtio-pmem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PmemConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// The backing file.
    pub file: PathBuf,
    /// Bytes, a multiple of 2 MiB; the file's when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Writes stay in memory.
    #[serde(skip_serializing_if = "is_false")]
    pub discard_writes: bool,
}

/// virtio-vsock over a Unix socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VsockConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// The guest's context id, at least 3.
    pub cid: u32,
    /// The host's end, shorter than 108 bytes. A killed Cloud Hypervisor leaves it behind.
    pub socket: PathBuf,
}

/// Memory shared with other VMs (v48, builds with the feature `ivshmem`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IvshmemConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// The file behind it, at least as large.
    pub path: PathBuf,
    /// Bytes, a power of two.
    pub size: usize,
}
