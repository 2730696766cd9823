//! Which version brought which field, and which build understands it. Read off the sources of every
//! release from v42 to v53, not off its OpenAPI files, which lag behind.

use super::{Capabilities, Needs, Unsupported, Version};
use crate::config::{CpusConfig, MemoryConfig, Payload, PlatformConfig, VmConfig};
use crate::device::{DeviceConfig, DiskConfig, PciSlot};
use crate::migration::{
    MigrationMode, MigrationUrl, ReceiveMigration, RestoreConfig, SendMigration,
};

/// Collects what is missing.
pub(super) struct Gate<'a> {
    capabilities: &'a Capabilities,
    pub(super) missing: Vec<Unsupported>,
}

/// Since when a kind of device has each part of a [`PciSlot`]. All have a slot number since v52 at the
/// earliest.
struct Since {
    id: u32,
    iommu: u32,
    segment: u32,
    device: u32,
}

/// Disks, interfaces, VFIO, vDPA, pmem, vsock.
const USUAL: Since = Since {
    id: 42,
    iommu: 42,
    segment: 42,
    device: 52,
};
/// Shared directories and vfio-user devices.
const BEHIND_A_SOCKET: Since = Since { iommu: 52, ..USUAL };
/// The entropy device and the console.
const NAMELESS: Since = Since {
    id: 52,
    segment: 52,
    ..USUAL
};
/// The balloon and shared memory between VMs.
const LATE: Since = Since {
    id: 53,
    iommu: 53,
    segment: 53,
    device: 53,
};

impl<'a> Gate<'a> {
    pub(super) fn new(capabilities: &'a Capabilities) -> Self {
        Self {
            capabilities,
            missing: Vec::new(),
        }
    }

    pub(super) fn since(&mut self, major: u32, used: bool, what: &str) {
        if used && self.capabilities.version.major < major {
            let needs = Needs::Version(Version::major(major));
            self.lacks(what, needs);
        }
    }

    fn feature(&mut self, feature: &'static str, used: bool, what: &str) {
        if used && !self.capabilities.features.contains(feature) {
            self.lacks(what, Needs::Feature(feature));
        }
    }

    fn lacks(&mut self, what: &str, needs: Needs) {
        self.missing.push(Unsupported {
            what: what.to_owned(),
            needs,
        });
    }

    pub(super) fn call(&mut self, call: &str) {
        match call {
            "vm.resize-disk" => self.since(50, true, call),
            "vm.add-generic-vhost-user" => self.since(52, true, call),
            "vm.coredump" => self.feature("guest_debug", true, call),
            _ => {}
        }
    }

    pub(super) fn config(&mut self, config: &VmConfig) {
        if let Some(cpus) = &config.cpus {
            self.cpus(cpus);
        }
        if let Some(memory) = &config.memory {
            self.memory(memory);
        }
        if let Some(payload) = &config.payload {
            self.payload(payload);
        }
        if let Some(platform) = &config.platform {
            self.platform(platform);
        }
        for disk in &config.disks {
            self.disk(disk);
        }
        for device in &config.devices {
            self.device(device);
        }
        let generic = !config.generic_vhost_user.is_empty();
        self.since(52, generic, "generic_vhost_user");
        self.since(53, config.rtc.is_some(), "rtc");
        self.since(48, config.ivshmem.is_some(), "ivshmem");
        self.feature("ivshmem", config.ivshmem.is_some(), "ivshmem");
        let numa = config.numa.iter().any(|node| node.device_id.is_some());
        self.since(51, numa, "numa.device_id");
        self.slots(config);
    }

    fn cpus(&mut self, cpus: &CpusConfig) {
        self.since(48, cpus.max_vcpus > 255, "more than 255 vCPUs");
        self.since(50, cpus.nested.is_some(), "cpus.nested");
        self.since(52, cpus.core_scheduling.is_some(), "cpus.core_scheduling");
        self.since(53, cpus.profile.is_some(), "cpus.profile");
    }

    fn memory(&mut self, memory: &MemoryConfig) {
        let zones = &memory.zones;
        let mergeable = zones.iter().any(|zone| zone.mergeable);
        self.since(52, mergeable, "memory.zones.mergeable");
        self.since(53, memory.reserve, "memory.reserve");
        let reserve = zones.iter().any(|zone| zone.reserve);
        self.since(53, reserve, "memory.zones.reserve");
    }

    fn payload(&mut self, payload: &Payload) {
        if let Payload::Kernel {
            fw_cfg: Some(table),
            ..
        } = payload
        {
            self.since(48, true, "payload.fw_cfg_config");
            self.feature("fw_cfg", true, "payload.fw_cfg_config");
            let text = table.items.iter().any(|item| item.string.is_some());
            self.since(52, text, "payload.fw_cfg_config.items.string");
        }
        if let Payload::Igvm { host_data, .. } = payload {
            self.since(45, true, "payload.igvm");
            self.feature("igvm", true, "payload.igvm");
            self.feature("sev_snp", host_data.is_some(), "payload.host_data");
        }
    }

    fn platform(&mut self, platform: &PlatformConfig) {
        let width = platform.iommu_address_width_bits.is_some();
        self.since(44, width, "platform.iommu_address_width_bits");
        self.since(52, platform.iommufd, "platform.iommufd");
        self.since(52, platform.vfio_p2p_dma.is_some(), "platform.vfio_p2p_dma");
        for (name, text) in [
            ("system_manufacturer", &platform.system_manufacturer),
            ("system_product_name", &platform.system_product_name),
            ("system_version", &platform.system_version),
            ("system_family", &platform.system_family),
            ("system_sku_number", &platform.system_sku_number),
            ("chassis_asset_tag", &platform.chassis_asset_tag),
        ] {
            self.since(53, text.is_some(), &format!("platform.{name}"));
        }
        self.since(45, platform.sev_snp, "platform.sev_snp");
        self.feature("sev_snp", platform.sev_snp, "platform.sev_snp");
        self.feature("tdx", platform.tdx, "platform.tdx");
    }

    fn disk(&mut self, disk: &DiskConfig) {
        self.since(51, disk.sparse.is_some(), "disks.sparse");
        let lock = disk.lock_granularity.is_some();
        self.since(52, lock, "disks.lock_granularity");
    }

    fn device(&mut self, device: &DeviceConfig) {
        let bars = !device.x_exclude_mmap_bars.is_empty();
        self.since(52, bars, "devices.x_exclude_mmap_bars");
        self.since(53, device.path.is_none(), "devices without a path");
    }

    fn slots(&mut self, config: &VmConfig) {
        macro_rules! each {
            ($($field:ident: $since:expr),* $(,)?) => {
                $(for device in config.$field.iter() {
                    self.slot(stringify!($field), &device.pci, &$since);
                })*
            };
        }
        each! {
            disks: USUAL, net: USUAL, pmem: USUAL, devices: USUAL, vdpa: USUAL, vsock: USUAL,
            fs: BEHIND_A_SOCKET, user_devices: BEHIND_A_SOCKET,
            rng: NAMELESS, console: NAMELESS,
            balloon: LATE, ivshmem: LATE,
        }
    }

    fn slot(&mut self, kind: &str, slot: &PciSlot, since: &Since) {
        self.since(since.id, slot.id.is_some(), &format!("{kind}.id"));
        self.since(since.iommu, slot.iommu, &format!("{kind}.iommu"));
        let segment = slot.pci_segment.is_some();
        self.since(since.segment, segment, &format!("{kind}.pci_segment"));
        let device = slot.pci_device_id.is_some();
        self.since(since.device, device, &format!("{kind}.pci_device_id"));
    }

    pub(super) fn restore(&mut self, restore: &RestoreConfig) {
        let mode = restore.memory_restore_mode.is_some();
        self.since(52, mode, "memory_restore_mode");
        self.since(52, restore.resume, "resume");
    }

    pub(super) fn send(&mut self, migration: &SendMigration) {
        self.address(&migration.destination_url);
        self.since(52, migration.downtime_ms.is_some(), "downtime_ms");
        self.since(52, migration.timeout_s.is_some(), "timeout_s");
        let strategy = migration.timeout_strategy.is_some();
        self.since(52, strategy, "timeout_strategy");
        self.since(52, migration.connections.is_some(), "connections");
        self.since(53, migration.tls_dir.is_some(), "tls_dir");
        self.memory_mode(migration.memory_mode);
    }

    pub(super) fn receive(&mut self, migration: &ReceiveMigration) {
        self.address(&migration.receiver_url);
        self.since(53, migration.tls_dir.is_some(), "tls_dir");
        self.memory_mode(migration.memory_mode);
    }

    fn memory_mode(&mut self, mode: Option<MigrationMode>) {
        self.since(53, mode.is_some(), "memory_mode");
    }

    fn address(&mut self, url: &MigrationUrl) {
        let tcp = matches!(url, MigrationUrl::Tcp(_));
        self.since(43, tcp, "migration over TCP");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(version: &str, features: &[&str]) -> Capabilities {
        Capabilities {
            version: version.parse().unwrap(),
            features: features.iter().map(ToString::to_string).collect(),
        }
    }

    /// The machine that holds only the field at `path`; a step of `0` is a list.
    fn with(path: &str, value: &Value) -> VmConfig {
        let wrapped = path
            .rsplit('.')
            .fold(value.clone(), |inner, step| match step {
                "0" => json!([inner]),
                name => json!({ name: inner }),
            });
        crate::info::decode(wrapped.to_string().as_bytes()).unwrap()
    }

    /// Every field that came after v42: its path, a value, the version that brought it.
    const LATER: &[(&str, &str, u32)] = &[
        ("cpus.nested", "false", 50),
        ("cpus.core_scheduling", r#""Vcpu""#, 52),
        ("cpus.profile", r#""Host""#, 53),
        ("cpus.max_vcpus", "256", 48),
        ("memory.reserve", "true", 53),
        ("memory.zones.0.mergeable", "true", 52),
        ("memory.zones.0.reserve", "true", 53),
        ("payload.igvm", r#""/i""#, 45),
        (
            "payload",
            r#"{"kernel":"/k","fw_cfg_config":{"e820":true}}"#,
            48,
        ),
        (
            "payload",
            r#"{"kernel":"/k","fw_cfg_config":{"items":{"item_list":[{"name":"n","string":"s"}]}}}"#,
            52,
        ),
        ("platform.iommu_address_width_bits", "48", 44),
        ("platform.sev_snp", "true", 45),
        ("platform.iommufd", "true", 52),
        ("platform.vfio_p2p_dma", "false", 52),
        ("platform.system_manufacturer", r#""m""#, 53),
        ("platform.system_product_name", r#""m""#, 53),
        ("platform.system_version", r#""m""#, 53),
        ("platform.system_family", r#""m""#, 53),
        ("platform.system_sku_number", r#""m""#, 53),
        ("platform.chassis_asset_tag", r#""m""#, 53),
        ("disks.0.sparse", "true", 51),
        ("disks.0.lock_granularity", r#""Full""#, 52),
        ("disks.0.pci_device_id", "4", 52),
        ("net.0.pci_device_id", "4", 52),
        ("pmem.0.pci_device_id", "4", 52),
        ("vdpa.0.pci_device_id", "4", 52),
        ("vsock.pci_device_id", "4", 52),
        ("fs.0.iommu", "true", 52),
        ("fs.0.pci_device_id", "4", 52),
        ("user_devices.0.iommu", "true", 52),
        ("rng.id", r#""r""#, 52),
        ("rng.pci_segment", "1", 52),
        ("console", r#"{"mode":"Pty","id":"c"}"#, 52),
        ("console", r#"{"mode":"Pty","pci_segment":1}"#, 52),
        ("balloon.id", r#""b""#, 53),
        ("balloon.pci_device_id", "4", 53),
        (
            "devices.0",
            r#"{"path":"/d","x_exclude_mmap_bars":[1]}"#,
            52,
        ),
        ("devices.0", "{}", 53),
        ("generic_vhost_user.0", "{}", 52),
        ("numa.0.device_id", r#""d""#, 51),
        ("rtc", "{}", 53),
        ("ivshmem.size", "4096", 48),
        ("ivshmem.id", r#""i""#, 53),
    ];
    const FEATURES: &[&str] = &["igvm", "sev_snp", "tdx", "fw_cfg", "ivshmem"];

    #[test]
    fn every_later_field_is_refused_before_its_version() {
        for (path, value, since) in LATER {
            let config = with(path, &serde_json::from_str(value).unwrap());
            let before = of(&format!("{}.0.0", since - 1), FEATURES);
            assert!(!before.missing(&config).is_empty(), "{path} before {since}");
            let then = of(&format!("{since}.0.0"), FEATURES);
            assert_eq!(then.missing(&config), [], "{path} in {since}");
        }
    }

    #[test]
    fn every_feature_is_asked_for() {
        for (path, value, feature) in [
            ("payload.igvm", r#""/i""#, "igvm"),
            ("payload", r#"{"igvm":"/i","host_data":"00"}"#, "sev_snp"),
            ("payload", r#"{"kernel":"/k","fw_cfg_config":{}}"#, "fw_cfg"),
            ("platform.sev_snp", "true", "sev_snp"),
            ("platform.tdx", "true", "tdx"),
            ("ivshmem.size", "4096", "ivshmem"),
        ] {
            let config = with(path, &serde_json::from_str(value).unwrap());
            let others: Vec<_> = FEATURES.iter().copied().filter(|f| *f != feature).collect();
            let missing = of("53.0.0", &others).missing(&config);
            assert_eq!(missing.len(), 1, "{path}: {missing:?}");
            assert_eq!(missing[0].needs, Needs::Feature(feature));
            assert_eq!(of("53.0.0", FEATURES).missing(&config), []);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let config = with("platform.sev_snp", &json!(true));
        let missing = of("42.0.0", &["kvm"]).missing(&config);
        let texts: Vec<String> = missing.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "platform.sev_snp needs v45.0",
                "platform.sev_snp needs a build with the feature sev_snp"
            ]
        );
    }

    #[test]
    fn what_every_version_takes_passes() {
        let config = VmConfig {
            cpus: Some(CpusConfig::fixed(2)),
            disks: vec![DiskConfig::raw("/d"), DiskConfig::qcow2("/q")],
            ..VmConfig::default()
        };
        assert_eq!(of("42.0.0", &[]).missing(&config), []);
    }

    #[test]
    fn restore_and_migration_have_later_fields_too() {
        use crate::migration::{MemoryRestoreMode, TimeoutStrategy};

        let (old, new) = (of("51.0.0", &[]), of("52.0.0", &[]));
        let plain = RestoreConfig {
            source_url: "file:///s".into(),
            prefault: true,
            ..RestoreConfig::default()
        };
        old.check_restore(&plain).unwrap();
        for restore in [
            RestoreConfig {
                resume: true,
                ..plain.clone()
            },
            RestoreConfig {
                memory_restore_mode: Some(MemoryRestoreMode::Copy),
                ..plain
            },
        ] {
            old.check_restore(&restore).unwrap_err();
            new.check_restore(&restore).unwrap();
        }
        let plain = SendMigration::default();
        of("42.0.0", &[]).check_send(&plain).unwrap();
        let tcp = MigrationUrl::Tcp("h:1".into());
        for (since, send) in [
            (
                43,
                SendMigration {
                    destination_url: tcp.clone(),
                    ..plain.clone()
                },
            ),
            (
                52,
                SendMigration {
                    downtime_ms: Some(1),
                    ..plain.clone()
                },
            ),
            (
                52,
                SendMigration {
                    timeout_s: Some(1),
                    ..plain.clone()
                },
            ),
            (
                52,
                SendMigration {
                    timeout_strategy: Some(TimeoutStrategy::Cancel),
                    ..plain.clone()
                },
            ),
            (
                52,
                SendMigration {
                    connections: Some(2),
                    ..plain.clone()
                },
            ),
            (
                53,
                SendMigration {
                    tls_dir: Some("/t".into()),
                    ..plain.clone()
                },
            ),
            (
                53,
                SendMigration {
                    memory_mode: Some(MigrationMode::Precopy),
                    ..plain
                },
            ),
        ] {
            of(&format!("{}.0.0", since - 1), &[])
                .check_send(&send)
                .unwrap_err();
            of(&format!("{since}.0.0"), &[]).check_send(&send).unwrap();
        }
        let receive = ReceiveMigration {
            receiver_url: tcp,
            ..ReceiveMigration::default()
        };
        of("42.0.0", &[]).check_receive(&receive).unwrap_err();
        let receive = ReceiveMigration {
            tls_dir: Some("/t".into()),
            ..ReceiveMigration::default()
        };
        new.check_receive(&receive).unwrap_err();
        of("53.0.0", &[]).check_receive(&receive).unwrap();
    }

    #[test]
    fn later_calls_need_their_version_or_feature() {
        for (call, since) in [("vm.resize-disk", 50), ("vm.add-generic-vhost-user", 52)] {
            of(&format!("{}.2.0", since - 1), &[])
                .check_call(call)
                .unwrap_err();
            of(&format!("{since}.0.0"), &[]).check_call(call).unwrap();
        }
        of("53.0.0", &["kvm"])
            .check_call("vm.coredump")
            .unwrap_err();
        of("42.0.0", &["guest_debug"])
            .check_call("vm.coredump")
            .unwrap();
        of("42.0.0", &[]).check_call("vm.pause").unwrap();
    }
}
