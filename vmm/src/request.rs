//! One pure function per endpoint of the REST API.
//!
//! Each says in which states of the VM Cloud Hypervisor takes the call:
//! N = no VM, C = created or shut down, R = running, P = paused, M = migrating. Sizes are bytes.
//! Nothing here opens a socket; [`crate::client::Client`] sends what these return.

use serde::Serialize;
use serde_json::json;

use crate::config::VmConfig;
use crate::device::{
    DeviceConfig, DiskConfig, FsConfig, GenericVhostUserConfig, NetConfig, PmemConfig,
    UserDeviceConfig, VdpaConfig, VsockConfig,
};
use crate::migration::{ReceiveMigration, RestoreConfig, SendMigration};

/// The path in front of every call's name.
pub const BASE: &str = "/api/v1/";

/// The two methods that Cloud Hypervisor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Asks.
    Get,
    /// Does.
    Put,
}

/// How long a call may take; [`crate::client::Timeouts`] has the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Answered from memory: ping.
    Ping,
    /// Answered from the VM: info, counters.
    Query,
    /// Changes configuration or devices.
    Change,
    /// Starts, stops or copies a whole VM.
    Long,
    /// As long as a migration takes.
    Transfer,
}

/// A request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// None.
    Empty,
    /// JSON.
    Json(Vec<u8>),
    /// A value that has no JSON form, and why; it is refused before it is sent.
    Unencodable(String),
}

/// A call that has not been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The call's name, the last part of its path: `vm.create`.
    pub name: &'static str,
    /// The body.
    pub body: Body,
    /// How long it may take.
    pub class: Class,
}

impl Request {
    /// The whole path: `/api/v1/vm.create`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{BASE}{}", self.name)
    }
}

fn get(name: &'static str, class: Class) -> Request {
    Request {
        method: Method::Get,
        name,
        body: Body::Empty,
        class,
    }
}

fn put(name: &'static str, class: Class) -> Request {
    Request {
        method: Method::Put,
        name,
        body: Body::Empty,
        class,
    }
}

fn put_json(name: &'static str, class: Class, value: &impl Serialize) -> Request {
    let body = match serde_json::to_vec(value) {
        Ok(json) => Body::Json(json),
        Err(error) => Body::Unencodable(error.to_string()),
    };
    Request {
        method: Method::Put,
        name,
        body,
        class,
    }
}

/// `GET /api/v1/vmm.ping` → [`crate::info::VmmPing`]. Any state. Waits while another call runs.
#[must_use]
pub fn vmm_ping() -> Request {
    get("vmm.ping", Class::Ping)
}

/// `PUT /api/v1/vmm.shutdown` → nothing. Any state: ends the VM and the process, with exit code 0.
#[must_use]
pub fn vmm_shutdown() -> Request {
    put("vmm.shutdown", Class::Long)
}

/// `PUT /api/v1/vm.create` → nothing. N only. Stores the configuration and opens consoles; it
/// checks nothing, and a failure may leave the configuration stored: `vm.delete` before the next.
#[must_use]
pub fn vm_create(config: &VmConfig) -> Request {
    put_json("vm.create", Class::Change, config)
}

/// `PUT /api/v1/vm.boot` → nothing. C only. Checks the configuration and opens everything. A failure
/// may leave a VM that can't be booted again: `vm.delete` and `vm.create` first.
#[must_use]
pub fn vm_boot() -> Request {
    put("vm.boot", Class::Long)
}

/// `PUT /api/v1/vm.delete` → nothing. Any state but M; shuts the VM down first, harmless without one.
#[must_use]
pub fn vm_delete() -> Request {
    put("vm.delete", Class::Long)
}

/// `PUT /api/v1/vm.shutdown` → nothing. R, P: pulls the plug. The VM can be booted again.
#[must_use]
pub fn vm_shutdown() -> Request {
    put("vm.shutdown", Class::Long)
}

/// `PUT /api/v1/vm.reboot` → nothing. R, P: tears the VM down and boots it inside the call.
#[must_use]
pub fn vm_reboot() -> Request {
    put("vm.reboot", Class::Long)
}

/// `PUT /api/v1/vm.pause` → nothing. R only.
#[must_use]
pub fn vm_pause() -> Request {
    put("vm.pause", Class::Change)
}

/// `PUT /api/v1/vm.resume` → nothing. P only.
#[must_use]
pub fn vm_resume() -> Request {
    put("vm.resume", Class::Change)
}

/// `PUT /api/v1/vm.power-button` → nothing. R only. Presses the ACPI button; the guest decides.
#[must_use]
pub fn vm_power_button() -> Request {
    put("vm.power-button", Class::Change)
}

/// `PUT /api/v1/vm.nmi` → nothing. R only. Injects a non-maskable interrupt.
#[must_use]
pub fn vm_nmi() -> Request {
    put("vm.nmi", Class::Change)
}

/// `GET /api/v1/vm.info` → [`crate::info::VmInfo`]. C, R, P; a frozen copy in M.
#[must_use]
pub fn vm_info() -> Request {
    get("vm.info", Class::Query)
}

/// `GET /api/v1/vm.counters` → [`crate::info::VmCounters`]. R, P.
#[must_use]
pub fn vm_counters() -> Request {
    get("vm.counters", Class::Query)
}

/// What `vm.resize` shall reach; what is unset stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Resize {
    /// vCPUs, 1 … `max_vcpus`.
    #[serde(rename = "desired_vcpus", skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Bytes of memory, `size` … `size + hotplug_size`.
    #[serde(rename = "desired_ram", skip_serializing_if = "Option::is_none")]
    pub ram: Option<u64>,
    /// Bytes in the balloon.
    #[serde(rename = "desired_balloon", skip_serializing_if = "Option::is_none")]
    pub balloon: Option<u64>,
}

/// `PUT /api/v1/vm.resize` → nothing. C (edits the configuration), R, P. In R the guest acts later;
/// Busy while it still gives back vCPUs.
#[must_use]
pub fn vm_resize(resize: Resize) -> Request {
    put_json("vm.resize", Class::Change, &resize)
}

/// `PUT /api/v1/vm.resize-disk` → nothing. R, P; v50. Raw disks, and qcow2 to grow (v53).
#[must_use]
pub fn vm_resize_disk(id: &str, size: u64) -> Request {
    put_json(
        "vm.resize-disk",
        Class::Change,
        &json!({ "id": id, "desired_size": size }),
    )
}

/// `PUT /api/v1/vm.resize-zone` → nothing. C, R, P.
#[must_use]
pub fn vm_resize_zone(id: &str, ram: u64) -> Request {
    put_json(
        "vm.resize-zone",
        Class::Change,
        &json!({ "id": id, "desired_ram": ram }),
    )
}

/// `PUT /api/v1/vm.add-device` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_device(device: &DeviceConfig) -> Request {
    put_json("vm.add-device", Class::Change, device)
}

/// `PUT /api/v1/vm.add-disk` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_disk(disk: &DiskConfig) -> Request {
    put_json("vm.add-disk", Class::Change, disk)
}

/// `PUT /api/v1/vm.add-fs` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C. Waits for the
/// back end up to a minute, and every other call with it.
#[must_use]
pub fn vm_add_fs(fs: &FsConfig) -> Request {
    put_json("vm.add-fs", Class::Long, fs)
}

/// `PUT /api/v1/vm.add-generic-vhost-user` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C;
/// v52.
#[must_use]
pub fn vm_add_generic_vhost_user(device: &GenericVhostUserConfig) -> Request {
    put_json("vm.add-generic-vhost-user", Class::Long, device)
}

/// `PUT /api/v1/vm.add-net` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C. Descriptors of
/// [`crate::device::NetBackend::Fds`] travel beside the request:
/// [`crate::client::Client::call_with_fds`].
#[must_use]
pub fn vm_add_net(net: &NetConfig) -> Request {
    put_json("vm.add-net", Class::Change, net)
}

/// `PUT /api/v1/vm.add-pmem` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_pmem(pmem: &PmemConfig) -> Request {
    put_json("vm.add-pmem", Class::Change, pmem)
}

/// `PUT /api/v1/vm.add-vdpa` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_vdpa(vdpa: &VdpaConfig) -> Request {
    put_json("vm.add-vdpa", Class::Change, vdpa)
}

/// `PUT /api/v1/vm.add-vsock` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C. One a VM.
#[must_use]
pub fn vm_add_vsock(vsock: &VsockConfig) -> Request {
    put_json("vm.add-vsock", Class::Change, vsock)
}

/// `PUT /api/v1/vm.add-user-device` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_user_device(device: &UserDeviceConfig) -> Request {
    put_json("vm.add-user-device", Class::Long, device)
}

/// `PUT /api/v1/vm.remove-device` → nothing. C, R, P. In R the guest lets go later: done at the event
/// `vm/device-removed`; a second call for the same device is refused.
#[must_use]
pub fn vm_remove_device(id: &str) -> Request {
    put_json("vm.remove-device", Class::Change, &json!({ "id": id }))
}

/// `PUT /api/v1/vm.snapshot` → nothing. P only. `destination_url` is `file:///dir`, an existing
/// directory; it receives config.json, state.json and memory-ranges.
#[must_use]
pub fn vm_snapshot(destination_url: &str) -> Request {
    put_json(
        "vm.snapshot",
        Class::Transfer,
        &json!({ "destination_url": destination_url }),
    )
}

/// `PUT /api/v1/vm.restore` → nothing. N only. Leaves the VM paused unless `resume`.
#[must_use]
pub fn vm_restore(restore: &RestoreConfig) -> Request {
    put_json("vm.restore", Class::Transfer, restore)
}

/// `PUT /api/v1/vm.coredump` → nothing. R, P; builds with the feature `guest_debug`, else the path is
/// unknown. `destination_url` is `file:///path`.
#[must_use]
pub fn vm_coredump(destination_url: &str) -> Request {
    put_json(
        "vm.coredump",
        Class::Transfer,
        &json!({ "destination_url": destination_url }),
    )
}

/// `PUT /api/v1/vm.send-migration` → nothing. R, P. From v53 on it answers at once and events tell the
/// rest; before, it answers when done. On success the process ends with exit code 0.
#[must_use]
pub fn vm_send_migration(migration: &SendMigration) -> Request {
    put_json("vm.send-migration", Class::Transfer, migration)
}

/// `PUT /api/v1/vm.receive-migration` → nothing. N, C (overwritten). Answers when done; until then
/// Cloud Hypervisor answers nothing else, and SIGTERM does nothing.
#[must_use]
pub fn vm_receive_migration(migration: &ReceiveMigration) -> Request {
    put_json("vm.receive-migration", Class::Transfer, migration)
}
