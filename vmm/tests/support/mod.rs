//! What the tests against the real Cloud Hypervisor share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::allow_attributes,
    reason = "shared by test binaries, of which each uses its own part"
)]

pub(crate) mod guest;
mod skip;

use std::path::{Path, PathBuf};
use std::time::Duration;

use guest::Guest;
use knest_vmm::config::{ConsoleConfig, CpusConfig, MemoryConfig, Payload, SerialConfig, VmConfig};
use knest_vmm::device::FsConfig;
use knest_vmm::hypervisor::Launch;
use knest_vmm::wait::{Seen, wait_until};
pub(crate) use skip::skip;

/// The Cloud Hypervisor to test with, or `None` after saying why `test` is skipped.
pub(crate) fn cloud_hypervisor(test: &str) -> Option<PathBuf> {
    let missing = match (find(), kvm_usable()) {
        (Some(binary), true) => return Some(binary),
        (None, _) => "no cloud-hypervisor in $KNEST_CLOUD_HYPERVISOR or on PATH",
        (_, false) => "/dev/kvm can't be opened",
    };
    let required = std::env::var("KNEST_REQUIRE").unwrap_or_default();
    assert!(
        !required
            .split(',')
            .any(|need| matches!(need.trim(), "vm" | "all")),
        "{test}: {missing}"
    );
    skip(test, missing);
    None
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KNEST_CLOUD_HYPERVISOR") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("cloud-hypervisor"))
        .find(|file| file.is_file())
}

fn kvm_usable() -> bool {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

/// Processes whose command line names `dir`.
pub(crate) fn processes_of(dir: &Path) -> Vec<i32> {
    let dir = dir.to_str().unwrap();
    let named = |path: &Path| {
        std::fs::read(path.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(dir))
    };
    let entries = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| named(path))
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect()
}

/// A failed test leaves no VM behind.
impl Drop for Bench {
    fn drop(&mut self) {
        for pid in processes_of(self.dir.path()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// A directory for one VM, with its guest in it.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) binary: PathBuf,
}

impl Bench {
    pub(crate) fn new(test: &str) -> Option<Self> {
        let binary = cloud_hypervisor(test)?;
        Some(Self {
            dir: tempfile::tempdir().unwrap(),
            binary,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn launch(&self) -> Launch {
        Launch::new(&self.binary, self.path())
    }

    pub(crate) fn kernel(&self, guest: Guest) -> PathBuf {
        let path = self.path().join(format!("{guest:?}.elf"));
        std::fs::write(&path, guest::elf(guest)).unwrap();
        path
    }

    pub(crate) fn config(&self, guest: Guest) -> VmConfig {
        config(self.kernel(guest))
    }

    pub(crate) async fn serial_has(&self, text: &str) {
        let path = self.path().join("serial.log");
        wait_until(
            "text on the serial port",
            Duration::from_secs(20),
            Duration::from_millis(2),
            || {
                let seen = knest_vmm::log::tail(&path, 20);
                let found = seen.contains(text);
                async move {
                    Ok(if found {
                        Seen::Done(())
                    } else {
                        Seen::NotYet(seen)
                    })
                }
            },
        )
        .await
        .unwrap();
    }
}

pub(crate) fn config(kernel: PathBuf) -> VmConfig {
    VmConfig {
        cpus: Some(CpusConfig::fixed(1)),
        memory: Some(MemoryConfig::of(128 << 20)),
        payload: Some(Payload::kernel(kernel, "")),
        serial: Some(SerialConfig::Tty),
        console: Some(ConsoleConfig::off()),
        ..VmConfig::default()
    }
}

/// The same with a shared directory, whose virtiofsd listens on `socket`.
pub(crate) fn sharing(config: VmConfig, socket: &Path) -> VmConfig {
    VmConfig {
        memory: Some(MemoryConfig {
            shared: true,
            ..MemoryConfig::of(128 << 20)
        }),
        fs: vec![FsConfig {
            tag: "share".into(),
            socket: socket.to_owned(),
            ..FsConfig::default()
        }],
        ..config
    }
}

/// Every virtiofsd of this machine.
pub(crate) fn virtiofsds() -> Vec<PathBuf> {
    let named = std::env::var_os("KNEST_VIRTIOFSD").map(PathBuf::from);
    let usual = [
        "/usr/libexec/virtiofsd",
        "/usr/lib/virtiofsd",
        "/usr/lib/qemu/virtiofsd",
    ];
    let found = named.into_iter().chain(usual.map(PathBuf::from));
    found.filter(|path| path.is_file()).collect()
}
