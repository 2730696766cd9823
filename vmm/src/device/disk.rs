//! virtio-blk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{PciSlot, RateLimiterConfig};
use crate::serde_skip::is_false;

/// A disk: an image file or block device, or a vhost-user back end.
///
/// Cloud Hypervisor ≥ v46 takes a write lock on the image: a second VM with the same writable image
/// fails at boot with [`crate::error::Kind::Locked`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskConfig {
    /// Name and place.
    #[serde(flatten)]
    pub pci: PciSlot,
    /// The image or block device; unset only with `vhost_user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The guest can't write.
    #[serde(skip_serializing_if = "is_false")]
    pub readonly: bool,
    /// `O_DIRECT`.
    #[serde(skip_serializing_if = "is_false")]
    pub direct: bool,
    /// Queues, at most the VM's vCPUs; 1 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_queues: Option<usize>,
    /// Entries of a queue; 128 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_size: Option<u16>,
    /// A vhost-user-blk back end serves the disk.
    #[serde(skip_serializing_if = "is_false")]
    pub vhost_user: bool,
    /// Its socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhost_socket: Option<PathBuf>,
    /// Limits of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter_config: Option<RateLimiterConfig>,
    /// Limits shared by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit_group: Option<String>,
    /// Don't use `io_uring`.
    #[serde(skip_serializing_if = "is_false")]
    pub disable_io_uring: bool,
    /// Don't use Linux AIO.
    #[serde(skip_serializing_if = "is_false")]
    pub disable_aio: bool,
    /// The serial number the guest sees (`/dev/disk/by-id/virtio-…`), up to 20 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Host CPUs for each queue's thread.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queue_affinity: Vec<VirtQueueAffinity>,
    /// Follow a qcow2 image's backing file (v51, off there; older versions always follow).
    #[serde(skip_serializing_if = "is_false")]
    pub backing_files: bool,
    /// Punch holes on discard (v51); on when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse: Option<bool>,
    /// The image's format (v51). Always say it: guessing lets a guest rewrite its own header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_type: Option<ImageType>,
    /// What the image lock covers (v52).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_granularity: Option<LockGranularity>,
}

impl DiskConfig {
    /// A raw image or block device.
    #[must_use]
    pub fn raw(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            image_type: Some(ImageType::Raw),
            ..Self::default()
        }
    }

    /// A qcow2 image, with the backing files its header names.
    #[must_use]
    pub fn qcow2(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            image_type: Some(ImageType::Qcow2),
            backing_files: true,
            ..Self::default()
        }
    }

    /// The same disk, without writing.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.readonly = true;
        self
    }
}

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ImageType {
    /// Plain bytes.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// A fixed VHD.
    FixedVhd,
    /// VHDX.
    Vhdx,
    /// Let Cloud Hypervisor guess (deprecated there), or a format this crate does not know.
    #[serde(other)]
    Unknown,
}

/// What an image lock covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LockGranularity {
    /// A range of bytes, which works on more network file systems.
    ByteRange,
    /// The whole file.
    Full,
    /// Something this crate does not know; answers only.
    #[serde(other)]
    Unknown,
}

/// Host CPUs for one queue's thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtQueueAffinity {
    /// The queue, from 0.
    pub queue_index: u16,
    /// Host CPU numbers.
    pub host_cpus: Vec<usize>,
}
