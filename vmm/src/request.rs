//! One pure function per endpoint of the REST API.
//!
//! Each says in which states of the VM Cloud Hypervisor takes the call:
//! N = no VM, C = created or shut down, R = running, P = paused, M = migrating. Sizes are bytes.
//! Nothing here opens a socket; [`crate::client::Client`] sends what these return.

use serde::Serialize;

use crate::config::VmConfig;
use crate::device::{
    DeviceConfig, DiskConfig, FsConfig, GenericVhostUserConfig, NetConfig, PmemConfig,
    UserDeviceConfig, VdpaConfig, VsockConfig,
};
use crate::endpoint::{self, BASE, Endpoint};
use crate::migration::{ReceiveMigration, RestoreConfig, SendMigration};

pub use crate::endpoint::{Class, Method};

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

fn with(endpoint: Endpoint, body: Body) -> Request {
    let Endpoint {
        method,
        name,
        class,
    } = endpoint;
    Request {
        method,
        name,
        body,
        class,
    }
}

fn plain(endpoint: Endpoint) -> Request {
    with(endpoint, Body::Empty)
}

fn json(endpoint: Endpoint, value: &impl Serialize) -> Request {
    let body = match serde_json::to_vec(value) {
        Ok(json) => Body::Json(json),
        Err(error) => Body::Unencodable(error.to_string()),
    };
    with(endpoint, body)
}

/// The call of the endpoint at `path` with a body that somebody else wrote, of which nothing is checked:
/// its name (`vm.info`), or the whole path. `None` if no known version has it.
#[must_use]
pub fn raw(path: &str, body: Option<Vec<u8>>) -> Option<Request> {
    let body = body.map_or(Body::Empty, Body::Json);
    Endpoint::find(path).map(|endpoint| with(endpoint, body))
}

/// `GET /api/v1/vmm.ping` → [`crate::info::VmmPing`]. Any state. Waits while another call runs.
#[must_use]
pub fn vmm_ping() -> Request {
    plain(endpoint::VMM_PING)
}

/// `PUT /api/v1/vmm.shutdown` → nothing. Any state: ends the VM and the process, with exit code 0.
#[must_use]
pub fn vmm_shutdown() -> Request {
    plain(endpoint::VMM_SHUTDOWN)
}

/// `PUT /api/v1/vm.create` → nothing. N only. Stores the configuration and opens consoles; it
/// checks nothing, and a failure may leave the configuration stored: `vm.delete` before the next.
#[must_use]
pub fn vm_create(config: &VmConfig) -> Request {
    json(endpoint::VM_CREATE, config)
}

/// `PUT /api/v1/vm.boot` → nothing. C only. Checks the configuration and opens everything. A failure
/// may leave a VM that can't be booted again: `vm.delete` and `vm.create` first.
#[must_use]
pub fn vm_boot() -> Request {
    plain(endpoint::VM_BOOT)
}

/// `PUT /api/v1/vm.delete` → nothing. Any state but M; shuts the VM down first, harmless without one.
#[must_use]
pub fn vm_delete() -> Request {
    plain(endpoint::VM_DELETE)
}

/// `PUT /api/v1/vm.shutdown` → nothing. R, P: pulls the plug. The VM can be booted again.
#[must_use]
pub fn vm_shutdown() -> Request {
    plain(endpoint::VM_SHUTDOWN)
}

/// `PUT /api/v1/vm.reboot` → nothing. R, P: tears the VM down and boots it inside the call.
#[must_use]
pub fn vm_reboot() -> Request {
    plain(endpoint::VM_REBOOT)
}

/// `PUT /api/v1/vm.pause` → nothing. R only.
#[must_use]
pub fn vm_pause() -> Request {
    plain(endpoint::VM_PAUSE)
}

/// `PUT /api/v1/vm.resume` → nothing. P only.
#[must_use]
pub fn vm_resume() -> Request {
    plain(endpoint::VM_RESUME)
}

/// `PUT /api/v1/vm.power-button` → nothing. R only. Presses the ACPI button; the guest decides.
#[must_use]
pub fn vm_power_button() -> Request {
    plain(endpoint::VM_POWER_BUTTON)
}

/// `PUT /api/v1/vm.nmi` → nothing. R only. Injects a non-maskable interrupt.
#[must_use]
pub fn vm_nmi() -> Request {
    plain(endpoint::VM_NMI)
}

/// `GET /api/v1/vm.info` → [`crate::info::VmInfo`]. C, R, P; a frozen copy in M.
#[must_use]
pub fn vm_info() -> Request {
    plain(endpoint::VM_INFO)
}

/// `GET /api/v1/vm.counters` → [`crate::info::VmCounters`]. R, P.
#[must_use]
pub fn vm_counters() -> Request {
    plain(endpoint::VM_COUNTERS)
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
    json(endpoint::VM_RESIZE, &resize)
}

/// `PUT /api/v1/vm.resize-disk` → nothing. R, P; v50. Raw disks, and qcow2 to grow (v53).
#[must_use]
pub fn vm_resize_disk(id: &str, size: u64) -> Request {
    json(
        endpoint::VM_RESIZE_DISK,
        &serde_json::json!({ "id": id, "desired_size": size }),
    )
}

/// `PUT /api/v1/vm.resize-zone` → nothing. C, R, P.
#[must_use]
pub fn vm_resize_zone(id: &str, ram: u64) -> Request {
    json(
        endpoint::VM_RESIZE_ZONE,
        &serde_json::json!({ "id": id, "desired_ram": ram }),
    )
}

/// `PUT /api/v1/vm.add-device` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_device(device: &DeviceConfig) -> Request {
    json(endpoint::VM_ADD_DEVICE, device)
}

/// `PUT /api/v1/vm.add-disk` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_disk(disk: &DiskConfig) -> Request {
    json(endpoint::VM_ADD_DISK, disk)
}

/// `PUT /api/v1/vm.add-fs` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C. Waits for the
/// back end up to a minute, and every other call with it.
#[must_use]
pub fn vm_add_fs(fs: &FsConfig) -> Request {
    json(endpoint::VM_ADD_FS, fs)
}

/// `PUT /api/v1/vm.add-generic-vhost-user` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C;
/// v52.
#[must_use]
pub fn vm_add_generic_vhost_user(device: &GenericVhostUserConfig) -> Request {
    json(endpoint::VM_ADD_GENERIC_VHOST_USER, device)
}

/// `PUT /api/v1/vm.add-net` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C. Descriptors of
/// [`crate::device::NetBackend::Fds`] travel beside the request:
/// [`crate::client::Client::call_with_fds`].
#[must_use]
pub fn vm_add_net(net: &NetConfig) -> Request {
    json(endpoint::VM_ADD_NET, net)
}

/// `PUT /api/v1/vm.add-pmem` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_pmem(pmem: &PmemConfig) -> Request {
    json(endpoint::VM_ADD_PMEM, pmem)
}

/// `PUT /api/v1/vm.add-vdpa` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_vdpa(vdpa: &VdpaConfig) -> Request {
    json(endpoint::VM_ADD_VDPA, vdpa)
}

/// `PUT /api/v1/vm.add-vsock` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C. One a VM.
#[must_use]
pub fn vm_add_vsock(vsock: &VsockConfig) -> Request {
    json(endpoint::VM_ADD_VSOCK, vsock)
}

/// `PUT /api/v1/vm.add-user-device` → [`crate::info::PciDeviceInfo`] in R and P, nothing in C.
#[must_use]
pub fn vm_add_user_device(device: &UserDeviceConfig) -> Request {
    json(endpoint::VM_ADD_USER_DEVICE, device)
}

/// `PUT /api/v1/vm.remove-device` → nothing. C, R, P. In R the guest lets go later: done at the event
/// `vm/device-removed`; a second call for the same device is refused.
#[must_use]
pub fn vm_remove_device(id: &str) -> Request {
    json(endpoint::VM_REMOVE_DEVICE, &serde_json::json!({ "id": id }))
}

/// `PUT /api/v1/vm.snapshot` → nothing. P only. `destination_url` is `file:///dir`, an existing
/// directory; it receives config.json, state.json and memory-ranges.
#[must_use]
pub fn vm_snapshot(destination_url: &str) -> Request {
    json(
        endpoint::VM_SNAPSHOT,
        &serde_json::json!({ "destination_url": destination_url }),
    )
}

/// `PUT /api/v1/vm.restore` → nothing. N only. Leaves the VM paused unless `resume`.
#[must_use]
pub fn vm_restore(restore: &RestoreConfig) -> Request {
    json(endpoint::VM_RESTORE, restore)
}

/// `PUT /api/v1/vm.coredump` → nothing. R, P; builds with the feature `guest_debug`, else the path is
/// unknown. `destination_url` is `file:///path`.
#[must_use]
pub fn vm_coredump(destination_url: &str) -> Request {
    json(
        endpoint::VM_COREDUMP,
        &serde_json::json!({ "destination_url": destination_url }),
    )
}

/// `PUT /api/v1/vm.send-migration` → nothing. R, P. From v53 on it answers at once and events tell the
/// rest; before, it answers when done. On success the process ends with exit code 0.
#[must_use]
pub fn vm_send_migration(migration: &SendMigration) -> Request {
    json(endpoint::VM_SEND_MIGRATION, migration)
}

/// `PUT /api/v1/vm.receive-migration` → nothing. N, C (overwritten). Answers when done; until then
/// Cloud Hypervisor answers nothing else, and SIGTERM does nothing.
#[must_use]
pub fn vm_receive_migration(migration: &ReceiveMigration) -> Request {
    json(endpoint::VM_RECEIVE_MIGRATION, migration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_somebody_elses() {
        let call = vm_remove_device("a");
        let Body::Json(body) = call.body.clone() else {
            panic!("{call:?}")
        };
        assert_eq!(raw(&call.path(), Some(body)), Some(call));
        assert_eq!(raw("vm.info", None), Some(vm_info()));
        assert_eq!(raw("vm.teleport", None), None);
    }
}
