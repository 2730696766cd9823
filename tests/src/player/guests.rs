//! What runs in a virtual machine's pod: the seam between the player and whatever stands for a
//! machine in a test.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A machine as Virtink would start it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The UID of its pod, new at every start; what the other calls name it by.
    pub pod: String,
    /// The VirtualMachine's UID: cloud-init's instance-id.
    pub instance: String,
    /// The VirtualMachine's name: the machine's host name.
    pub name: String,
    /// The pod's address, which Virtink moves into the machine.
    pub address: Ipv4Addr,
    /// What its user-data Secret held as it started.
    pub user_data: Option<Vec<u8>>,
    /// Where its disk is: the pod's own, empty and gone with it, as a ContainerRootfs is; or a
    /// PersistentVolumeClaim's, which stays.
    pub disk: PathBuf,
    /// Where its logs go: the console's is `NAME.log`.
    pub logs: PathBuf,
}

/// What a Job's pod runs.
#[derive(Debug, Clone)]
pub struct Task {
    /// The UID of its pod.
    pub pod: String,
    /// The image of its container.
    pub image: String,
    /// What the container is run with; paths on its claim are where the claim is on this machine.
    pub arguments: Vec<String>,
}

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is on.
    Running,
    /// It turned itself off.
    Off,
    /// Its VMM ended, and why.
    Failed(String),
}

/// Machines that can be turned on. Calls don't block for long; they come from one thread, which is
/// in the host's network and lives as long as the player.
pub trait Guests: Send + 'static {
    /// Turns a machine on.
    ///
    /// # Errors
    ///
    /// Why it can't be; its pod then fails.
    fn start(&mut self, machine: Machine) -> Result<(), String>;
    /// How it is.
    fn state(&mut self, pod: &str) -> State;
    /// Asks it to turn itself off.
    fn press_power_button(&mut self, pod: &str);
    /// Turns it off, or ends a task, and forgets it; nothing if it is not known.
    fn stop(&mut self, pod: &str);
    /// Begins what a Job's pod runs.
    ///
    /// # Errors
    ///
    /// Why it can't be; its pod then fails.
    fn begin(&mut self, _: Task) -> Result<(), String> {
        Ok(())
    }
    /// How a task ended, or why it failed; `None` while it runs.
    fn ended(&mut self, _pod: &str) -> Option<Result<(), String>> {
        Some(Ok(()))
    }
}

/// Machines that do nothing at all, but heed their power button.
#[derive(Debug, Default)]
pub struct Nothing {
    off: Vec<String>,
}

impl Guests for Nothing {
    fn start(&mut self, _: Machine) -> Result<(), String> {
        Ok(())
    }

    fn state(&mut self, pod: &str) -> State {
        if self.off.iter().any(|off| off == pod) {
            State::Off
        } else {
            State::Running
        }
    }

    fn press_power_button(&mut self, pod: &str) {
        self.off.push(pod.to_owned());
    }

    fn stop(&mut self, pod: &str) {
        self.off.retain(|off| off != pod);
    }
}
