//! Finds the facts: runs programs for their versions, tries namespaces, asks the kernel.

use super::facts::{Facts, Place, Program, Refusal};
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::provider::local;
use crate::vm::find_virtiofsd;
use knest_vmm::preflight::Host;
use knest_vmm::virtiofsd::flavor;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long a program may take to tell its version.
const VERSION: Duration = Duration::from_secs(10);

/// All of it, what takes its time at once.
pub(super) async fn look(paths: &Paths) -> Result<Facts> {
    let kernel = tokio::task::spawn_blocking(|| (local::look_at_kvm(), Host::inspect()));
    let virtiofsd = find_virtiofsd(&paths.programs()).ok();
    let (kernel, cloud_hypervisor, qemu, nft, pasta, virtiofsd, flavor, network) = tokio::join!(
        kernel,
        program(local::find_cloud_hypervisor(&paths.programs())),
        program(local::find_qemu()),
        program(local::find_nft()),
        program(local::find_pasta()),
        program(virtiofsd.clone()),
        async { flavor(virtiofsd.as_deref()?, VERSION).await.ok() },
        local::namespaces(),
    );
    let (kvm, host) = kernel.map_err(|e| Failure::internal("a worker thread").because(e))?;
    Ok(Facts {
        kvm,
        host,
        cloud_hypervisor,
        qemu,
        nft,
        pasta,
        virtiofsd,
        flavor,
        network: network.map_err(|failure| Refusal {
            reason: failure.to_string(),
            remedies: failure.hints().to_vec(),
        }),
        root: rustix::process::geteuid().is_root(),
        obstacles: obstacles(),
        memory: local::memory_available()?,
        state: place(&paths.state)?,
    })
}

/// What keeps others than the super-user from namespaces and devices.
fn obstacles() -> Vec<String> {
    let mut obstacles = local::namespace_obstacles();
    for (device, remedy) in [
        (
            "/dev/kvm",
            "give users /dev/kvm: sudo usermod -aG kvm USER, or sudo chmod 666 /dev/kvm",
        ),
        (
            "/dev/net/tun",
            "let users make TAP devices: sudo chmod 666 /dev/net/tun",
        ),
    ] {
        // A group may be anybody's; only a device that is root's alone is surely closed.
        let mode = fs_err::metadata(device).map(|meta| meta.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o066 == 0) {
            obstacles.push(remedy.into());
        }
    }
    obstacles
}

/// A place that need not exist yet.
fn place(path: &Path) -> Result<Place> {
    use rustix::fs::{Access, access};
    let exists = path.ancestors().find(|ancestor| ancestor.exists());
    let writable =
        exists.is_some_and(|there| access(there, Access::WRITE_OK | Access::EXEC_OK).is_ok());
    Ok(Place {
        path: path.to_owned(),
        writable,
        room: local::disk_available(path)?,
    })
}

async fn program(path: Option<PathBuf>) -> Program {
    let Some(path) = path else {
        return Program::Missing;
    };
    match version(&path).await {
        Ok(version) => Program::Found { path, version },
        Err(failure) => Program::Silent {
            path,
            error: failure.to_string(),
        },
    }
}

async fn version(path: &Path) -> Result<String> {
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let late = |_| Failure::timeout(format!("no answer within {} s", VERSION.as_secs()));
    let output = tokio::time::timeout(VERSION, output).await.map_err(late)?;
    let output = output.host("starting it")?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if !output.status.success() {
        let said = text.lines().next().unwrap_or_default();
        return Err(Failure::host(format!("{}: {said}", output.status)));
    }
    // Debian's pasta has none.
    Ok(version_in(&text).unwrap_or_else(|| "unknown version".into()))
}

/// The first word with a number in it: `QEMU emulator version 7.2.22 (Debian …)`, `nftables v1.0.6`,
/// `cloud-hypervisor v53.0`, `pasta 0.0~git20230309.7c7625d`.
fn version_in(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_ascii_whitespace();
    words
        .find(|word| word.contains(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (line, version) in [
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright",
                "7.2.22",
            ),
            ("nftables v1.0.6 (Lester Gooch #5)", "v1.0.6"),
            ("cloud-hypervisor v53.0", "v53.0"),
            ("pasta 0.0~git20230309", "0.0~git20230309"),
        ] {
            assert_eq!(version_in(line).as_deref(), Some(version));
        }
        assert_eq!(version_in("usage: what\n2 things"), None);
        assert_eq!(version_in(""), None);
    }

    #[tokio::test]
    async fn programs_that_are_none() {
        assert_eq!(program(None).await, Program::Missing);
        let silent = |program: Program| matches!(program, Program::Silent { .. });
        assert!(silent(program(Some("/dev/null".into())).await));
        assert!(silent(program(Some("/bin/false".into())).await));
    }

    #[test]
    fn a_place_that_is_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        let found = place(&dir.path().join("a/b")).unwrap();
        assert!(found.writable && found.room > 0);
    }
}
