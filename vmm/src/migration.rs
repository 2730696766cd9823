//! Bodies of snapshot, restore, core dump and migration.
//!
//! They work only where KVM can save all of a VM's state: see
//! [`crate::preflight::Report::can_snapshot`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::serde_skip::is_false;

/// Body of `vm.restore`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestoreConfig {
    /// `file:///dir`, a directory that `vm.snapshot` filled.
    pub source_url: String,
    /// Touch every page; not together with `OnDemand`.
    #[serde(skip_serializing_if = "is_false")]
    pub prefault: bool,
    /// When memory is read (v52); all at once when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_restore_mode: Option<MemoryRestoreMode>,
    /// Run the VM afterwards (v52); otherwise it stays paused.
    #[serde(skip_serializing_if = "is_false")]
    pub resume: bool,
    /// Descriptors sent beside the request, in this order: how many belong to which interface.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net_fds: Vec<RestoredNet>,
}

/// How many of the descriptors sent with `vm.restore` belong to one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestoredNet {
    /// The interface's id.
    pub id: String,
    /// Descriptors, one a queue pair.
    pub num_fds: usize,
}

/// When a restored VM's memory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MemoryRestoreMode {
    /// Before the call returns.
    Copy,
    /// When a page is touched; needs userfaultfd.
    OnDemand,
}

/// Body of `vm.receive-migration`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReceiveMigration {
    /// Where to listen.
    pub receiver_url: MigrationUrl,
    /// `server-cert.pem`, `server-key.pem` and `ca-cert.pem` (v53, TCP only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_dir: Option<PathBuf>,
    /// How memory travels (v53).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mode: Option<MigrationMode>,
}

/// Body of `vm.send-migration`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SendMigration {
    /// Where the receiver listens.
    pub destination_url: MigrationUrl,
    /// Pass memory as descriptors: same host, Unix socket, shared memory or huge pages.
    #[serde(skip_serializing_if = "is_false")]
    pub local: bool,
    /// Milliseconds the guest may stand still (v52); 300 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime_ms: Option<u64>,
    /// Seconds the whole may take (v52); 3600 when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// What happens then (v52).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_strategy: Option<TimeoutStrategy>,
    /// Parallel TCP connections, 1 … 128 (v52).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// `ca-cert.pem`, `client-cert.pem` and `client-key.pem` (v53, TCP only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_dir: Option<PathBuf>,
    /// How memory travels (v53).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mode: Option<MigrationMode>,
}

/// The meeting point of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigrationUrl {
    /// A Unix socket: `unix:/path`.
    Unix(PathBuf),
    /// A host and port (v43): `tcp:host:port`.
    Tcp(String),
}

impl Default for MigrationUrl {
    fn default() -> Self {
        Self::Unix(PathBuf::new())
    }
}

impl Serialize for MigrationUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unix(path) => serializer.collect_str(&format_args!("unix:{}", path.display())),
            Self::Tcp(address) => serializer.collect_str(&format_args!("tcp:{address}")),
        }
    }
}

impl<'de> Deserialize<'de> for MigrationUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once(':') {
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => Ok(Self::Tcp(address.into())),
            _ => Err(serde::de::Error::custom(
                "expected unix:PATH or tcp:HOST:PORT",
            )),
        }
    }
}

/// How a migration moves memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MigrationMode {
    /// All of it before the VM runs at its destination.
    Precopy,
    /// The VM runs at its destination first and faults pages in.
    Postcopy,
}

/// What a migration that takes too long does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TimeoutStrategy {
    /// Give up; the VM stays where it is.
    Cancel,
    /// Go on, however long the guest stands still.
    Ignore,
}
