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
        /// What the guest reads through fw_cfg (v48, builds with the feature `fw_cfg`).
        fw_cfg: Option<FwCfgConfig>,
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
            fw_cfg: None,
        }
    }
}

/// What a guest can read through the fw_cfg device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FwCfgConfig {
    /// The memory map.
    pub e820: bool,
    /// The kernel.
    pub kernel: bool,
    /// Its command line, which must be there.
    pub cmdline: bool,
    /// Its initial RAM file system, which must be there.
    pub initramfs: bool,
    /// The ACPI tables.
    pub acpi_tables: bool,
    /// Further entries.
    #[serde(with = "item_list", skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<FwCfgItem>,
}

impl Default for FwCfgConfig {
    /// Everything, as Cloud Hypervisor does with what is unset.
    fn default() -> Self {
        Self {
            e820: true,
            kernel: true,
            cmdline: true,
            initramfs: true,
            acpi_tables: true,
            items: Vec::new(),
        }
    }
}

/// One entry of fw_cfg: the content of a file, or a text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FwCfgItem {
    /// Its name, such as `opt/org.example/key`.
    pub name: String,
    /// A file with its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Its content (v52).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub string: Option<String>,
}

/// The API wraps the list once more: `{ "item_list": [...] }`.
mod item_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::FwCfgItem;

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Read {
        item_list: Vec<FwCfgItem>,
    }

    #[derive(Serialize)]
    struct Written<'a> {
        item_list: &'a [FwCfgItem],
    }

    pub(super) fn serialize<S: Serializer>(
        item_list: &[FwCfgItem],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Written { item_list }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<FwCfgItem>, D::Error> {
        Read::deserialize(deserializer).map(|read| read.item_list)
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
    fw_cfg_config: Option<FwCfgConfig>,
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
                fw_cfg_config,
                ..
            } => Self::Kernel {
                kernel,
                cmdline,
                initramfs,
                fw_cfg: fw_cfg_config,
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
                fw_cfg,
            } => Self {
                kernel: Some(kernel),
                cmdline,
                initramfs,
                fw_cfg_config: fw_cfg,
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
