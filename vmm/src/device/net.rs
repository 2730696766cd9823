//! virtio-net.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{PciSlot, RateLimiterConfig};
use crate::serde_skip::is_false;

/// A network interface. Queues count both directions, so `num_queues` is twice the pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct NetConfig {
    /// Name and place.
    pub pci: PciSlot,
    /// What stands behind it.
    pub backend: NetBackend,
    /// The guest's MAC address, `02:…`; a random one when unset.
    pub mac: Option<String>,
    /// The MTU offered to the guest.
    pub mtu: Option<u16>,
    /// Receive plus transmit queues; 2 when unset.
    pub num_queues: Option<usize>,
    /// Entries of a queue; 256 when unset.
    pub queue_size: Option<u16>,
    /// Limits.
    pub rate_limiter_config: Option<RateLimiterConfig>,
    /// TCP segmentation offload; on when unset.
    pub offload_tso: Option<bool>,
    /// UDP fragmentation offload; on when unset.
    pub offload_ufo: Option<bool>,
    /// Checksum offload; on when unset.
    pub offload_csum: Option<bool>,
}

impl NetConfig {
    /// An interface on the TAP device `tap`, which exists already and is in Cloud Hypervisor's
    /// network namespace.
    #[must_use]
    pub fn tap(tap: impl Into<String>, mac: impl Into<String>) -> Self {
        Self {
            backend: NetBackend::Tap {
                name: tap.into(),
                ip: None,
                mask: None,
                host_mac: None,
            },
            mac: Some(mac.into()),
            ..Self::default()
        }
    }
}

/// What stands behind a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetBackend {
    /// A TAP device by name, up to 15 bytes. Cloud Hypervisor makes it if it may and it is missing.
    Tap {
        /// The device's name.
        name: String,
        /// An address to give the host's end.
        ip: Option<IpAddr>,
        /// Its netmask.
        mask: Option<IpAddr>,
        /// The host end's MAC address.
        host_mac: Option<String>,
    },
    /// A TAP device that Cloud Hypervisor makes and names (`vmtapN`).
    NewTap {
        /// An address to give the host's end. Below v49 unset means 192.168.249.1.
        ip: Option<IpAddr>,
        /// Its netmask.
        mask: Option<IpAddr>,
        /// The host end's MAC address.
        host_mac: Option<String>,
    },
    /// TAP or macvtap descriptors, one a queue pair, sent beside a `vm.add-net` request. `vm.create`
    /// drops descriptors, so create the VM without this interface and add it before booting.
    Fds(Vec<i32>),
    /// A vhost-user back end; it needs shared memory or huge pages.
    VhostUser {
        /// Its socket.
        socket: PathBuf,
        /// Who connects.
        mode: VhostMode,
    },
}

impl Default for NetBackend {
    fn default() -> Self {
        Self::NewTap {
            ip: None,
            mask: None,
            host_mac: None,
        }
    }
}

/// Who connects to a vhost-user socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum VhostMode {
    /// Cloud Hypervisor connects.
    #[default]
    Client,
    /// Cloud Hypervisor listens.
    Server,
    /// Something this crate does not know; answers only.
    #[serde(other)]
    Unknown,
}

/// The flat form of the API.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(flatten)]
    pci: PciSlot,
    #[serde(skip_serializing_if = "Option::is_none")]
    tap: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_queues: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_size: Option<u16>,
    #[serde(skip_serializing_if = "is_false")]
    vhost_user: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    vhost_socket: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vhost_mode: Option<VhostMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fds: Option<Vec<i32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter_config: Option<RateLimiterConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offload_tso: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offload_ufo: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offload_csum: Option<bool>,
}

impl From<Wire> for NetConfig {
    fn from(wire: Wire) -> Self {
        let backend = match (wire.vhost_user, wire.fds, wire.tap) {
            (true, ..) => NetBackend::VhostUser {
                socket: wire.vhost_socket.unwrap_or_default(),
                mode: wire.vhost_mode.unwrap_or_default(),
            },
            (false, Some(fds), _) if !fds.is_empty() => NetBackend::Fds(fds),
            (false, _, Some(name)) => NetBackend::Tap {
                name,
                ip: wire.ip,
                mask: wire.mask,
                host_mac: wire.host_mac,
            },
            (false, _, None) => NetBackend::NewTap {
                ip: wire.ip,
                mask: wire.mask,
                host_mac: wire.host_mac,
            },
        };
        Self {
            pci: wire.pci,
            backend,
            mac: wire.mac,
            mtu: wire.mtu,
            num_queues: wire.num_queues,
            queue_size: wire.queue_size,
            rate_limiter_config: wire.rate_limiter_config,
            offload_tso: wire.offload_tso,
            offload_ufo: wire.offload_ufo,
            offload_csum: wire.offload_csum,
        }
    }
}

impl From<NetConfig> for Wire {
    fn from(net: NetConfig) -> Self {
        let mut wire = Self {
            pci: net.pci,
            mac: net.mac,
            mtu: net.mtu,
            num_queues: net.num_queues,
            queue_size: net.queue_size,
            rate_limiter_config: net.rate_limiter_config,
            offload_tso: net.offload_tso,
            offload_ufo: net.offload_ufo,
            offload_csum: net.offload_csum,
            ..Self::default()
        };
        match net.backend {
            NetBackend::Tap {
                name,
                ip,
                mask,
                host_mac,
            } => {
                wire.tap = Some(name);
                (wire.ip, wire.mask, wire.host_mac) = (ip, mask, host_mac);
            }
            NetBackend::NewTap { ip, mask, host_mac } => {
                (wire.ip, wire.mask, wire.host_mac) = (ip, mask, host_mac);
            }
            NetBackend::Fds(fds) => wire.fds = Some(fds),
            NetBackend::VhostUser { socket, mode } => {
                wire.vhost_user = true;
                wire.vhost_socket = Some(socket);
                wire.vhost_mode = Some(mode);
            }
        }
        wire
    }
}
