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

use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use guests::{Guests, Machine, Nothing, State};

use crate::Host;
use scene::{Scene, Setting};

/// Plays until it is dropped, which ends its guests.
#[derive(Debug)]
pub struct Player {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Player {
    /// Starts to play on a host that has Virtink's definitions, from a thread in its network.
    /// `controller` says that virt-controller is real.
    #[must_use]
    pub fn start(host: &Host, controller: bool, guests: impl Guests) -> Self {
        let (stop, stopped) = oneshot::channel();
        let kubeconfig = host.kubeconfig();
        let setting = Setting {
            directory: host.directory().join("pods"),
            logs: host.logs(),
            controller,
            guests: Box::new(guests),
        };
        let thread = std::thread::Builder::new()
            .name("player".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    let client = crate::host::client(&kubeconfig).await;
                    Scene::play(client, setting, stopped).await;
                });
            })
            .expect("a thread");
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
