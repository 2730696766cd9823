//! Files over HTTPS, by the host's curl: it knows this machine's proxies and authorities.

use crate::failure::{Context, Failure, Result};
use crate::paths::find_program;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::{NamedTempFile, TempPath};
use tokio::process::Command;

const CONNECT: Duration = Duration::from_secs(10);

/// The program.
pub(crate) fn find_curl() -> Result<PathBuf> {
    find_program("curl", None, None).ok_or_else(|| Failure::host("curl is not installed"))
}

/// Fetches a file of at most so many bytes, following redirections.
pub(crate) async fn fetch(
    curl: &Path,
    url: &str,
    to: &Path,
    limit: Duration,
    largest: u64,
) -> Result<()> {
    let output = Command::new(curl)
        .args([
            "--fail",
            "--location",
            "--silent",
            "--show-error",
            "--proto",
            "=https",
        ])
        .args(["--connect-timeout", &CONNECT.as_secs().to_string()])
        .args(["--max-time", &limit.as_secs().to_string()])
        .args(["--max-filesize", &largest.to_string()])
        .arg("--output")
        .arg(to)
        .args(["--", url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .host("running curl")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().last().unwrap_or("no reason given");
    Err(Failure::host(format!("{url} can't be had: {said}")))
}

/// Where a file can be fetched to: in this directory, made if need be, and gone after its use.
pub(crate) fn temporary(directory: &Path) -> Result<TempPath> {
    let what = "making a file in knest's cache";
    fs_err::create_dir_all(directory).host(what)?;
    let file = tempfile::Builder::new()
        .prefix(".fetched-")
        .tempfile_in(directory);
    file.map(NamedTempFile::into_temp_path).host(what)
}
