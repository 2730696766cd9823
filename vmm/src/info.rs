//! What Cloud Hypervisor answers. Tolerant: unknown fields are dropped, missing ones defaulted,
//! `null`s (which versions up to v52 write) count as missing.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::VmConfig;

/// Answer of `vmm.ping`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmmPing {
    /// The full version with the build's suffix, `v53.0-dirty`.
    pub build_version: String,
    /// The version, `53.0.0`.
    pub version: String,
    /// The process, in Cloud Hypervisor's own pid namespace.
    pub pid: i64,
    /// What the build can do, such as `kvm`, `io_uring`, `tdx`.
    pub features: Vec<String>,
}

/// Answer of `vm.info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmInfo {
    /// The configuration, with what Cloud Hypervisor filled in: ids, MACs, pty paths.
    pub config: VmConfig,
    /// The state.
    pub state: VmState,
    /// Bytes of memory the guest has now, balloon and hot-plug counted.
    pub memory_actual_size: u64,
    /// Devices by id; empty before boot. virtio device `X` is node `_virtio-pci-X`.
    pub device_tree: BTreeMap<String, DeviceNode>,
}

/// The state that `vm.info` reports. After `vm.shutdown` it is `Created`, never `Shutdown`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum VmState {
    /// Configured, or shut down.
    #[default]
    Created,
    /// vCPUs run.
    Running,
    /// In the API's description; no known version answers it.
    Shutdown,
    /// vCPUs stand still.
    Paused,
    /// Stopped at a debugger's breakpoint.
    BreakPoint,
    /// A state this crate does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One device of a booted VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceNode {
    /// Its id.
    pub id: String,
    /// Ports, memory ranges and interrupts, as Cloud Hypervisor writes them.
    pub resources: Vec<Value>,
    /// The node it hangs from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Nodes that hang from it.
    pub children: Vec<String>,
    /// Its PCI address, `0000:00:02.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_bdf: Option<String>,
}

/// Answer of a hot `vm.add-*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PciDeviceInfo {
    /// The device's id.
    pub id: String,
    /// Its PCI address.
    pub bdf: String,
}

/// Answer of `vm.counters`: device id → counter → value. An unused latency counter holds `u64::MAX`.
pub type VmCounters = BTreeMap<String, BTreeMap<String, u64>>;

/// Reads an answer's body.
///
/// # Errors
/// When it is not JSON or not of this shape.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(body)?;
    strip_nulls(&mut value);
    T::deserialize(value)
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
