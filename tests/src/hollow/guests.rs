//! All hollow nodes of a test, as the player turns them on and off.

use std::collections::BTreeMap;
use std::path::Path;

use super::image;
use super::node::{Files, Node};
use crate::player::{Guests, Machine, State};

/// Guests that are hollow nodes. Beside their consoles' logs there are those of kubelet and of
/// static pods, `NAME/*.log`.
#[derive(Debug)]
pub struct Hollow {
    files: Files,
    nodes: BTreeMap<String, Node>,
    /// How many there have been.
    count: u32,
}

impl Hollow {
    /// The node image's disk is made, if that was not done before.
    ///
    /// # Panics
    ///
    /// Where [`Need::Hollow`](crate::Need) is not met.
    #[must_use]
    pub fn new() -> Self {
        Self {
            files: Files {
                image: image::disk(),
                kubelet: image::kubelet().expect("the hollow kubelet"),
            },
            nodes: BTreeMap::new(),
            count: 0,
        }
    }

    /// Where a machine's root is, while it is on: as this process sees it, and only for it to read.
    #[must_use]
    pub fn root(&self, pod: &str) -> Option<&Path> {
        self.nodes.get(pod).map(Node::root)
    }
}

impl Default for Hollow {
    fn default() -> Self {
        Self::new()
    }
}

impl Guests for Hollow {
    /// A machine without user-data would never do anything: it is refused.
    fn start(&mut self, machine: Machine) -> Result<(), String> {
        self.count += 1;
        let node = Node::start(&self.files, &machine, self.count)?;
        self.nodes.insert(machine.pod, node);
        Ok(())
    }

    fn state(&mut self, pod: &str) -> State {
        match self.nodes.get_mut(pod) {
            Some(node) => node.state(),
            None => State::Failed("there is no such machine".to_owned()),
        }
    }

    fn press_power_button(&mut self, pod: &str) {
        if let Some(node) = self.nodes.get_mut(pod) {
            node.press_power_button();
        }
    }

    fn stop(&mut self, pod: &str) {
        drop(self.nodes.remove(pod));
    }
}
