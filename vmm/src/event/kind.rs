//! Typed events.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Time since Cloud Hypervisor started.
    pub at: Duration,
    /// What happened.
    pub kind: EventKind,
}

/// What happened. `…ing` only says that it was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each variant is Cloud Hypervisor's event of the same name"
)]
pub enum EventKind {
    VmmStarting,
    VmmShutdown,
    Booting,
    Booted,
    Shutdown,
    Deleted,
    Rebooting,
    Rebooted,
    Pausing,
    Paused,
    Resuming,
    Resumed,
    Snapshotting,
    Snapshotted,
    Restoring,
    Restored,
    Coredumping,
    Resizing,
    Resized,
    DeviceRemoved {
        id: String,
        bdf: String,
    },
    MigrationStarted,
    MigrationFinished,
    MigrationFailed,
    MigrationMemoryIteration {
        id: u64,
    },
    MigrationReceiveReady,
    MigrationReceiveStarted,
    MigrationReceiveFinished,
    MigrationReceiveFailed,
    PostcopyMigrationCompleted,
    /// A guest driver took a virtio or vDPA device into use.
    DeviceActivated {
        id: String,
    },
    /// A guest driver let go of one.
    DeviceReset {
        id: String,
    },
    /// pvpanic: the guest's kernel gave up. `event` is `panic`, `crash_loaded` or `unknown_event`.
    GuestPanic {
        event: String,
    },
    /// An event this crate does not know.
    Unknown {
        source: String,
        event: String,
        properties: BTreeMap<String, String>,
    },
}

impl EventKind {
    /// Cloud Hypervisor's own name for it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::VmmStarting => "starting",
            // The VM's and the VMM's end have one name in two sources.
            Self::VmmShutdown => "vmm-shutdown",
            Self::Booting => "booting",
            Self::Booted => "booted",
            Self::Shutdown => "shutdown",
            Self::Deleted => "deleted",
            Self::Rebooting => "rebooting",
            Self::Rebooted => "rebooted",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Resumed => "resumed",
            Self::Snapshotting => "snapshotting",
            Self::Snapshotted => "snapshotted",
            Self::Restoring => "restoring",
            Self::Restored => "restored",
            Self::Coredumping => "coredumping",
            Self::Resizing => "resizing",
            Self::Resized => "resized",
            Self::DeviceRemoved { .. } => "device-removed",
            Self::MigrationStarted => "migration-started",
            Self::MigrationFinished => "migration-finished",
            Self::MigrationFailed => "migration-failed",
            Self::MigrationMemoryIteration { .. } => "migration-memory-iteration",
            Self::MigrationReceiveReady => "migration-receive-ready",
            Self::MigrationReceiveStarted => "migration-receive-started",
            Self::MigrationReceiveFinished => "migration-receive-finished",
            Self::MigrationReceiveFailed => "migration-receive-failed",
            Self::PostcopyMigrationCompleted => "postcopy-migration-completed",
            Self::DeviceActivated { .. } => "activated",
            Self::DeviceReset { .. } => "reset",
            Self::GuestPanic { .. } => "panic",
            Self::Unknown { event, .. } => event,
        }
    }

    /// What it says besides its name.
    #[must_use]
    pub fn properties(&self) -> BTreeMap<String, String> {
        let one = |name: &str, value: String| BTreeMap::from([(name.to_owned(), value)]);
        match self {
            Self::DeviceRemoved { id, bdf } => {
                let mut both = one("id", id.clone());
                both.insert("bdf".to_owned(), bdf.clone());
                both
            }
            Self::MigrationMemoryIteration { id } => one("id", id.to_string()),
            Self::DeviceActivated { id } | Self::DeviceReset { id } => one("id", id.clone()),
            Self::GuestPanic { event } => one("event", event.clone()),
            Self::Unknown { properties, .. } => properties.clone(),
            _ => BTreeMap::new(),
        }
    }
}

/// The form in the stream.
#[derive(Deserialize)]
pub(super) struct Wire {
    #[serde(default)]
    timestamp: Timestamp,
    #[serde(default)]
    source: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    properties: Option<BTreeMap<String, Value>>,
}

#[derive(Default, Deserialize)]
struct Timestamp {
    #[serde(default)]
    secs: u64,
    #[serde(default)]
    nanos: u32,
}

impl From<Wire> for Event {
    fn from(wire: Wire) -> Self {
        let at = Duration::from_secs(wire.timestamp.secs)
            .saturating_add(Duration::from_nanos(wire.timestamp.nanos.into()));
        let properties: BTreeMap<String, String> = wire
            .properties
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(text) => (name, text),
                other => (name, other.to_string()),
            })
            .collect();
        let get = |name: &str| properties.get(name).cloned().unwrap_or_default();
        use EventKind as K;
        let kind = match (wire.source.as_str(), wire.event.as_str()) {
            ("vmm", "starting") => K::VmmStarting,
            ("vmm", "shutdown") => K::VmmShutdown,
            ("vm", "booting") => K::Booting,
            ("vm", "booted") => K::Booted,
            ("vm", "shutdown") => K::Shutdown,
            ("vm", "deleted") => K::Deleted,
            ("vm", "rebooting") => K::Rebooting,
            ("vm", "rebooted") => K::Rebooted,
            ("vm", "pausing") => K::Pausing,
            ("vm", "paused") => K::Paused,
            ("vm", "resuming") => K::Resuming,
            ("vm", "resumed") => K::Resumed,
            ("vm", "snapshotting") => K::Snapshotting,
            ("vm", "snapshotted") => K::Snapshotted,
            ("vm", "restoring") => K::Restoring,
            ("vm", "restored") => K::Restored,
            ("vm", "coredumping") => K::Coredumping,
            ("vm", "resizing") => K::Resizing,
            ("vm", "resized") => K::Resized,
            ("vm", "device-removed") => K::DeviceRemoved {
                id: get("id"),
                bdf: get("bdf"),
            },
            (_, "migration-started") => K::MigrationStarted,
            (_, "migration-finished") => K::MigrationFinished,
            (_, "migration-failed") => K::MigrationFailed,
            (_, "migration-memory-iteration") => K::MigrationMemoryIteration {
                id: get("id").parse().unwrap_or_default(),
            },
            (_, "migration-receive-ready") => K::MigrationReceiveReady,
            (_, "migration-receive-started") => K::MigrationReceiveStarted,
            (_, "migration-receive-finished") => K::MigrationReceiveFinished,
            (_, "migration-receive-failed") => K::MigrationReceiveFailed,
            (_, "postcopy-migration-completed") => K::PostcopyMigrationCompleted,
            ("virtio-device" | "vdpa", "activated") => K::DeviceActivated { id: get("id") },
            ("virtio-device" | "vdpa", "reset") => K::DeviceReset { id: get("id") },
            ("guest", "panic") => K::GuestPanic {
                event: get("event"),
            },
            _ => K::Unknown {
                source: wire.source,
                event: wire.event,
                properties,
            },
        };
        Self { at, kind }
    }
}
