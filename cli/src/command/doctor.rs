//! `knest doctor`: what this host can do, each line with its remedy, and which VMM that comes to.

use super::Env;
use crate::failure::{Failure, Result};
use crate::paths::Paths;
use crate::provider::local;
use crate::ui::{Output, Table};
use knest_vmm::hypervisor;
use knest_vmm::preflight::Verdict;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// How long a program may take to tell its version.
const VERSION: Duration = Duration::from_secs(10);
/// One node of the default size, and what runs it.
const MEMORY: u64 = 2560 << 20;
/// The default node image as a disk, and a machine that writes a little.
const DISK: u64 = 6 << 30;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  knest doctor\n  knest doctor -o json")]
pub(crate) struct Args {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    /// Clusters work, with something missing.
    Warning,
    /// No cluster works, or none with this VMM.
    Failure,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    name: &'static str,
    grade: Grade,
    found: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remedies: Vec<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            grade: Grade::Ok,
            found: found.into(),
            remedies: vec![],
        }
    }
    fn bad(name: &'static str, grade: Grade, found: impl Into<String>, remedy: &str) -> Self {
        Self {
            name,
            grade,
            found: found.into(),
            remedies: vec![remedy.into()],
        }
    }
    fn failed(name: &'static str, grade: Grade, failure: &Failure) -> Self {
        let hints = failure.json()["hints"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let remedies = hints
            .iter()
            .filter_map(|h| h.as_str().map(str::to_owned))
            .collect();
        Self {
            name,
            grade,
            found: failure.to_string(),
            remedies,
        }
    }
}

/// What decides which VMM can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    /// Why KVM boots no stock kernel; `None` if it does.
    no_kvm: Option<String>,
    cloud_hypervisor: bool,
    qemu: bool,
    /// What keeps every VMM from working.
    network: Option<String>,
}

/// The VMM to use and why, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Advice {
    recommended_vmm: Option<&'static str>,
    reason: String,
}

pub(crate) async fn run(_: Args, env: &Env) -> Result<()> {
    let (checks, facts) = look(&env.paths).await?;
    let advice = advise(&facts);
    match env.printer.output {
        Output::Json => env.printer.json(&serde_json::json!({
            "checks": checks,
            "recommendedVmm": advice.recommended_vmm,
            "reason": advice.reason,
        })),
        Output::Table => env.printer.answer(&render(&checks, &advice)),
    }
}

fn render(checks: &[Check], advice: &Advice) -> String {
    let mut table = Table::new(&["CHECK", "RESULT", "FOUND"]);
    for check in checks {
        // Only the first line has room; a program reads the rest.
        let found = check.found.lines().next().unwrap_or_default().to_owned();
        table.row(vec![check.name.into(), check.grade.word().into(), found]);
    }
    let mut text = table.render();
    for check in checks {
        for remedy in &check.remedies {
            text.push_str(&format!("{}: {remedy}\n", check.name));
        }
    }
    let advised = match advice.recommended_vmm {
        Some(vmm) => format!("\nUse --vmm {vmm}: {}.\n", advice.reason),
        None => format!("\nNo cluster can run here: {}.\n", advice.reason),
    };
    text + &advised
}

/// Pure. Cloud Hypervisor wherever it works; never QEMU for less than its need.
fn advise(facts: &Facts) -> Advice {
    let advice = |vmm, reason: &str| Advice {
        recommended_vmm: vmm,
        reason: reason.into(),
    };
    if let Some(network) = &facts.network {
        return advice(None, network);
    }
    match (&facts.no_kvm, facts.cloud_hypervisor, facts.qemu) {
        (None, true, _) => advice(
            Some("cloud-hypervisor"),
            "KVM boots stock kernels and Cloud Hypervisor is installed",
        ),
        (None, false, true) => advice(
            Some("qemu"),
            "KVM boots stock kernels, Cloud Hypervisor is not installed (knest setup fetches it), \
             QEMU is",
        ),
        (Some(why), _, true) => advice(
            Some("qemu"),
            &format!("{}; QEMU emulates the processor instead", brief(why)),
        ),
        (None, false, false) => advice(
            None,
            "neither Cloud Hypervisor (knest setup fetches it) nor QEMU is installed",
        ),
        (Some(why), _, false) => advice(
            None,
            &format!(
                "{}, and QEMU, which could emulate, is not installed",
                brief(why)
            ),
        ),
    }
}

/// A reason without its details, which have a line of their own.
fn brief(reason: &str) -> &str {
    reason.split(": ").next().unwrap_or(reason)
}

async fn look(paths: &Paths) -> Result<(Vec<Check>, Facts)> {
    let kvm = tokio::task::spawn_blocking(local::look_at_kvm)
        .await
        .map_err(|e| Failure::internal("a worker thread").because(e))?;
    let qemu = local::find_qemu();
    let mut checks = vec![];
    let no_kvm = match (kvm.can_run(), kvm.can_boot_stock_kernel()) {
        (_, Verdict::Yes) => {
            checks.push(Check::ok("kvm", "boots stock kernels"));
            None
        }
        (run, Verdict::No { reason }) => {
            // QEMU makes up for it.
            let grade = if qemu.is_some() {
                Grade::Warning
            } else {
                Grade::Failure
            };
            let found = match run {
                Verdict::Yes => format!("usable, but boots no stock kernel: {reason}"),
                Verdict::No { .. } => reason.clone(),
            };
            checks.push(Check::bad("kvm", grade, found, &local::kvm_remedy(&kvm)));
            Some(reason)
        }
    };
    let cloud_hypervisor = cloud_hypervisor(paths, qemu.is_some(), &mut checks).await;
    match &qemu {
        Some(path) => checks.push(Check::ok("qemu", path.display().to_string())),
        None => {
            let needed = no_kvm.is_some() || !cloud_hypervisor;
            let grade = if needed { Grade::Failure } else { Grade::Ok };
            checks.push(match grade {
                Grade::Ok => Check::ok("qemu", "not installed, and not needed"),
                _ => Check::bad("qemu", grade, "not installed", "install qemu-system-x86"),
            });
        }
    }
    let mut network = None;
    match local::find_nft() {
        Some(path) => checks.push(Check::ok("nft", path.display().to_string())),
        None => {
            network = Some("nft is not installed".to_owned());
            checks.push(Check::bad(
                "nft",
                Grade::Failure,
                "not installed",
                "install nftables",
            ));
        }
    }
    match local::find_pasta() {
        Some(path) => checks.push(Check::ok("pasta", path.display().to_string())),
        None => checks.push(Check::bad(
            "pasta",
            Grade::Warning,
            "not installed: nodes reach nothing outside",
            "install passt",
        )),
    }
    match local::namespaces().await {
        Ok(()) => checks.push(Check::ok(
            "network",
            "namespaces, bridge, TAP and nftables work",
        )),
        Err(failure) => {
            network.get_or_insert_with(|| failure.to_string());
            checks.push(Check::failed("network", Grade::Failure, &failure));
        }
    }
    checks.push(room("memory", local::memory_available()?, MEMORY));
    checks.push(room("disk", local::disk_available(&paths.state)?, DISK));
    let facts = Facts {
        no_kvm,
        cloud_hypervisor,
        qemu: qemu.is_some(),
        network,
    };
    Ok((checks, facts))
}

/// Whether it is there and answers.
async fn cloud_hypervisor(paths: &Paths, qemu: bool, checks: &mut Vec<Check>) -> bool {
    const NAME: &str = "cloud-hypervisor";
    // QEMU makes up for it.
    let grade = if qemu { Grade::Warning } else { Grade::Failure };
    let Some(path) = local::find_cloud_hypervisor(&paths.programs()) else {
        checks.push(Check::bad(
            NAME,
            grade,
            "not installed",
            "knest setup fetches it",
        ));
        return false;
    };
    match version(&path).await {
        Ok(found) => {
            checks.push(Check::ok(NAME, format!("{found}, {}", path.display())));
            true
        }
        Err(error) => {
            let found = format!("{} does not answer: {error}", path.display());
            checks.push(Check::bad(
                NAME,
                grade,
                found,
                "knest setup fetches one that does",
            ));
            false
        }
    }
}

async fn version(path: &Path) -> knest_vmm::Result<String> {
    hypervisor::version(path, VERSION)
        .await
        .map(|v| v.to_string())
}

fn room(name: &'static str, available: u64, wanted: u64) -> Check {
    let found = format!("{:.1} GiB available", gib(available));
    if available >= wanted {
        return Check::ok(name, found);
    }
    let remedy = format!("a cluster of one node takes about {:.1} GiB", gib(wanted));
    Check::bad(name, Grade::Warning, found, &remedy)
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_hypervisor_wherever_it_works() {
        let facts = |kvm: bool, cloud_hypervisor, qemu| Facts {
            no_kvm: (!kvm).then(|| "no KVM".into()),
            cloud_hypervisor,
            qemu,
            network: None,
        };
        let vmm = |facts: &Facts| advise(facts).recommended_vmm;
        assert_eq!(vmm(&facts(true, true, true)), Some("cloud-hypervisor"));
        assert_eq!(vmm(&facts(true, true, false)), Some("cloud-hypervisor"));
        assert_eq!(vmm(&facts(true, false, true)), Some("qemu"));
        assert_eq!(vmm(&facts(false, true, true)), Some("qemu"));
        assert_eq!(vmm(&facts(false, true, false)), None);
        assert_eq!(vmm(&facts(true, false, false)), None);
        let fenced = Facts {
            network: Some("no TAP".into()),
            ..facts(true, true, true)
        };
        assert_eq!(advise(&fenced).reason, "no TAP");
        assert_eq!(vmm(&fenced), None);
    }

    #[test]
    fn what_a_person_reads() {
        let checks = [
            Check::ok("nft", "/usr/sbin/nft"),
            Check::bad("pasta", Grade::Warning, "not installed", "install passt"),
        ];
        let advice = Advice {
            recommended_vmm: Some("qemu"),
            reason: "no KVM".into(),
        };
        insta::assert_snapshot!(render(&checks, &advice), @r"
        CHECK   RESULT    FOUND
        nft     ok        /usr/sbin/nft
        pasta   warning   not installed
        pasta: install passt

        Use --vmm qemu: no KVM.
        ");
    }
}
