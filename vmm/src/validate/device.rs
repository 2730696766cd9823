//! Devices: disks, interfaces, sockets, everything with a place on the PCI bus.

use std::collections::BTreeSet;

use super::check::Check;
use super::machine::segments;
use crate::config::{SerialConfig, VmConfig};
use crate::device::{DiskConfig, NetBackend, NetConfig, PciSlot};

/// The longest name of a network interface.
const INTERFACE: usize = 15;
/// The longest virtio-fs tag.
const TAG: usize = 36;
/// The longest serial number of a disk.
const SERIAL: usize = 20;
/// The least MTU that virtio allows.
const MTU: u16 = 1280;

impl Check {
    pub(super) fn devices(&mut self, config: &VmConfig) {
        for (index, group) in config.rate_limit_groups.iter().enumerate() {
            let field = format!("rate_limit_groups[{index}]");
            self.id(&field, Some(&group.id));
            let limits = group.rate_limiter_config;
            let none = limits.bandwidth.is_none() && limits.ops.is_none();
            self.wrong_if(none, &field, "limits nothing");
        }
        let vcpus = config.cpus.as_ref().map_or(1, |cpus| cpus.boot_vcpus) as usize;
        for (index, disk) in config.disks.iter().enumerate() {
            self.disk(&format!("disks[{index}]"), disk, vcpus, config);
        }
        for (index, net) in config.net.iter().enumerate() {
            self.net(&format!("net[{index}]"), net, vcpus, config);
        }
        self.sockets(config, vcpus);
        self.passed_through(config);
        self.small(config);
    }

    fn slot(&mut self, field: &str, slot: &PciSlot, config: &VmConfig) {
        self.id(field, slot.id.as_deref());
        let segment = slot.pci_segment.unwrap_or(0);
        let name = format!("{field}.pci_segment");
        self.wrong_if(segment >= segments(config), &name, "is not there");
        let behind = config
            .platform
            .as_ref()
            .is_some_and(|platform| platform.iommu_segments.contains(&segment));
        let reason = "is behind the IOMMU, and the device is not";
        self.wrong_if(behind && !slot.iommu, &name, reason);
        let place = slot.pci_device_id.is_some_and(|id| id == 0 || id >= 32);
        let reason = "is not 1 … 31";
        self.wrong_if(place, format!("{field}.pci_device_id"), reason);
    }

    /// A device that no virtual IOMMU can be before.
    fn never_behind(&mut self, field: &str, slot: &PciSlot) {
        let reason = "is not for this kind of device";
        self.wrong_if(slot.iommu, format!("{field}.iommu"), reason);
    }

    fn queue_size(&mut self, field: &str, size: Option<u16>) {
        let odd = size.is_some_and(|size| !size.is_power_of_two());
        let reason = "is no power of two";
        self.wrong_if(odd, format!("{field}.queue_size"), reason);
    }

    fn disk(&mut self, field: &str, disk: &DiskConfig, vcpus: usize, config: &VmConfig) {
        self.slot(field, &disk.pci, config);
        match (disk.vhost_user, &disk.path, &disk.vhost_socket) {
            (false, None, _) => self.wrong(field, "has no path"),
            (true, _, None) => self.wrong(field, "has no vhost_socket"),
            (true, Some(_), _) => self.wrong(field, "has a path and a vhost-user back end"),
            _ => {}
        }
        if let Some(socket) = &disk.vhost_socket {
            self.socket(&format!("{field}.vhost_socket"), socket);
        }
        if disk
            .num_queues
            .is_some_and(|queues| queues == 0 || queues > vcpus)
        {
            let reason = format!("must be 1 … {vcpus} (vCPUs)");
            self.wrong(format!("{field}.num_queues"), reason);
        }
        self.queue_size(field, disk.queue_size);
        let small = disk.queue_size.is_some_and(|size| size <= 2);
        self.wrong_if(small, format!("{field}.queue_size"), "is 2 or less");
        let long = disk.serial.as_ref().is_some_and(|s| s.len() > SERIAL);
        let reason = format!("has more than {SERIAL} bytes");
        self.wrong_if(long, format!("{field}.serial"), &reason);
        let limits = format!("{field}.rate_limiter_config");
        let limited = disk.rate_limiter_config.is_some();
        let reason = "can't be with vhost_user";
        self.wrong_if(disk.vhost_user && limited, &limits, reason);
        if let Some(group) = &disk.rate_limit_group {
            let field = format!("{field}.rate_limit_group");
            self.wrong_if(disk.vhost_user, &field, reason);
            self.wrong_if(limited, &field, "can't be with limits of its own");
            let known = config.rate_limit_groups.iter().any(|g| g.id == *group);
            self.wrong_if(!known, &field, "is not there");
        }
        if disk.vhost_user {
            self.never_behind(field, &disk.pci);
        }
    }

    fn net(&mut self, field: &str, net: &NetConfig, vcpus: usize, config: &VmConfig) {
        self.slot(field, &net.pci, config);
        match &net.backend {
            NetBackend::Tap { name, ip, mask, .. } => {
                let bad = |c: char| c == '/' || c.is_whitespace();
                if name.is_empty() || name.len() > INTERFACE || name.contains(bad) {
                    let reason = format!("{name:?} is no interface name");
                    self.wrong(format!("{field}.tap"), reason);
                }
                let half = ip.is_some() != mask.is_some();
                self.wrong_if(half, format!("{field}.mask"), "goes with ip");
            }
            NetBackend::NewTap { ip, mask, .. } => {
                let half = ip.is_some() != mask.is_some();
                self.wrong_if(half, format!("{field}.mask"), "goes with ip");
            }
            NetBackend::Fds(_) => self.wrong(
                field,
                "descriptors can't travel with vm.create; add it before boot",
            ),
            NetBackend::VhostUser { socket, .. } => {
                self.socket(&format!("{field}.vhost_socket"), socket);
                self.never_behind(field, &net.pci);
                let limited = net.rate_limiter_config.is_some();
                let reason = "can't be with vhost_user";
                self.wrong_if(limited, format!("{field}.rate_limiter_config"), reason);
            }
        }
        let mac = net.mac.as_deref().is_some_and(|mac| !is_mac(mac));
        self.wrong_if(mac, format!("{field}.mac"), "is no unicast MAC address");
        let small = net.mtu.is_some_and(|mtu| mtu < MTU);
        let reason = format!("is less than {MTU}");
        self.wrong_if(small, format!("{field}.mtu"), &reason);
        self.queue_size(field, net.queue_size);
        let queues = net.num_queues.unwrap_or(2);
        if queues < 2 || !queues.is_multiple_of(2) || queues / 2 > vcpus {
            let reason = format!("must be even, 2 … {}", vcpus * 2);
            self.wrong(format!("{field}.num_queues"), reason);
        }
        let [csum, tso, ufo] =
            [net.offload_csum, net.offload_tso, net.offload_ufo].map(|on| on.unwrap_or(true));
        let reason = "can't be off with offload_tso or offload_ufo on";
        self.wrong_if(
            !csum && (tso || ufo),
            format!("{field}.offload_csum"),
            reason,
        );
    }

    fn sockets(&mut self, config: &VmConfig, vcpus: usize) {
        for (index, fs) in config.fs.iter().enumerate() {
            let field = format!("fs[{index}]");
            self.slot(&field, &fs.pci, config);
            self.never_behind(&field, &fs.pci);
            self.socket(&format!("{field}.socket"), &fs.socket);
            if fs.tag.is_empty() || fs.tag.len() > TAG {
                self.wrong(format!("{field}.tag"), format!("must have 1 … {TAG} bytes"));
            }
            let many = fs.num_queues.is_some_and(|queues| queues > vcpus);
            self.wrong_if(many, format!("{field}.num_queues"), "is more than vCPUs");
            self.queue_size(&field, fs.queue_size);
        }
        for (index, device) in config.generic_vhost_user.iter().enumerate() {
            let field = format!("generic_vhost_user[{index}]");
            self.slot(&field, &device.pci, config);
            self.never_behind(&field, &device.pci);
            self.socket(&format!("{field}.socket"), &device.socket);
            for size in &device.queue_sizes {
                self.queue_size(&field, Some(*size));
            }
        }
        for (index, device) in config.user_devices.iter().enumerate() {
            let field = format!("user_devices[{index}]");
            self.slot(&field, &device.pci, config);
            self.never_behind(&field, &device.pci);
            self.socket(&format!("{field}.socket"), &device.socket);
        }
        if let Some(vsock) = &config.vsock {
            self.slot("vsock", &vsock.pci, config);
            self.socket("vsock.socket", &vsock.socket);
            let reserved = vsock.cid < 3 || vsock.cid == u32::MAX;
            let reason = format!("{} is reserved; 3 is the least", vsock.cid);
            self.wrong_if(reserved, "vsock.cid", &reason);
        }
        if let Some(SerialConfig::Socket { socket }) = &config.serial {
            self.socket("serial.socket", socket);
        }
        if let Some(tpm) = &config.tpm {
            self.socket("tpm.socket", &tpm.socket);
        }
    }

    fn passed_through(&mut self, config: &VmConfig) {
        let mut paths = BTreeSet::new();
        let between = config
            .platform
            .as_ref()
            .and_then(|platform| platform.vfio_p2p_dma);
        for (index, device) in config.devices.iter().enumerate() {
            let field = format!("devices[{index}]");
            self.slot(&field, &device.pci, config);
            let name = format!("{field}.path");
            match &device.path {
                None => self.wrong(&name, "is missing; a descriptor travels with vm.add-device"),
                Some(path) => self.wrong_if(!paths.insert(path), &name, "is another device's"),
            }
            let clique = device.x_nv_gpudirect_clique;
            let name = format!("{field}.x_nv_gpudirect_clique");
            self.wrong_if(
                clique.is_some_and(|clique| clique > 15),
                &name,
                "is more than 15",
            );
            let reason = "needs platform.vfio_p2p_dma";
            self.wrong_if(clique.is_some() && between == Some(false), &name, reason);
            let bars = device.x_exclude_mmap_bars.iter().any(|bar| *bar > 5);
            let reason = "has a number over 5";
            self.wrong_if(bars, format!("{field}.x_exclude_mmap_bars"), reason);
        }
        for (index, device) in config.vdpa.iter().enumerate() {
            self.slot(&format!("vdpa[{index}]"), &device.pci, config);
        }
    }

    fn small(&mut self, config: &VmConfig) {
        for (index, device) in config.pmem.iter().enumerate() {
            let field = format!("pmem[{index}]");
            self.slot(&field, &device.pci, config);
            let odd = device
                .size
                .is_some_and(|size| !size.is_multiple_of(2 << 20));
            let reason = "is no multiple of 2 MiB";
            self.wrong_if(odd, format!("{field}.size"), reason);
        }
        if let Some(rng) = &config.rng {
            self.slot("rng", &rng.pci, config);
        }
        if let Some(rtc) = &config.rtc {
            self.slot("rtc", &rtc.pci, config);
        }
        if let Some(console) = &config.console {
            self.slot("console", &console.pci, config);
        }
        if let Some(shared) = &config.ivshmem {
            self.slot("ivshmem", &shared.pci, config);
            self.never_behind("ivshmem", &shared.pci);
            let odd = !shared.size.is_power_of_two();
            self.wrong_if(odd, "ivshmem.size", "is no power of two");
        }
        if let Some(balloon) = &config.balloon {
            self.slot("balloon", &balloon.pci, config);
            let memory = config.memory.as_ref();
            let ram = memory.map_or(512 << 20, |memory| {
                let zones = memory.zones.iter().map(|zone| zone.size);
                zones.fold(memory.size, u64::saturating_add)
            });
            let reason = "is not less than the memory";
            self.wrong_if(balloon.size >= ram, "balloon.size", reason);
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
