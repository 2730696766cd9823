//! The answer, for people and for programs.

use super::advice::Advice;
use super::check::Check;
use crate::ui::Table;

/// Every line, then every remedy, then the VMM to use.
pub(super) fn table(checks: &[Check], advice: &Advice) -> String {
    let mut text = lines(checks);
    if let Some(vmm) = advice.recommended_vmm {
        text.push_str(&format!("\nUse --vmm {vmm}: {}.\n", advice.reason));
    }
    text
}

/// Every line, then every remedy.
pub(super) fn lines(checks: &[Check]) -> String {
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
    text
}

/// The same as one object.
pub(super) fn json(checks: &[Check], advice: &Advice) -> serde_json::Value {
    serde_json::json!({
        "checks": checks,
        "recommendedVmm": advice.recommended_vmm,
        "reason": advice.reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_reads() {
        let checks = [
            Check::ok("nft", "/usr/sbin/nft"),
            Check::warning("pasta", "not installed", "install passt"),
        ];
        let advice = Advice {
            recommended_vmm: Some("qemu"),
            reason: "no KVM".into(),
        };
        insta::assert_snapshot!(table(&checks, &advice), @r"
        CHECK   RESULT    FOUND
        nft     ok        /usr/sbin/nft
        pasta   warning   not installed
        pasta: install passt

        Use --vmm qemu: no KVM.
        ");
    }
}
