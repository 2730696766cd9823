//! The player's machines, of both kinds.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use super::join::Join;
use super::worker;
use crate::Hollow;
use crate::player::{Guests, Machine, State};

/// Guests of which workers are played, and control planes [`Hollow`].
#[derive(Debug)]
pub struct Crowd {
    hollow: Hollow,
    /// By pod; whether its button was pressed.
    workers: BTreeMap<String, bool>,
    stage: Option<Stage>,
}

/// The thread that plays all workers, from when there is one: it has to be in the host's network.
#[derive(Debug)]
struct Stage {
    orders: UnboundedSender<Order>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    Enter(String, Join, Ipv4Addr),
    Leave(String),
}

impl Crowd {
    /// As [`Hollow::new`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            hollow: Hollow::new(),
            workers: BTreeMap::new(),
            stage: None,
        }
    }

    fn order(&mut self, order: Order) {
        let stage = self.stage.get_or_insert_with(|| {
            let (orders, inbox) = unbounded_channel();
            let thread = std::thread::Builder::new().name("crowd".to_owned());
            let thread = thread.spawn(move || play(inbox)).expect("a thread");
            Stage { orders, thread }
        });
        // It ends only with this.
        drop(stage.orders.send(order));
    }
}

impl Default for Crowd {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(stage) = self.stage.take() {
            drop(stage.orders);
            drop(stage.thread.join());
        }
    }
}

impl Guests for Crowd {
    fn start(&mut self, machine: Machine) -> Result<(), String> {
        let Some(join) = machine.user_data.as_deref().and_then(Join::of) else {
            return self.hollow.start(machine);
        };
        self.workers.insert(machine.pod.clone(), false);
        self.order(Order::Enter(machine.pod, join, machine.address));
        Ok(())
    }

    fn state(&mut self, pod: &str) -> State {
        match self.workers.get(pod) {
            Some(true) => State::Off,
            Some(false) => State::Running,
            None => self.hollow.state(pod),
        }
    }

    fn press_power_button(&mut self, pod: &str) {
        match self.workers.get_mut(pod) {
            Some(off) => {
                *off = true;
                self.order(Order::Leave(pod.to_owned()));
            }
            None => self.hollow.press_power_button(pod),
        }
    }

    fn stop(&mut self, pod: &str) {
        match self.workers.remove(pod) {
            Some(_) => self.order(Order::Leave(pod.to_owned())),
            None => self.hollow.stop(pod),
        }
    }
}

fn play(mut inbox: UnboundedReceiver<Order>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    LocalSet::new().block_on(&runtime, async move {
        let mut on = BTreeMap::new();
        while let Some(order) = inbox.recv().await {
            match order {
                Order::Enter(pod, join, address) => {
                    let task = spawn_local(worker::live(join, address));
                    drop(on.insert(pod, task));
                }
                Order::Leave(pod) => {
                    if let Some(task) = on.remove(&pod) {
                        task.abort();
                    }
                }
            }
        }
    });
}
