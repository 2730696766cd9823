//! Plays what a host cluster has and the test host lacks: its nodes' kubelets, Virtink's
//! virt-daemon on each of them and, where the real one is absent, virt-controller. It keeps their
//! contracts, so that what is on the API looks and changes as on a real host; what a machine does
//! once it is on is its [`Guests`]'.
//!
//! ```text
//!  VirtualMachine  ""─►Pending─►Scheduling──────────────►Scheduled─►Running─►Succeeded, Failed
//!                   └── virt-controller ──┘ makes the pod    ▲  └ virt-daemon ┘     (pod deleted)
//!  its pod                            Pending ─► on a node ─► Running ─► Succeeded, Failed
//!                                     └─ kubelet: volumes, address, guest, probe ─┘
//! ```
//!
//! Everything is looked at again whenever something has changed and every half second, and acted
//! upon as it is found; so nothing is lost when a call fails.

mod controller;
mod daemon;
mod guests;
mod kubelet;
mod pod;
mod scene;
mod task;

pub use guests::{Guests, Machine, Nothing, State, Task};

use crate::Host;
use crate::background::Background;
use scene::{Scene, Setting};

/// Plays until it is dropped, which ends its guests.
#[derive(Debug)]
pub struct Player {
    _work: Background,
}

impl Player {
    /// Starts to play on a host that has Virtink's definitions, from a thread in its network.
    /// `controller` says that virt-controller is real.
    #[must_use]
    pub fn start(host: &Host, controller: bool, guests: impl Guests) -> Self {
        let setting = Setting {
            directory: host.directory().join("pods"),
            logs: host.logs(),
            controller,
            guests: Box::new(guests),
        };
        let play = |client, stopped| Scene::play(client, setting, stopped);
        Self {
            _work: Background::start("player", host.kubeconfig(), play),
        }
    }
}
