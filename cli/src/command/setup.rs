//! `knest setup`: fetches Cloud Hypervisor's release into knest's cache, where it is found when
//! `PATH` has none. Nothing is kept that is not what the release says it is.

use super::Env;
use crate::failure::{Context, Failure, Result};
use crate::fetch::{fetch, find_curl, temporary};
use knest_vmm::hypervisor;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// The release that knest is tried with.
const VERSION: &str = "v53.0";
/// The forge's description of that release, which has the digest of each file.
const RELEASE: &str =
    "https://api.github.com/repos/cloud-hypervisor/cloud-hypervisor/releases/tags/v53.0";
const PROGRAM: &str = "cloud-hypervisor";
/// The statically linked one, which runs on any distribution.
const ASSET: &str = if cfg!(target_arch = "aarch64") {
    "cloud-hypervisor-static-aarch64"
} else {
    "cloud-hypervisor-static"
};

const DESCRIPTION: Duration = Duration::from_secs(30);
const DOWNLOAD: Duration = Duration::from_secs(600);
/// Neither file is larger.
const LARGEST: u64 = 256 << 20;
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  knest setup && knest doctor")]
pub(crate) struct Args {}

#[derive(Debug, Deserialize)]
struct Release {
    assets: Vec<Asset>,
}

#[derive(Clone, Debug, Deserialize)]
struct Asset {
    name: String,
    #[serde(rename = "browser_download_url")]
    url: String,
    /// `sha256:` and 64 hexadecimal digits.
    digest: Option<String>,
}

pub(crate) async fn run(_: Args, env: &Env) -> Result<()> {
    let directory = env.paths.programs();
    let program = directory.join(PROGRAM);
    if version(&program).await.is_ok_and(|v| v == VERSION) {
        return env
            .printer
            .answer(&format!("{} is there already\n", program.display()));
    }
    let otherwise = |failure: Failure| {
        failure.hint(format!(
            "put Cloud Hypervisor {VERSION} on PATH as {PROGRAM} yourself, or use --vmm qemu"
        ))
    };
    let curl = find_curl().map_err(otherwise)?;
    let temporary = temporary(&directory)?;
    env.printer
        .note(&format!("Fetching Cloud Hypervisor {VERSION} …"));
    fetch(&curl, RELEASE, &temporary, DESCRIPTION, LARGEST)
        .await
        .map_err(otherwise)?;
    let asset = asset(&fs_err::read(&temporary).host("reading the release's description")?)?;
    fetch(&curl, &asset.url, &temporary, DOWNLOAD, LARGEST)
        .await
        .map_err(otherwise)?;
    check(&temporary, &asset)?;
    let mode = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(&temporary, mode).host("making it executable")?;
    let found = version(&temporary).await.host("running what was fetched")?;
    if found != VERSION {
        return Err(Failure::host(format!(
            "the release {VERSION} holds version {found}"
        )));
    }
    temporary
        .persist(&program)
        .host("putting it in its place")?;
    env.printer.answer(&format!(
        "{} is Cloud Hypervisor {VERSION}\n",
        program.display()
    ))
}

async fn version(program: &Path) -> Result<String, knest_vmm::Error> {
    hypervisor::version(program, ANSWER)
        .await
        .map(|v| v.to_string())
}

/// The file to take, out of the release's description.
fn asset(description: &[u8]) -> Result<Asset> {
    let release: Release =
        serde_json::from_slice(description).host("reading the release's description")?;
    let asset = release.assets.into_iter().find(|a| a.name == ASSET);
    asset.ok_or_else(|| Failure::host(format!("the release {VERSION} has no file {ASSET}")))
}

/// Refuses a file that is not what the release says.
fn check(path: &Path, asset: &Asset) -> Result<()> {
    let expected = asset.digest.as_deref().ok_or_else(|| {
        Failure::host(format!("the release {VERSION} tells no digest of {ASSET}"))
    })?;
    let mut hash = Sha256::new();
    let mut file = fs_err::File::open(path).host("checking what was fetched")?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).host("checking what was fetched")? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let found = format!("sha256:{hex}");
    if found == expected {
        return Ok(());
    }
    Err(Failure::host(format!(
        "{} is not what the release says: its digest is {found}, expected {expected}",
        asset.url
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_says_what_to_take_and_what_it_must_be() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("it");
        fs_err::write(&path, "abc").unwrap();
        let described = |digest: &str| {
            let json = serde_json::json!({"assets": [
                {"name": "other", "browser_download_url": "https://x/other", "digest": null},
                {"name": ASSET, "browser_download_url": "https://x/it", "digest": digest},
            ]});
            asset(json.to_string().as_bytes()).unwrap()
        };
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(described(abc).url, "https://x/it");
        check(&path, &described(abc)).unwrap();
        assert!(
            check(&path, &described("sha256:00"))
                .unwrap_err()
                .to_string()
                .contains("digest")
        );
        let silent = Asset {
            digest: None,
            ..described(abc)
        };
        assert!(check(&path, &silent).is_err(), "nothing is taken on trust");
        assert!(asset(b"{\"assets\": []}").is_err());
        assert!(asset(b"<html>").is_err());
    }
}
