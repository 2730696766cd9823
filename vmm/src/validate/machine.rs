//! The machine itself: vCPUs, memory, NUMA, platform, payload.

use std::collections::BTreeSet;

use super::Problem;
use super::check::Check;
use crate::config::{CpuTopology, NumaConfig, Payload, PlatformConfig, VmConfig};
use crate::device::NetBackend;

/// The most PCI segments.
const SEGMENTS: u16 = 96;
/// The most vCPUs of any version.
const VCPUS: u32 = 8192;

/// Everything that is wrong with `config`; empty when nothing is.
#[must_use]
pub fn problems(config: &VmConfig) -> Vec<Problem> {
    let mut check = Check::default();
    check.cpus(config);
    check.memory(config);
    check.payload(config);
    check.platform(config);
    check.numa(config);
    check.devices(config);
    check.found
}

impl Check {
    fn cpus(&mut self, config: &VmConfig) {
        let Some(cpus) = &config.cpus else { return };
        self.wrong_if(cpus.boot_vcpus == 0, "cpus.boot_vcpus", "is 0");
        if cpus.max_vcpus < cpus.boot_vcpus {
            let (most, boot) = (cpus.max_vcpus, cpus.boot_vcpus);
            self.wrong(
                "cpus.max_vcpus",
                format!("{most} is less than {boot} at boot"),
            );
        }
        if cpus.max_vcpus > VCPUS {
            self.wrong("cpus.max_vcpus", format!("is more than {VCPUS}"));
        }
        if let Some(topology) = cpus.topology {
            self.topology(topology, cpus.max_vcpus);
        }
    }

    fn topology(&mut self, topology: CpuTopology, most: u32) {
        let parts = [
            topology.threads_per_core,
            topology.cores_per_die,
            topology.dies_per_package,
            topology.packages,
        ];
        let product = parts
            .into_iter()
            .try_fold(1u32, |product, part| product.checked_mul(part.into()));
        if product != Some(most) {
            self.wrong(
                "cpus.topology",
                format!("does not multiply to {most} vCPUs"),
            );
        }
        let threads = topology.threads_per_core;
        self.wrong_if(
            threads > 2,
            "cpus.topology.threads_per_core",
            "is more than 2",
        );
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
        self.backing(
            "memory",
            memory.hugepages,
            memory.hugepage_size,
            memory.shared && memory.mergeable,
        );
        let plugged = memory.hotplugged_size.unwrap_or(0) > memory.hotplug_size.unwrap_or(0);
        let reason = "is more than hotplug_size";
        self.wrong_if(plugged, "memory.hotplugged_size", reason);
        for (index, zone) in memory.zones.iter().enumerate() {
            let field = format!("memory.zones[{index}]");
            self.id(&field, Some(&zone.id));
            self.wrong_if(zone.size == 0, format!("{field}.size"), "is 0");
            let both = zone.shared && zone.mergeable;
            self.backing(&field, zone.hugepages, zone.hugepage_size, both);
            let plugged = zone.hotplugged_size.unwrap_or(0) > zone.hotplug_size.unwrap_or(0);
            self.wrong_if(plugged, format!("{field}.hotplugged_size"), reason);
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

    fn backing(&mut self, field: &str, huge: bool, size: Option<u64>, shared_and_mergeable: bool) {
        if let Some(size) = size {
            let name = format!("{field}.hugepage_size");
            self.wrong_if(!huge, &name, "is set without hugepages");
            self.wrong_if(!size.is_power_of_two(), &name, "is no power of two");
        }
        let reason = "can't be with shared";
        self.wrong_if(shared_and_mergeable, format!("{field}.mergeable"), reason);
    }

    fn payload(&mut self, config: &VmConfig) {
        let snp = config.platform.as_ref().is_some_and(|p| p.sev_snp);
        let igvm = matches!(config.payload, Some(Payload::Igvm { .. }));
        self.wrong_if(
            snp && !igvm,
            "payload",
            "platform.sev_snp boots an IGVM file only",
        );
        match &config.payload {
            None | Some(Payload::Unknown) => self.wrong("payload", "there is nothing to boot"),
            Some(Payload::Igvm {
                host_data: Some(data),
                ..
            }) => {
                let hex = data.len() == 64 && data.bytes().all(|b| b.is_ascii_hexdigit());
                self.wrong_if(!hex, "payload.host_data", "is not 64 hexadecimal digits");
            }
            Some(Payload::Kernel {
                cmdline,
                initramfs,
                fw_cfg: Some(table),
                ..
            }) => {
                let field = "payload.fw_cfg_config";
                self.wrong_if(
                    table.cmdline && cmdline.is_none(),
                    field,
                    "shows a command line that is not there",
                );
                self.wrong_if(
                    table.initramfs && initramfs.is_none(),
                    field,
                    "shows an initramfs that is not there",
                );
                for item in &table.items {
                    let one = item.file.is_some() != item.string.is_some();
                    let reason = "needs a file or a string, and not both";
                    self.wrong_if(!one, format!("{field}.items[{:?}]", item.name), reason);
                }
            }
            Some(Payload::Kernel { .. } | Payload::Firmware { .. } | Payload::Igvm { .. }) => {}
        }
    }

    fn platform(&mut self, config: &VmConfig) {
        let segments = segments(config);
        if segments == 0 || segments > SEGMENTS {
            let reason = format!("is not 1 … {SEGMENTS}");
            self.wrong("platform.num_pci_segments", reason);
        }
        if let Some(PlatformConfig {
            iommu_segments,
            iommu_address_width_bits,
            ..
        }) = &config.platform
        {
            let beyond = iommu_segments.iter().any(|segment| *segment >= segments);
            self.wrong_if(
                beyond,
                "platform.iommu_segments",
                "names a segment that is not there",
            );
            let wide = iommu_address_width_bits.is_some_and(|bits| bits > 64);
            self.wrong_if(wide, "platform.iommu_address_width_bits", "is more than 64");
        }
        for (index, segment) in config.pci_segments.iter().enumerate() {
            let field = format!("pci_segments[{index}]");
            let beyond = segment.pci_segment >= segments;
            self.wrong_if(beyond, &field, "is not there");
            let weights = [
                segment.mmio32_aperture_weight,
                segment.mmio64_aperture_weight,
            ];
            self.wrong_if(weights.contains(&Some(0)), &field, "has a weight of 0");
        }
        for (index, rule) in config.landlock_rules.iter().enumerate() {
            let known = matches!(rule.access.as_str(), "r" | "w" | "rw" | "wr");
            let field = format!("landlock_rules[{index}].access");
            self.wrong_if(!known, field, "is not r, w or rw");
        }
    }

    fn numa(&mut self, config: &VmConfig) {
        let (mut zones, mut segments_of_nodes) = (BTreeSet::new(), BTreeSet::new());
        let segments = segments(config);
        for (index, node) in config.numa.iter().enumerate() {
            let field = format!("numa[{index}]");
            self.numa_kind(&field, node);
            for zone in &node.memory_zones {
                let twice = !zones.insert(zone);
                self.wrong_if(twice, &field, "has a memory zone of another node");
            }
            for segment in &node.pci_segments {
                let reason = "has a PCI segment that is not there";
                self.wrong_if(*segment >= segments, &field, reason);
                let reason = "has PCI segment 0, which is node 0's";
                self.wrong_if(*segment == 0 && node.guest_numa_id != 0, &field, reason);
                let twice = !segments_of_nodes.insert(segment);
                self.wrong_if(twice, &field, "has a PCI segment of another node");
            }
        }
    }

    fn numa_kind(&mut self, field: &str, node: &NumaConfig) {
        let parts = !node.cpus.is_empty() || !node.memory_zones.is_empty();
        match (&node.device_id, parts) {
            (Some(_), true) => self.wrong(field, "has a device and vCPUs or memory zones"),
            (None, false) => self.wrong(field, "has no vCPUs, no memory zones and no device"),
            (Some(id), false) if id.is_empty() => self.wrong(field, "has an empty device_id"),
            _ => {}
        }
    }
}

/// How many PCI segments the machine has.
pub(super) fn segments(config: &VmConfig) -> u16 {
    let platform = config.platform.as_ref();
    platform
        .and_then(|platform| platform.num_pci_segments)
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        CpuTopology, CpusConfig, FwCfgConfig, LandlockConfig, MemoryConfig, MemoryZoneConfig,
        PciSegmentConfig, SerialConfig,
    };
    use crate::device::{
        BalloonConfig, DeviceConfig, DiskConfig, FsConfig, NetConfig, PciSlot, RateLimiterConfig,
        VsockConfig,
    };

    fn good() -> VmConfig {
        VmConfig {
            cpus: Some(CpusConfig::fixed(2)),
            memory: Some(MemoryConfig::of(512 << 20)),
            payload: Some(Payload::kernel("/vmlinux", "")),
            disks: vec![DiskConfig::raw("/disk")],
            net: vec![NetConfig::tap("tap0", "02:00:00:00:00:01")],
            platform: Some(PlatformConfig::default()),
            ..VmConfig::default()
        }
    }

    fn fields(config: &VmConfig) -> Vec<String> {
        problems(config)
            .into_iter()
            .map(|problem| problem.field)
            .collect()
    }

    fn cpus(config: &mut VmConfig) -> &mut CpusConfig {
        config.cpus.as_mut().unwrap()
    }

    fn memory(config: &mut VmConfig) -> &mut MemoryConfig {
        config.memory.as_mut().unwrap()
    }

    fn platform(config: &mut VmConfig) -> &mut PlatformConfig {
        config.platform.as_mut().unwrap()
    }

    fn fw_cfg(table: FwCfgConfig) -> Option<Payload> {
        Some(Payload::Kernel {
            kernel: "/k".into(),
            cmdline: None,
            initramfs: None,
            fw_cfg: Some(table),
        })
    }

    #[test]
    fn a_good_machine_passes() {
        assert_eq!(problems(&good()), []);
    }

    #[test]
    fn each_mistake_is_named() {
        type Break = fn(&mut VmConfig);
        let topology = |threads, packages| {
            Some(CpuTopology {
                threads_per_core: threads,
                cores_per_die: 1,
                dies_per_package: 1,
                packages,
            })
        };
        let overflow = CpuTopology {
            threads_per_core: 2,
            cores_per_die: u16::MAX,
            dies_per_package: u16::MAX,
            packages: u16::MAX,
        };
        let mut config = good();
        cpus(&mut config).topology = Some(overflow);
        assert_eq!(fields(&config), ["cpus.topology"]);
        cpus(&mut config).topology = topology(0, 2);
        assert_eq!(fields(&config), ["cpus.topology"]);
        config.cpus = Some(CpusConfig {
            topology: topology(4, 1),
            ..CpusConfig::fixed(4)
        });
        assert_eq!(fields(&config), ["cpus.topology.threads_per_core"]);

        let cases: &[(Break, &str)] = &[
            (|c| c.payload = None, "payload"),
            (|c| platform(c).sev_snp = true, "payload"),
            (
                |c| c.payload = fw_cfg(FwCfgConfig::default()),
                "payload.fw_cfg_config",
            ),
            (|c| c.cpus = Some(CpusConfig::fixed(0)), "cpus.boot_vcpus"),
            (|c| cpus(c).max_vcpus = 1, "cpus.max_vcpus"),
            (|c| cpus(c).max_vcpus = 9000, "cpus.max_vcpus"),
            (|c| c.memory = Some(MemoryConfig::default()), "memory.size"),
            (
                |c| memory(c).hugepage_size = Some(1 << 21),
                "memory.hugepage_size",
            ),
            (
                |c| {
                    memory(c).hugepages = true;
                    memory(c).hugepage_size = Some(3);
                },
                "memory.hugepage_size",
            ),
            (
                |c| {
                    memory(c).shared = true;
                    memory(c).mergeable = true;
                },
                "memory.mergeable",
            ),
            (
                |c| memory(c).hotplugged_size = Some(1),
                "memory.hotplugged_size",
            ),
            (
                |c| {
                    let zone = MemoryZoneConfig {
                        id: "z".into(),
                        size: 1 << 20,
                        ..MemoryZoneConfig::default()
                    };
                    memory(c).size = 0;
                    memory(c).zones = vec![zone.clone(), zone];
                },
                "memory.zones[1].id",
            ),
            (
                |c| platform(c).num_pci_segments = Some(97),
                "platform.num_pci_segments",
            ),
            (
                |c| platform(c).iommu_segments = vec![1],
                "platform.iommu_segments",
            ),
            (
                |c| {
                    c.pci_segments = vec![PciSegmentConfig {
                        mmio32_aperture_weight: Some(0),
                        ..Default::default()
                    }];
                },
                "pci_segments[0]",
            ),
            (
                |c| c.landlock_rules = vec![LandlockConfig::default()],
                "landlock_rules[0].access",
            ),
            (|c| c.numa = vec![NumaConfig::default()], "numa[0]"),
            (|c| c.disks.push(DiskConfig::default()), "disks[1]"),
            (|c| c.disks[0].pci = PciSlot::named("_disk0"), "disks[0].id"),
            (|c| c.disks[0].num_queues = Some(3), "disks[0].num_queues"),
            (|c| c.disks[0].queue_size = Some(3), "disks[0].queue_size"),
            (|c| c.disks[0].queue_size = Some(2), "disks[0].queue_size"),
            (
                |c| c.disks[0].serial = Some("x".repeat(21)),
                "disks[0].serial",
            ),
            (
                |c| c.disks[0].rate_limit_group = Some("g".into()),
                "disks[0].rate_limit_group",
            ),
            (
                |c| {
                    memory(c).shared = true;
                    c.disks[0] = DiskConfig {
                        vhost_user: true,
                        vhost_socket: Some("/s".into()),
                        rate_limiter_config: Some(RateLimiterConfig::default()),
                        ..DiskConfig::default()
                    };
                },
                "disks[0].rate_limiter_config",
            ),
            (
                |c| c.disks[0].pci.pci_segment = Some(1),
                "disks[0].pci_segment",
            ),
            (
                |c| c.disks[0].pci.pci_device_id = Some(32),
                "disks[0].pci_device_id",
            ),
            (
                |c| platform(c).iommu_segments = vec![0],
                "disks[0].pci_segment",
            ),
            (
                |c| c.net[0] = NetConfig::tap("a-name-too-long-by-far", "02:00:00:00:00:01"),
                "net[0].tap",
            ),
            (
                |c| c.net[0].mac = Some("01:00:00:00:00:01".into()),
                "net[0].mac",
            ),
            (|c| c.net[0].num_queues = Some(3), "net[0].num_queues"),
            (|c| c.net[0].mtu = Some(1279), "net[0].mtu"),
            (
                |c| c.net[0].offload_csum = Some(false),
                "net[0].offload_csum",
            ),
            (
                |c| {
                    c.net[0].backend = NetBackend::NewTap {
                        ip: Some([10, 0, 0, 1].into()),
                        mask: None,
                        host_mac: None,
                    };
                },
                "net[0].mask",
            ),
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
                    c.balloon = Some(BalloonConfig {
                        size: 512 << 20,
                        ..Default::default()
                    });
                },
                "balloon.size",
            ),
            (
                |c| {
                    let device = DeviceConfig {
                        path: Some("/d".into()),
                        ..Default::default()
                    };
                    c.devices = vec![device.clone(), device];
                },
                "devices[1].path",
            ),
            (
                |c| c.devices = vec![DeviceConfig::default()],
                "devices[0].path",
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
