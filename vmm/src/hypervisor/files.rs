//! The files of one VM: where they are, what is left in them, and which paths can't work.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::log;
use crate::process::{Death, ExitReason};
use crate::validate::{Problem, SOCKET_PATH, settle};

/// Lines of each log that a report of a death keeps.
const TAIL_LINES: usize = 20;

/// The files of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The API socket, at most 107 bytes.
    pub api_socket: PathBuf,
    /// The event monitor's file.
    pub events: PathBuf,
    /// stdout: the guest's serial port when its mode is `Tty`.
    pub serial_log: PathBuf,
    /// stderr: Cloud Hypervisor's own log.
    pub vmm_log: PathBuf,
}

impl Files {
    /// The usual names in `dir`, which should be private to the user.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            api_socket: dir.join("api.sock"),
            events: dir.join("events.json"),
            serial_log: dir.join("serial.log"),
            vmm_log: dir.join("vmm.log"),
        }
    }

    /// Removes the sockets, which a killed Cloud Hypervisor leaves behind. The logs stay.
    ///
    /// # Errors
    /// When one is there and can't be removed.
    pub fn unlink_sockets(&self) -> Result<()> {
        let mut lock = self.api_socket.clone().into_os_string();
        lock.push(".lock");
        unlink(&self.api_socket)?;
        unlink(Path::new(&lock))
    }

    /// The end of a process that used these files.
    #[must_use]
    pub fn death(&self, exit: ExitReason) -> Death {
        Death {
            exit,
            stderr_tail: log::tail(&self.vmm_log, TAIL_LINES),
            serial_tail: log::tail(&self.serial_log, TAIL_LINES),
        }
    }
}

pub(crate) fn unlink(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Refuses paths that can't work.
pub(super) fn check_paths(files: &Files) -> Result<()> {
    if files.api_socket.as_os_str().len() > SOCKET_PATH {
        return Err(Error::SocketPath {
            path: files.api_socket.clone(),
        });
    }
    let mut problems = Vec::new();
    for (field, path) in [("api_socket", &files.api_socket), ("events", &files.events)] {
        // Its option parser splits and quotes at these.
        if path
            .to_string_lossy()
            .contains([',', '"', '[', ']', '\u{fffd}'])
        {
            problems.push(Problem {
                field: field.to_owned(),
                reason: format!("Cloud Hypervisor can't take {path:?} on its command line"),
            });
        }
    }
    settle(problems)
}

/// Removes a socket that nobody serves; versions up to v52 would fail on it.
pub(super) fn clear_stale(files: &Files) -> Result<()> {
    match std::os::unix::net::UnixStream::connect(&files.api_socket) {
        Ok(_) => Err(Error::io(
            format!("take {}", files.api_socket.display()),
            io::Error::new(io::ErrorKind::AddrInUse, "another process serves it"),
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => unlink(&files.api_socket),
        Err(_) => Ok(()),
    }
}
