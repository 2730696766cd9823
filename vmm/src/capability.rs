//! What a running Cloud Hypervisor can be asked, by its version and its build's features.
//!
//! Cloud Hypervisor drops fields it does not know: `sev_snp` on a build without it boots an ordinary
//! VM and says nothing. So what it would drop is refused here.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::client::BODY_LIMIT;
use crate::config::{Payload, VmConfig};
use crate::device::{DiskConfig, PciSlot};
use crate::error::{Error, Result};
use crate::info::VmmPing;

/// The oldest version this crate is written for.
pub const OLDEST: Version = Version {
    major: 42,
    minor: 0,
    patch: 0,
};

/// A version of Cloud Hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Counts releases.
    pub major: u32,
    /// Bug fixes, and now and then a field.
    pub minor: u32,
    /// Always 0 so far.
    pub patch: u32,
}

impl Version {
    /// Version `major`.0.0.
    #[must_use]
    pub const fn major(major: u32) -> Self {
        Self {
            major,
            minor: 0,
            patch: 0,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)?;
        if self.patch > 0 {
            write!(f, ".{}", self.patch)
        } else {
            Ok(())
        }
    }
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of Cloud Hypervisor")]
pub struct BadVersion(String);

impl FromStr for Version {
    type Err = BadVersion;

    /// Reads `53.0.0`, `v53.0`, `v53.0-dirty`, `v53.0-12-gabcdef`, and `cloud-hypervisor v53.0`.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.chars().take(80).collect());
        let first = text.lines().next().unwrap_or_default();
        let word = first.split_whitespace().last().ok_or_else(bad)?;
        let word = word.trim_start_matches('v');
        let numbers = word.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(str::parse::<u32>);
        let major = parts.next().and_then(Result::ok).ok_or_else(bad)?;
        let mut next = || parts.next().map_or(Ok(0), |part| part.map_err(|_| bad()));
        Ok(Self {
            major,
            minor: next()?,
            patch: next()?,
        })
    }
}

/// Something that the running version would drop, or has no call for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The field or call: `platform.sev_snp`, `vm.resize-disk`.
    pub what: String,
    /// What it takes.
    pub needs: Needs,
}

/// What a field or call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// This version or a later one.
    Version(Version),
    /// A build with this feature.
    Feature(&'static str),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.needs {
            Needs::Version(version) => write!(f, "{} needs {version}", self.what),
            Needs::Feature(feature) => {
                write!(f, "{} needs a build with the feature {feature}", self.what)
            }
        }
    }
}

/// What a running Cloud Hypervisor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Its version.
    pub version: Version,
    /// Its build's features.
    pub features: BTreeSet<String>,
}

impl Capabilities {
    /// From an answer to `vmm.ping`.
    ///
    /// # Errors
    /// When the version can't be read.
    pub fn of(ping: &VmmPing) -> Result<Self, BadVersion> {
        Ok(Self {
            version: ping.version.parse()?,
            features: ping.features.iter().cloned().collect(),
        })
    }

    /// The largest request body it takes.
    #[must_use]
    pub fn body_limit(&self) -> usize {
        if self.version.major > 53 {
            4 << 20
        } else {
            BODY_LIMIT
        }
    }

    /// Whether `vm.send-migration` answers before the migration is done.
    #[must_use]
    pub fn migrates_in_background(&self) -> bool {
        self.version.major >= 53
    }

    /// Checks that it is at least [`OLDEST`].
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn check_age(&self) -> Result<()> {
        let mut gate = Gate::new(self);
        gate.since(OLDEST.major, true, "this driver");
        self.refuse(gate.missing)
    }

    /// Checks that nothing in `config` would be dropped.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with everything that would.
    pub fn check(&self, config: &VmConfig) -> Result<()> {
        self.refuse(self.missing(config))
    }

    /// Checks one call that came with a later version: `vm.resize-disk`,
    /// `vm.add-generic-vhost-user`, `vm.coredump`.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn check_call(&self, call: &str) -> Result<()> {
        let mut gate = Gate::new(self);
        match call {
            "vm.resize-disk" => gate.since(50, true, call),
            "vm.add-generic-vhost-user" => gate.since(52, true, call),
            "vm.coredump" => gate.feature("guest_debug", true, call),
            _ => {}
        }
        self.refuse(gate.missing)
    }

    /// Checks one disk.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn check_disk(&self, disk: &DiskConfig) -> Result<()> {
        let mut gate = Gate::new(self);
        gate.disk("disk", disk);
        self.refuse(gate.missing)
    }

    /// What of `config` would be dropped.
    #[must_use]
    pub fn missing(&self, config: &VmConfig) -> Vec<Unsupported> {
        let mut gate = Gate::new(self);
        gate.config(config);
        gate.missing
    }

    fn refuse(&self, missing: Vec<Unsupported>) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::Unsupported {
            version: self.version.to_string(),
            missing,
        })
    }
}

/// Collects what is missing.
struct Gate<'a> {
    capabilities: &'a Capabilities,
    missing: Vec<Unsupported>,
}

impl<'a> Gate<'a> {
    fn new(capabilities: &'a Capabilities) -> Self {
        Self {
            capabilities,
            missing: Vec::new(),
        }
    }

    fn since(&mut self, major: u32, used: bool, what: &str) {
        if used && self.capabilities.version.major < major {
            let needs = Needs::Version(Version::major(major));
            self.missing.push(Unsupported {
                what: what.to_owned(),
                needs,
            });
        }
    }

    fn feature(&mut self, feature: &'static str, used: bool, what: &str) {
        if used && !self.capabilities.features.contains(feature) {
            let needs = Needs::Feature(feature);
            self.missing.push(Unsupported {
                what: what.to_owned(),
                needs,
            });
        }
    }

    fn config(&mut self, config: &VmConfig) {
        if let Some(cpus) = &config.cpus {
            self.since(50, cpus.nested.is_some(), "cpus.nested");
            self.since(52, cpus.core_scheduling.is_some(), "cpus.core_scheduling");
            self.since(53, cpus.profile.is_some(), "cpus.profile");
            self.since(48, cpus.max_vcpus > 255, "more than 255 vCPUs");
        }
        if let Some(memory) = &config.memory {
            let zones = &memory.zones;
            self.since(
                53,
                memory.reserve || zones.iter().any(|z| z.reserve),
                "memory.reserve",
            );
            self.since(
                52,
                zones.iter().any(|zone| zone.mergeable),
                "memory zone's mergeable",
            );
        }
        if let Some(Payload::Igvm { host_data, .. }) = &config.payload {
            self.since(45, true, "payload.igvm");
            self.feature("igvm", true, "payload.igvm");
            self.feature("sev_snp", host_data.is_some(), "payload.host_data");
        }
        for disk in &config.disks {
            self.disk("disk", disk);
        }
        self.since(
            52,
            !config.generic_vhost_user.is_empty(),
            "generic_vhost_user",
        );
        self.since(53, config.rtc.is_some(), "rtc");
        self.since(
            51,
            config.numa.iter().any(|node| node.device_id.is_some()),
            "numa.device_id",
        );
        let bars = config
            .devices
            .iter()
            .any(|device| !device.x_exclude_mmap_bars.is_empty());
        self.since(52, bars, "device's x_exclude_mmap_bars");
        self.since(
            53,
            config.devices.iter().any(|d| d.path.is_none()),
            "device without a path",
        );
        self.platform(config);
        for slot in slots(config) {
            self.since(52, slot.pci_device_id.is_some(), "pci_device_id");
        }
    }

    fn disk(&mut self, name: &str, disk: &DiskConfig) {
        // Versions before v51 guess the format and follow backing files, which is what these ask
        // for; only `backing_files: false` on an overlay would differ, and then the boot fails.
        self.since(
            51,
            disk.sparse == Some(false),
            &format!("{name}'s sparse=false"),
        );
        self.since(
            52,
            disk.lock_granularity.is_some(),
            &format!("{name}'s lock_granularity"),
        );
        self.since(
            52,
            disk.pci.pci_device_id.is_some(),
            &format!("{name}'s pci_device_id"),
        );
    }

    fn platform(&mut self, config: &VmConfig) {
        let Some(platform) = &config.platform else {
            return;
        };
        let width = platform.iommu_address_width_bits.is_some();
        self.since(44, width, "platform.iommu_address_width_bits");
        self.since(52, platform.iommufd, "platform.iommufd");
        self.since(52, platform.vfio_p2p_dma.is_some(), "platform.vfio_p2p_dma");
        let strings = [
            &platform.system_manufacturer,
            &platform.system_product_name,
            &platform.system_version,
            &platform.system_family,
            &platform.system_sku_number,
            &platform.chassis_asset_tag,
        ];
        let named = strings.iter().any(|text| text.is_some());
        self.since(53, named, "platform's SMBIOS strings");
        self.since(45, platform.sev_snp, "platform.sev_snp");
        self.feature("sev_snp", platform.sev_snp, "platform.sev_snp");
        self.feature("tdx", platform.tdx, "platform.tdx");
    }
}

/// Places of all devices but disks.
fn slots(config: &VmConfig) -> impl Iterator<Item = &PciSlot> {
    let net = config.net.iter().map(|device| &device.pci);
    let fs = config.fs.iter().map(|device| &device.pci);
    let generic = config.generic_vhost_user.iter().map(|device| &device.pci);
    let pmem = config.pmem.iter().map(|device| &device.pci);
    let vfio = config.devices.iter().map(|device| &device.pci);
    let user = config.user_devices.iter().map(|device| &device.pci);
    let vdpa = config.vdpa.iter().map(|device| &device.pci);
    let single = [
        config.rng.as_ref().map(|device| &device.pci),
        config.balloon.as_ref().map(|device| &device.pci),
        config.console.as_ref().map(|device| &device.pci),
        config.vsock.as_ref().map(|device| &device.pci),
        config.rtc.as_ref().map(|device| &device.pci),
    ];
    net.chain(fs)
        .chain(generic)
        .chain(pmem)
        .chain(vfio)
        .chain(user)
        .chain(vdpa)
        .chain(single.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CpusConfig, PlatformConfig};

    fn of(version: &str, features: &[&str]) -> Capabilities {
        Capabilities {
            version: version.parse().unwrap(),
            features: features.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn reads_versions() {
        for (text, version) in [
            ("53.0.0", Version::major(53)),
            ("v53.0-dirty", Version::major(53)),
            (
                "cloud-hypervisor v50.2\nMigration Protocol",
                Version {
                    major: 50,
                    minor: 2,
                    patch: 0,
                },
            ),
            (
                "v51.1-4-gdeadbeef",
                Version {
                    major: 51,
                    minor: 1,
                    patch: 0,
                },
            ),
        ] {
            assert_eq!(text.parse::<Version>().unwrap(), version);
        }
        for text in ["", "cloud-hypervisor", "v", "v53.x", "\u{1f600}"] {
            text.parse::<Version>().unwrap_err();
        }
    }

    #[test]
    fn refuses_what_would_be_dropped() {
        let config = VmConfig {
            cpus: Some(CpusConfig {
                nested: Some(false),
                ..CpusConfig::fixed(1)
            }),
            platform: Some(PlatformConfig {
                sev_snp: true,
                ..PlatformConfig::default()
            }),
            ..VmConfig::default()
        };
        let missing = of("42.0.0", &["kvm"]).missing(&config);
        let texts: Vec<String> = missing.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "cpus.nested needs v50.0",
                "platform.sev_snp needs v45.0",
                "platform.sev_snp needs a build with the feature sev_snp"
            ]
        );
        of("53.0.0", &["kvm", "sev_snp"]).check(&config).unwrap();
        of("53.0.0", &["kvm"]).check(&config).unwrap_err();
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
}
