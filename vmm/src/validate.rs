//! What Cloud Hypervisor would refuse only at boot, told before a process is started.
//!
//! Pure: looks at the configuration, not at files. Not complete, and not meant to be: what is missing
//! here Cloud Hypervisor says itself.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use crate::config::{SerialConfig, VmConfig};
use crate::device::NetBackend;

/// The longest path of a Unix socket, without the closing zero.
pub const SOCKET_PATH: usize = 107;
/// The longest name of a network interface.
const INTERFACE: usize = 15;
/// The longest virtio-fs tag.
const TAG: usize = 36;

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `net[0].tap`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// Everything that is wrong with `config`; empty when nothing is.
#[must_use]
pub fn problems(config: &VmConfig) -> Vec<Problem> {
    let mut check = Check::default();
    check.cpus(config);
    check.memory(config);
    check.disks(config);
    check.net(config);
    check.sockets(config);
    if config.payload.is_none() {
        check.wrong("payload", "there is nothing to boot");
    }
    check.found
}

#[derive(Default)]
struct Check {
    found: Vec<Problem>,
    ids: BTreeSet<String>,
}

impl Check {
    fn wrong(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.found.push(Problem {
            field: field.into(),
            reason: reason.into(),
        });
    }

    fn id(&mut self, field: &str, id: Option<&str>) {
        let Some(id) = id else { return };
        let field = format!("{field}.id");
        if id.is_empty() {
            self.wrong(field, "is empty");
        } else if id.starts_with('_') {
            self.wrong(
                field,
                format!("{id:?} begins with `_`, as Cloud Hypervisor's own do"),
            );
        } else if !self.ids.insert(id.to_owned()) {
            self.wrong(field, format!("{id:?} is taken"));
        }
    }

    fn cpus(&mut self, config: &VmConfig) {
        let Some(cpus) = &config.cpus else { return };
        if cpus.boot_vcpus == 0 {
            self.wrong("cpus.boot_vcpus", "is 0");
        }
        if cpus.max_vcpus < cpus.boot_vcpus {
            let (most, boot) = (cpus.max_vcpus, cpus.boot_vcpus);
            self.wrong(
                "cpus.max_vcpus",
                format!("{most} is less than {boot} at boot"),
            );
        }
        if let Some(topology) = cpus.topology {
            let product = [
                topology.threads_per_core,
                topology.cores_per_die,
                topology.dies_per_package,
                topology.packages,
            ]
            .into_iter()
            .try_fold(1u32, |product, part| product.checked_mul(part.into()));
            if product != Some(cpus.max_vcpus) {
                let most = cpus.max_vcpus;
                self.wrong(
                    "cpus.topology",
                    format!("does not multiply to {most} vCPUs"),
                );
            }
        }
    }

    fn memory(&mut self, config: &VmConfig) {
        let memory = config.memory.clone().unwrap_or_default();
        if config.memory.is_some() {
            match (memory.size, memory.zones.is_empty()) {
                (0, true) => self.wrong("memory.size", "is 0"),
                (1.., false) => self.wrong("memory.size", "must be 0 with zones"),
                _ => {}
            }
        }
        let backends =
            config.fs.len() + config.generic_vhost_user.len() + config.user_devices.len();
        let vhost_disk = config.disks.iter().any(|disk| disk.vhost_user);
        let vhost_net = config
            .net
            .iter()
            .any(|net| matches!(net.backend, NetBackend::VhostUser { .. }));
        if (backends > 0 || vhost_disk || vhost_net) && !memory.is_shareable() {
            self.wrong(
                "memory",
                "must be shared or of huge pages for vhost-user devices",
            );
        }
    }

    fn disks(&mut self, config: &VmConfig) {
        let vcpus = config.cpus.as_ref().map_or(1, |cpus| cpus.boot_vcpus) as usize;
        for (index, disk) in config.disks.iter().enumerate() {
            let field = format!("disks[{index}]");
            self.id(&field, disk.pci.id.as_deref());
            match (disk.vhost_user, &disk.path, &disk.vhost_socket) {
                (false, None, _) => self.wrong(&field, "has no path"),
                (true, _, None) => self.wrong(&field, "has no vhost_socket"),
                (true, Some(_), _) => self.wrong(&field, "has a path and a vhost-user back end"),
                _ => {}
            }
            if disk
                .num_queues
                .is_some_and(|queues| queues == 0 || queues > vcpus)
            {
                self.wrong(
                    format!("{field}.num_queues"),
                    format!("must be 1 … {vcpus} (vCPUs)"),
                );
            }
        }
    }

    fn net(&mut self, config: &VmConfig) {
        let vcpus = config.cpus.as_ref().map_or(1, |cpus| cpus.boot_vcpus) as usize;
        for (index, net) in config.net.iter().enumerate() {
            let field = format!("net[{index}]");
            self.id(&field, net.pci.id.as_deref());
            if let NetBackend::Tap { name, .. } = &net.backend {
                let bad = |c: char| c == '/' || c.is_whitespace();
                if name.is_empty() || name.len() > INTERFACE || name.contains(bad) {
                    self.wrong(
                        format!("{field}.tap"),
                        format!("{name:?} is no interface name"),
                    );
                }
            }
            if matches!(net.backend, NetBackend::Fds(_)) {
                self.wrong(
                    &field,
                    "descriptors can't travel with vm.create; add it before boot",
                );
            }
            if net.mac.as_deref().is_some_and(|mac| !is_mac(mac)) {
                self.wrong(format!("{field}.mac"), "is no unicast MAC address");
            }
            let queues = net.num_queues.unwrap_or(2);
            if queues < 2 || queues % 2 != 0 || queues / 2 > vcpus {
                let most = vcpus * 2;
                self.wrong(
                    format!("{field}.num_queues"),
                    format!("must be even, 2 … {most}"),
                );
            }
        }
    }

    fn sockets(&mut self, config: &VmConfig) {
        for (index, fs) in config.fs.iter().enumerate() {
            let field = format!("fs[{index}]");
            self.id(&field, fs.pci.id.as_deref());
            self.socket(&format!("{field}.socket"), &fs.socket);
            if fs.tag.is_empty() || fs.tag.len() > TAG {
                self.wrong(format!("{field}.tag"), format!("must have 1 … {TAG} bytes"));
            }
        }
        if let Some(vsock) = &config.vsock {
            self.id("vsock", vsock.pci.id.as_deref());
            self.socket("vsock.socket", &vsock.socket);
            if vsock.cid < 3 {
                self.wrong(
                    "vsock.cid",
                    format!("{} is reserved; 3 is the least", vsock.cid),
                );
            }
        }
        if let Some(SerialConfig::Socket { socket }) = &config.serial {
            self.socket("serial.socket", socket);
        }
    }

    fn socket(&mut self, field: &str, path: &Path) {
        let length = path.as_os_str().len();
        if length == 0 || length > SOCKET_PATH {
            self.wrong(
                field,
                format!("has {length} bytes, and a socket's path has 1 … {SOCKET_PATH}"),
            );
        }
    }
}

fn is_mac(text: &str) -> bool {
    let octets: Vec<&str> = text.split(':').collect();
    let hex = |octet: &&str| octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
    octets.len() == 6
        && octets.iter().all(hex)
        && octets
            .first()
            .and_then(|o| u8::from_str_radix(o, 16).ok())
            .is_some_and(|o| o & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CpuTopology, CpusConfig, MemoryConfig, Payload};
    use crate::device::{DiskConfig, FsConfig, NetConfig, PciSlot, VsockConfig};

    fn good() -> VmConfig {
        VmConfig {
            cpus: Some(CpusConfig::fixed(2)),
            memory: Some(MemoryConfig::of(512 << 20)),
            payload: Some(Payload::kernel("/vmlinux", "")),
            disks: vec![DiskConfig::raw("/disk")],
            net: vec![NetConfig::tap("tap0", "02:00:00:00:00:01")],
            ..VmConfig::default()
        }
    }

    fn fields(config: &VmConfig) -> Vec<String> {
        problems(config)
            .into_iter()
            .map(|problem| problem.field)
            .collect()
    }

    #[test]
    fn a_good_machine_passes() {
        assert_eq!(problems(&good()), []);
    }

    #[test]
    fn each_mistake_is_named() {
        type Break = fn(&mut VmConfig);
        let cases: &[(Break, &str)] = &[
            (|c| c.payload = None, "payload"),
            (|c| c.cpus = Some(CpusConfig::fixed(0)), "cpus.boot_vcpus"),
            (|c| c.cpus.as_mut().unwrap().max_vcpus = 1, "cpus.max_vcpus"),
            (
                |c| {
                    c.cpus.as_mut().unwrap().topology = Some(CpuTopology {
                        threads_per_core: 2,
                        cores_per_die: u16::MAX,
                        dies_per_package: u16::MAX,
                        packages: u16::MAX,
                    });
                },
                "cpus.topology",
            ),
            (|c| c.memory = Some(MemoryConfig::default()), "memory.size"),
            (|c| c.disks.push(DiskConfig::default()), "disks[1]"),
            (|c| c.disks[0].pci = PciSlot::named("_disk0"), "disks[0].id"),
            (|c| c.disks[0].num_queues = Some(3), "disks[0].num_queues"),
            (
                |c| c.net[0] = NetConfig::tap("a-name-too-long-by-far", "02:00:00:00:00:01"),
                "net[0].tap",
            ),
            (
                |c| c.net[0].mac = Some("01:00:00:00:00:01".into()),
                "net[0].mac",
            ),
            (|c| c.net[0].num_queues = Some(3), "net[0].num_queues"),
            (|c| c.net[0].backend = NetBackend::Fds(vec![3]), "net[0]"),
            (
                |c| {
                    c.fs = vec![FsConfig {
                        tag: "t".into(),
                        socket: "/s".into(),
                        ..FsConfig::default()
                    }];
                },
                "memory",
            ),
            (
                |c| {
                    c.vsock = Some(VsockConfig {
                        cid: 2,
                        socket: "/v".into(),
                        ..Default::default()
                    });
                },
                "vsock.cid",
            ),
            (
                |c| {
                    c.serial = Some(SerialConfig::Socket {
                        socket: "/x".repeat(60).into(),
                    });
                },
                "serial.socket",
            ),
        ];
        for (spoil, field) in cases {
            let mut config = good();
            spoil(&mut config);
            assert!(
                fields(&config).contains(&(*field).to_owned()),
                "{field}: {:?}",
                fields(&config)
            );
        }
    }

    #[test]
    fn ids_are_unique_over_kinds_of_device() {
        let mut config = good();
        config.disks[0].pci = PciSlot::named("same");
        config.net[0].pci = PciSlot::named("same");
        assert_eq!(fields(&config), ["net[0].id"]);
    }
}
