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

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Host;
use crate::background::Background;
use scene::{Scene, Setting};

/// Plays until it is dropped, which ends its guests.
#[derive(Debug)]
pub struct Player {
    lost: Lost,
    _work: Background,
}

/// Nodes that have lost their power.
#[derive(Debug, Clone, Default)]
struct Lost(Arc<Mutex<BTreeSet<String>>>);

impl Lost {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has(&self, node: Option<&str>) -> bool {
        node.is_some_and(|node| self.with(|lost| lost.contains(node)))
    }
}

impl Player {
    /// Starts to play on a host that has Virtink's definitions, from a thread in its network.
    /// `controller` says that virt-controller is real.
    #[must_use]
    pub fn start(host: &Host, controller: bool, guests: impl Guests) -> Self {
        let lost = Lost::default();
        let setting = Setting {
            lost: lost.clone(),
            directory: host.directory().join("pods"),
            logs: host.logs(),
            controller,
            guests: Box::new(guests),
        };
        let play = |client, stopped| Scene::play(client, setting, stopped);
        Self {
            lost,
            _work: Background::start("player", host.kubeconfig(), play),
        }
    }

    /// From now on nothing is heard of a node of the host, nor of what is on it.
    pub fn lose(&self, node: &str) {
        self.lost.with(|lost| lost.insert(node.to_owned()));
    }

    /// It is heard of again.
    pub fn regain(&self, node: &str) {
        self.lost.with(|lost| lost.remove(node));
    }
}
