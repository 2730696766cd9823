//! How a test says that it is skipped. Shared with the tests of knest itself.

use std::io::Write;

/// Says why `test` is skipped, where `make test` counts it too.
#[allow(
    clippy::allow_attributes,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "shared by tests of either kind, which differ in what they may do"
)]
pub(crate) fn skip(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}\n");
    eprint!("{line}");
    if let Some(skips) = std::env::var_os("KNEST_SKIPS") {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(skips);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}
