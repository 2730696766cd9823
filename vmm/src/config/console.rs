//! Serial port, virtio-console and debug port.
//!
//! A mode carries its own data because Cloud Hypervisor *panics* on `{"mode":"File"}` without a
//! file. What each mode costs:
//!
//! | mode | behaviour |
//! |---|---|
//! | `Tty` | guest bytes go to Cloud Hypervisor's stdout; with stdout on a file opened for appending nothing is lost and nothing stalls, over reboots too |
//! | `File` | the file is truncated at every boot and every reboot |
//! | `Pty` | the path appears in `vm.info` after create and may change at each boot |
//! | `Socket` | serial only; the path outlives a killed Cloud Hypervisor and blocks the next one |

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::device::PciSlot;

/// Where the 16550 serial port (ttyS0) goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode")]
#[non_exhaustive]
pub enum SerialConfig {
    /// No port.
    Off,
    /// A port whose output is dropped.
    #[default]
    Null,
    /// Cloud Hypervisor's own stdout and stdin.
    Tty,
    /// A pseudo terminal.
    Pty {
        /// Its path; answers only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<PathBuf>,
    },
    /// A file, truncated at every boot.
    File {
        /// Its path.
        file: PathBuf,
    },
    /// A Unix socket on which Cloud Hypervisor listens, for one client at a time.
    Socket {
        /// Its path, shorter than 108 bytes.
        socket: PathBuf,
    },
    /// A mode this crate does not know; answers only.
    #[serde(other)]
    Unknown,
}

/// virtio-console (hvc0).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleConfig {
    /// Where it goes.
    #[serde(flatten)]
    pub mode: ConsoleMode,
    /// Its place on the PCI bus.
    #[serde(flatten)]
    pub pci: PciSlot,
}

impl ConsoleConfig {
    /// No virtio-console.
    #[must_use]
    pub fn off() -> Self {
        Self {
            mode: ConsoleMode::Off,
            ..Self::default()
        }
    }

    /// A pseudo terminal, whose path is in `vm.info` after create.
    #[must_use]
    pub fn pty() -> Self {
        Self {
            mode: ConsoleMode::Pty { file: None },
            ..Self::default()
        }
    }
}

/// Where virtio-console goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode")]
#[non_exhaustive]
pub enum ConsoleMode {
    /// No device.
    #[default]
    Off,
    /// A device whose output is dropped.
    Null,
    /// Cloud Hypervisor's own stdout and stdin.
    Tty,
    /// A pseudo terminal.
    Pty {
        /// Its path; answers only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<PathBuf>,
    },
    /// A file, truncated at every boot.
    File {
        /// Its path.
        file: PathBuf,
    },
    /// A mode this crate does not know; answers only.
    #[serde(other)]
    Unknown,
}

/// The debug port (x86-64).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugConsoleConfig {
    /// Where it goes.
    #[serde(flatten)]
    pub mode: DebugConsoleMode,
    /// The I/O port; 0xe9 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iobase: Option<u16>,
}

/// Where the debug port goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode")]
#[non_exhaustive]
pub enum DebugConsoleMode {
    /// No port.
    #[default]
    Off,
    /// Cloud Hypervisor's own stdout.
    Tty,
    /// A pseudo terminal.
    Pty {
        /// Its path; answers only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<PathBuf>,
    },
    /// A file, truncated at every boot.
    File {
        /// Its path.
        file: PathBuf,
    },
    /// A mode this crate does not know; answers only.
    #[serde(other)]
    Unknown,
}
