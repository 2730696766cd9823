//! What a VM boots: exactly one of a kernel, a firmware or an IGVM file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is booted. Cloud Hypervisor refuses a kernel and a firmware together, so it is an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
#[non_exhaustive]
pub enum Payload {
    /// A kernel: an ELF `vmlinux` with a PVH entry, or a bzImage.
    Kernel {
        /// The kernel's file.
        kernel: PathBuf,
        /// Its command line.
        cmdline: Option<String>,
        /// Its initial RAM file system.
        initramfs: Option<PathBuf>,
    },
    /// A firmware that finds its own operating system.
    Firmware {
        /// The firmware's file.
        firmware: PathBuf,
    },
    /// An IGVM file (v45, builds with the feature `igvm`).
    Igvm {
        /// The IGVM file.
        igvm: PathBuf,
        /// 32 bytes in hexadecimal for the attestation report (`sev_snp`).
        host_data: Option<String>,
    },
    /// None of these; answers only.
    Unknown,
}

impl Payload {
    /// A kernel with a command line and no initramfs.
    #[must_use]
    pub fn kernel(kernel: impl Into<PathBuf>, cmdline: impl Into<String>) -> Self {
        Self::Kernel {
            kernel: kernel.into(),
            cmdline: Some(cmdline.into()),
            initramfs: None,
        }
    }
}

/// The flat form of the API.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(skip_serializing_if = "Option::is_none")]
    firmware: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initramfs: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    igvm: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_data: Option<String>,
}

impl From<Wire> for Payload {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire {
                igvm: Some(igvm),
                host_data,
                ..
            } => Self::Igvm { igvm, host_data },
            Wire {
                kernel: Some(kernel),
                cmdline,
                initramfs,
                ..
            } => Self::Kernel {
                kernel,
                cmdline,
                initramfs,
            },
            Wire {
                firmware: Some(firmware),
                ..
            } => Self::Firmware { firmware },
            _ => Self::Unknown,
        }
    }
}

impl From<Payload> for Wire {
    fn from(payload: Payload) -> Self {
        let none = Self::default();
        match payload {
            Payload::Kernel {
                kernel,
                cmdline,
                initramfs,
            } => Self {
                kernel: Some(kernel),
                cmdline,
                initramfs,
                ..none
            },
            Payload::Firmware { firmware } => Self {
                firmware: Some(firmware),
                ..none
            },
            Payload::Igvm { igvm, host_data } => Self {
                igvm: Some(igvm),
                host_data,
                ..none
            },
            Payload::Unknown => none,
        }
    }
}
