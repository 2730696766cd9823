//! What was found, and what it means.

use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kvm_ioctls::{Cap, Kvm};

use super::{Outcome, Probe};

/// The only version that KVM's API ever had since it is stable.
const API_VERSION: i32 = 12;

/// What Cloud Hypervisor refuses to start without on x86-64.
const REQUIRED: &[(Cap, &str)] = &[
    (Cap::AdjustClock, "AdjustClock"),
    (Cap::ExtCpuid, "ExtCpuid"),
    (Cap::GetTscKhz, "GetTscKhz"),
    (Cap::ImmediateExit, "ImmediateExit"),
    (Cap::Ioeventfd, "Ioeventfd"),
    (Cap::Irqchip, "Irqchip"),
    (Cap::Irqfd, "Irqfd"),
    (Cap::IrqRouting, "IrqRouting"),
    (Cap::MpState, "MpState"),
    (Cap::SetIdentityMapAddr, "SetIdentityMapAddr"),
    (Cap::SetTssAddr, "SetTssAddr"),
    (Cap::SplitIrqchip, "SplitIrqchip"),
    (Cap::TscDeadlineTimer, "TscDeadlineTimer"),
    (Cap::UserMemory, "UserMemory"),
    (Cap::UserNmi, "UserNmi"),
    (Cap::VcpuEvents, "VcpuEvents"),
    (Cap::Xsave, "Xsave"),
];

/// Modules that make a KVM on x86.
const MODULES: &[&str] = &["kvm_intel", "kvm_amd", "kvm_pvm"];

/// Settings of the modules that decide what a guest can do and how fast.
const SETTINGS: &[&str] = &["nested", "ept", "npt"];

/// Whether a device opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It does.
    Granted,
    /// There is no such device. KVM's: no hardware virtualisation, switched off, or the module is
    /// missing.
    Missing,
    /// There is, and this user may not open it.
    Denied,
    /// Something else.
    Failed(String),
}

impl Access {
    pub(super) fn refused(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => Self::Missing,
            Some(libc::EACCES | libc::EPERM) => Self::Denied,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// How large a VM can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// vCPUs that KVM recommends at most.
    pub recommended_vcpus: usize,
    /// vCPUs that KVM allows at most.
    pub max_vcpus: usize,
    /// Memory slots of a VM.
    pub memory_slots: usize,
}

/// An answer with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can.
    Yes,
    /// It can't.
    No {
        /// Why.
        reason: String,
    },
}

impl Verdict {
    /// Whether it can.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }

    fn no(reason: impl Into<String>) -> Self {
        Self::No {
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::No { reason } => write!(f, "no: {reason}"),
        }
    }
}

/// What a host's KVM is and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The device.
    pub device: PathBuf,
    /// Whether it opens.
    pub access: Access,
    /// Its API's version, when it opens.
    pub api_version: Option<i32>,
    /// Capabilities that Cloud Hypervisor needs and KVM lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// How large a VM can be.
    pub limits: Limits,
    /// Whether KVM can save all of a vCPU's state.
    pub nested_state: bool,
    /// Which of `kvm_intel`, `kvm_amd` and `kvm_pvm` are there.
    pub modules: Vec<&'static str>,
    /// How these are set, as `nested=1`: nested virtualisation, second-level paging.
    pub settings: Vec<String>,
    /// What the guests came to; empty when there was nothing to run them on.
    pub probes: Vec<(Probe, Outcome)>,
}

/// Looks at the KVM device at `device`, usually `/dev/kvm`. Never fails: what is wrong is in the report.
#[must_use]
pub fn inspect(device: &Path) -> Report {
    let directory = |name: &str| Path::new("/sys/module").join(name);
    let modules = MODULES.iter().copied();
    let modules: Vec<_> = modules.filter(|name| directory(name).exists()).collect();
    let mut report = Report {
        device: device.to_owned(),
        access: Access::Granted,
        api_version: None,
        missing_capabilities: Vec::new(),
        limits: Limits::default(),
        nested_state: false,
        settings: modules
            .iter()
            .flat_map(|name| settings(&directory(name)))
            .collect(),
        modules,
        probes: Vec::new(),
    };
    let open = || {
        let path = CString::new(device.as_os_str().as_bytes()).map_err(|_| libc::EINVAL)?;
        Kvm::new_with_path(&path).map_err(|error| error.errno())
    };
    let kvm = match open() {
        Ok(kvm) => kvm,
        Err(errno) => {
            report.access = Access::refused(std::io::Error::from_raw_os_error(errno));
            return report;
        }
    };
    report.api_version = Some(kvm.get_api_version());
    if report.api_version != Some(API_VERSION) {
        return report;
    }
    let missing = REQUIRED
        .iter()
        .filter(|(cap, _)| !kvm.check_extension(*cap));
    report.missing_capabilities = missing.map(|(_, name)| *name).collect();
    report.limits = Limits {
        recommended_vcpus: kvm.get_nr_vcpus(),
        max_vcpus: kvm.get_max_vcpus(),
        memory_slots: kvm.get_nr_memslots(),
    };
    report.nested_state = kvm.check_extension_int(Cap::NestedState) > 0;
    for probe in Probe::ALL {
        let outcome = open().map_or_else(
            |errno| Outcome::Failed(std::io::Error::from_raw_os_error(errno).to_string()),
            |kvm| probe.run(kvm),
        );
        report.probes.push((probe, outcome));
    }
    report
}

fn settings(module: &Path) -> Vec<String> {
    let setting = |name: &&str| {
        let value = std::fs::read_to_string(module.join("parameters").join(name)).ok()?;
        Some(format!("{name}={}", value.trim()))
    };
    SETTINGS.iter().filter_map(setting).collect()
}

impl Report {
    /// Whether Cloud Hypervisor starts and runs code here at all.
    #[must_use]
    pub fn can_run(&self) -> Verdict {
        let device = self.device.display();
        match &self.access {
            Access::Granted => {}
            Access::Missing => return Verdict::no(format!("{device} is missing")),
            Access::Denied => return Verdict::no(format!("no permission to open {device}")),
            Access::Failed(error) => return Verdict::no(format!("{device}: {error}")),
        }
        match self.api_version {
            Some(API_VERSION) => {}
            Some(other) => {
                return Verdict::no(format!(
                    "{device} has API version {other}, not {API_VERSION}"
                ));
            }
            None => return Verdict::no(format!("{device} is no KVM device")),
        }
        if !self.missing_capabilities.is_empty() {
            return Verdict::no(format!(
                "KVM lacks {}",
                self.missing_capabilities.join(", ")
            ));
        }
        self.probed(&[Probe::RealMode, Probe::LongMode])
    }

    /// Whether a distribution's Linux kernel boots here.
    #[must_use]
    pub fn can_boot_stock_kernel(&self) -> Verdict {
        if let no @ Verdict::No { .. } = self.can_run() {
            return no;
        }
        let software = self.modules == ["kvm_pvm"];
        match self.probed(&[Probe::KernelMode]) {
            Verdict::No { reason } if software => {
                Verdict::no(format!("this KVM is kvm_pvm, a software one: {reason}"))
            }
            Verdict::Yes if software => Verdict::no(
                "this KVM is kvm_pvm, a software one, which runs only kernels built for it",
            ),
            verdict => verdict,
        }
    }

    /// Whether snapshots and migration can work: Cloud Hypervisor saves nested state always.
    #[must_use]
    pub fn can_snapshot(&self) -> Verdict {
        match self.can_run() {
            Verdict::Yes if !self.nested_state => {
                Verdict::no("KVM can't save nested state, which Cloud Hypervisor always asks for")
            }
            verdict => verdict,
        }
    }

    /// Whether guests have page tables of their own in hardware; without, they run at a fraction of the
    /// processor's speed.
    #[must_use]
    pub fn pages_in_hardware(&self) -> Verdict {
        let off = ["ept=N", "npt=N", "ept=0", "npt=0"];
        let mut settings = self.settings.iter();
        match settings.find(|setting| off.contains(&setting.as_str())) {
            Some(setting) => Verdict::no(format!("second-level paging is off ({setting})")),
            None => Verdict::Yes,
        }
    }

    fn probed(&self, wanted: &[Probe]) -> Verdict {
        for (probe, outcome) in &self.probes {
            if wanted.contains(probe) && *outcome != Outcome::Passed {
                return Verdict::no(match probe {
                    Probe::KernelMode => {
                        format!("a kernel's ordinary instructions fail: a guest {outcome}")
                    }
                    _ => format!("a guest of a few instructions {outcome}"),
                });
            }
        }
        Verdict::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            device: "/dev/kvm".into(),
            access: Access::Granted,
            api_version: Some(API_VERSION),
            missing_capabilities: Vec::new(),
            limits: Limits::default(),
            nested_state: true,
            modules: vec!["kvm_amd"],
            settings: vec!["nested=1".into(), "npt=Y".into()],
            probes: Probe::ALL.map(|probe| (probe, Outcome::Passed)).to_vec(),
        }
    }

    #[test]
    fn an_ordinary_host_can_do_everything() {
        let report = report();
        assert!(report.can_run().is_yes());
        assert!(report.can_boot_stock_kernel().is_yes());
        assert!(report.can_snapshot().is_yes());
    }

    #[test]
    fn each_lack_has_its_reason() {
        let no = |report: &Report| report.can_boot_stock_kernel().to_string();
        let mut it = report();
        it.access = Access::Denied;
        assert_eq!(no(&it), "no: no permission to open /dev/kvm");
        let mut it = report();
        it.missing_capabilities = vec!["Xsave"];
        assert_eq!(no(&it), "no: KVM lacks Xsave");
        let mut it = report();
        it.modules = vec!["kvm_pvm"];
        it.probes[2].1 = Outcome::Failed("stopped at int3 (a breakpoint): InternalError".into());
        assert!(it.can_run().is_yes());
        assert!(no(&it).contains("kvm_pvm") && no(&it).contains("int3"));
        it.modules = vec!["kvm_intel"];
        assert!(!it.can_boot_stock_kernel().is_yes());
        let mut it = report();
        it.nested_state = false;
        assert!(it.can_boot_stock_kernel().is_yes() && !it.can_snapshot().is_yes());
        assert!(it.pages_in_hardware().is_yes());
        it.settings = vec!["npt=N".into()];
        assert!(!it.pages_in_hardware().is_yes());
    }

    #[test]
    fn looks_at_whatever_is_there() {
        assert_eq!(inspect(Path::new("/nowhere/kvm")).access, Access::Missing);
        let null = inspect(Path::new("/dev/null"));
        assert!(!null.can_run().is_yes(), "{null:?}");
    }
}
