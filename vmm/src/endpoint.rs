//! Every endpoint that v42 … v53 have: method, name, how long it may take. [`crate::request`] says what
//! each takes and when.

/// The path in front of every name.
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

/// One endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The method; another one is refused.
    pub method: Method,
    /// The last part of its path: `vm.create`.
    pub name: &'static str,
    /// How long a call may take.
    pub class: Class,
}

impl Endpoint {
    /// The one with this name (`vm.info`) or whole path. `None` if no known version has it.
    #[must_use]
    pub fn find(path: &str) -> Option<Self> {
        let name = path.strip_prefix(BASE).unwrap_or(path);
        let name = name.strip_prefix('/').unwrap_or(name);
        ENDPOINTS.iter().find(|known| known.name == name).copied()
    }
}

/// A constant for each, and the list of all.
macro_rules! endpoints {
    ($($constant:ident: $method:ident $name:literal $class:ident,)+) => {
        $(pub(crate) const $constant: Endpoint = Endpoint {
            method: Method::$method,
            name: $name,
            class: Class::$class,
        };)+

        /// All of them.
        pub const ENDPOINTS: &[Endpoint] = &[$($constant),+];
    };
}

endpoints! {
    VMM_PING: Get "vmm.ping" Ping,
    VMM_SHUTDOWN: Put "vmm.shutdown" Long,
    VM_CREATE: Put "vm.create" Change,
    VM_BOOT: Put "vm.boot" Long,
    VM_DELETE: Put "vm.delete" Long,
    VM_SHUTDOWN: Put "vm.shutdown" Long,
    VM_REBOOT: Put "vm.reboot" Long,
    VM_PAUSE: Put "vm.pause" Change,
    VM_RESUME: Put "vm.resume" Change,
    VM_POWER_BUTTON: Put "vm.power-button" Change,
    VM_NMI: Put "vm.nmi" Change,
    VM_INFO: Get "vm.info" Query,
    VM_COUNTERS: Get "vm.counters" Query,
    VM_RESIZE: Put "vm.resize" Change,
    VM_RESIZE_DISK: Put "vm.resize-disk" Change,
    VM_RESIZE_ZONE: Put "vm.resize-zone" Change,
    VM_ADD_DEVICE: Put "vm.add-device" Change,
    VM_ADD_DISK: Put "vm.add-disk" Change,
    VM_ADD_FS: Put "vm.add-fs" Long,
    VM_ADD_GENERIC_VHOST_USER: Put "vm.add-generic-vhost-user" Long,
    VM_ADD_NET: Put "vm.add-net" Change,
    VM_ADD_PMEM: Put "vm.add-pmem" Change,
    VM_ADD_VDPA: Put "vm.add-vdpa" Change,
    VM_ADD_VSOCK: Put "vm.add-vsock" Change,
    VM_ADD_USER_DEVICE: Put "vm.add-user-device" Long,
    VM_REMOVE_DEVICE: Put "vm.remove-device" Change,
    VM_SNAPSHOT: Put "vm.snapshot" Transfer,
    VM_RESTORE: Put "vm.restore" Transfer,
    VM_COREDUMP: Put "vm.coredump" Transfer,
    VM_SEND_MIGRATION: Put "vm.send-migration" Transfer,
    VM_RECEIVE_MIGRATION: Put "vm.receive-migration" Transfer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_name_and_by_path() {
        for endpoint in ENDPOINTS {
            assert_eq!(Endpoint::find(endpoint.name), Some(*endpoint));
            let path = format!("{BASE}{}", endpoint.name);
            assert_eq!(Endpoint::find(&path), Some(*endpoint));
        }
        assert_eq!(Endpoint::find("vm.teleport"), None);
    }
}
