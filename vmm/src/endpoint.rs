//! The endpoints by name, for whoever has a name and a body instead of a type. Nothing is checked here
//! that [`crate::request`]'s typed functions check.

use crate::request::{BASE, Body, Class, Method, Request};

/// Every endpoint that v42 … v53 have: method, name, how long it may take.
pub const ENDPOINTS: [(Method, &str, Class); 31] = [
    (Method::Get, "vmm.ping", Class::Ping),
    (Method::Put, "vmm.shutdown", Class::Long),
    (Method::Put, "vm.create", Class::Change),
    (Method::Put, "vm.boot", Class::Long),
    (Method::Put, "vm.delete", Class::Long),
    (Method::Put, "vm.shutdown", Class::Long),
    (Method::Put, "vm.reboot", Class::Long),
    (Method::Put, "vm.pause", Class::Change),
    (Method::Put, "vm.resume", Class::Change),
    (Method::Put, "vm.power-button", Class::Change),
    (Method::Put, "vm.nmi", Class::Change),
    (Method::Get, "vm.info", Class::Query),
    (Method::Get, "vm.counters", Class::Query),
    (Method::Put, "vm.resize", Class::Change),
    (Method::Put, "vm.resize-disk", Class::Change),
    (Method::Put, "vm.resize-zone", Class::Change),
    (Method::Put, "vm.add-device", Class::Change),
    (Method::Put, "vm.add-disk", Class::Change),
    (Method::Put, "vm.add-fs", Class::Long),
    (Method::Put, "vm.add-generic-vhost-user", Class::Long),
    (Method::Put, "vm.add-net", Class::Change),
    (Method::Put, "vm.add-pmem", Class::Change),
    (Method::Put, "vm.add-vdpa", Class::Change),
    (Method::Put, "vm.add-vsock", Class::Change),
    (Method::Put, "vm.add-user-device", Class::Long),
    (Method::Put, "vm.remove-device", Class::Change),
    (Method::Put, "vm.snapshot", Class::Transfer),
    (Method::Put, "vm.restore", Class::Transfer),
    (Method::Put, "vm.coredump", Class::Transfer),
    (Method::Put, "vm.send-migration", Class::Transfer),
    (Method::Put, "vm.receive-migration", Class::Transfer),
];

/// The call of the endpoint at `path`: its name (`vm.info`), or the whole path. `None` if no known
/// version has it.
#[must_use]
pub fn request(path: &str, body: Option<Vec<u8>>) -> Option<Request> {
    let name = path.strip_prefix(BASE).unwrap_or(path);
    let name = name.strip_prefix('/').unwrap_or(name);
    let (method, name, class) = ENDPOINTS.into_iter().find(|known| known.1 == name)?;
    Some(Request {
        method,
        name,
        body: body.map_or(Body::Empty, Body::Json),
        class,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request;

    #[test]
    fn the_typed_functions_say_the_same() {
        let typed = [
            request::vmm_ping(),
            request::vmm_shutdown(),
            request::vm_boot(),
            request::vm_delete(),
            request::vm_shutdown(),
            request::vm_reboot(),
            request::vm_pause(),
            request::vm_resume(),
            request::vm_power_button(),
            request::vm_nmi(),
            request::vm_info(),
            request::vm_counters(),
        ];
        for call in typed {
            assert_eq!(request(&call.path(), None), Some(call.clone()));
            assert_eq!(request(call.name, None), Some(call));
        }
        let removal = request::vm_remove_device("a");
        let Body::Json(json) = removal.body.clone() else {
            panic!("{removal:?}")
        };
        assert_eq!(request("/vm.remove-device", Some(json)), Some(removal));
        assert_eq!(request("vm.teleport", None), None);
    }
}
