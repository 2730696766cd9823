//! Where manifests are: files, or URLs whose content is kept for as long as it is read.

use super::manifest::{LARGEST, Manifest};
use crate::failure::{Failure, Result};
use crate::fetch::{fetch, find_curl, temporary};
use crate::paths::Paths;
use std::io::Read;
use std::time::Duration;

/// The release that knest is tried with.
const VIRTINK: &str =
    "https://github.com/smartxworks/virtink/releases/download/v0.17.0/virtink.yaml";
/// One that makes what Virtink's manifest asks of it.
const CERT_MANAGER: &str =
    "https://github.com/cert-manager/cert-manager/releases/download/v1.21.1/cert-manager.yaml";

const DOWNLOAD: Duration = Duration::from_secs(120);

/// The manifests, each a path or an `https://` URL; the releases' own where none is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Sources {
    /// Virtink's manifest, a file or a URL [default: v0.17.0's, from its release]
    #[arg(long, value_name = "FILE", help_heading = "Installing Virtink")]
    virtink_manifest: Option<String>,
    /// cert-manager's manifest, a file or a URL [default: v1.21.1's, from its release]
    #[arg(long, value_name = "FILE", help_heading = "Installing Virtink")]
    cert_manager_manifest: Option<String>,
}

impl Sources {
    /// The first flag that is given.
    pub(crate) fn flag(&self) -> Option<&'static str> {
        let given = [
            ("--virtink-manifest", self.virtink_manifest.is_some()),
            (
                "--cert-manager-manifest",
                self.cert_manager_manifest.is_some(),
            ),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(f, _)| f)
    }

    pub(super) async fn virtink(&self, paths: &Paths) -> Result<Manifest> {
        let given = self.virtink_manifest.as_deref();
        read(given.unwrap_or(VIRTINK), "--virtink-manifest", paths).await
    }

    pub(super) async fn cert_manager(&self, paths: &Paths) -> Result<Manifest> {
        let given = self.cert_manager_manifest.as_deref();
        let place = given.unwrap_or(CERT_MANAGER);
        read(place, "--cert-manager-manifest", paths).await
    }
}

async fn read(place: &str, flag: &str, paths: &Paths) -> Result<Manifest> {
    if !place.starts_with("https://") {
        return Manifest::parse(&file(place)?, place);
    }
    let otherwise = |failure: Failure| {
        failure.hint(format!(
            "fetch it where that can be done, and name the file: {flag} FILE"
        ))
    };
    let curl = find_curl().map_err(otherwise)?;
    let temporary = temporary(&paths.cache)?;
    fetch(&curl, place, &temporary, DOWNLOAD, LARGEST)
        .await
        .map_err(otherwise)?;
    Manifest::parse(&file(&temporary.to_string_lossy())?, place)
}

fn file(path: &str) -> Result<String> {
    let mut text = String::new();
    let read = fs_err::File::open(path).and_then(|file| {
        let mut bounded = file.take(LARGEST);
        bounded.read_to_string(&mut text)
    });
    read.map_err(|e| Failure::usage(format!("the manifest {path} can't be read")).because(e))?;
    Ok(text)
}
