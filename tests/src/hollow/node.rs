//! One hollow node: its namespaces, its link to the host's bridge, its first process. All ends on
//! drop; where the test is killed, the kernel ends it.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

use crate::host::{GATEWAY, Network, Process, command, ip};
use crate::player::{Machine, State};
use crate::wait;

/// What makes a node, and what of it is replaced.
const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hollow/boot");
/// Where `boot` has the node's root, in the node's mount namespace.
const ROOT: &str = "/mnt/root";
/// How long a node may take to end before it is killed: it has nothing to save.
const END: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(5);

/// What every node is made of.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) image: PathBuf,
    pub(super) kubelet: PathBuf,
}

/// A node that was turned on.
#[derive(Debug)]
pub(super) struct Node {
    /// `unshare`, which is in the node's mount namespace, and ends when the node has.
    process: Process,
    _network: Network,
    link: String,
    root: PathBuf,
}

impl Node {
    /// Turns a machine on; `number` tells its link from all others'. From a thread in the host's
    /// network, on which the node depends.
    pub(super) fn start(files: &Files, machine: &Machine, number: u32) -> Result<Self, String> {
        let Some(user_data) = &machine.user_data else {
            return Err(format!("{} has no user-data", machine.name));
        };
        let logs = machine.logs.join(&machine.name);
        fs::create_dir_all(&logs).map_err(|error| error.to_string())?;
        keep(&machine.disk.join("user-data"), user_data).map_err(|error| error.to_string())?;
        let network = Network::empty();
        let link = format!("node{number}");
        connect(&network, &link, machine.address);
        let mut boot = command("unshare");
        boot.args(["--mount", "--uts", "--pid", "--fork", "--kill-child"])
            .args(["--", BOOT, &machine.name, &machine.instance])
            .args([&files.image, &machine.disk, &logs, &files.kubelet]);
        let process = Process::start(&network, &machine.logs, &machine.name, boot);
        let root = format!("/proc/{}/root{ROOT}", process.id()).into();
        Ok(Self {
            process,
            _network: network,
            link,
            root,
        })
    }

    pub(super) fn state(&mut self) -> State {
        match self.process.status() {
            None => State::Running,
            Some(status) if status.success() => State::Off,
            Some(_) => State::Failed(self.process.ended().unwrap_or_default()),
        }
    }

    /// Nothing if it has ended, when its number may be another process's.
    pub(super) fn press_power_button(&mut self) {
        if self.process.status().is_some() {
            return;
        }
        let process = self.process.id();
        let mut kill = command("nsenter");
        kill.arg(format!("--pid=/proc/{process}/ns/pid_for_children"))
            .args(["sh", "-c", "kill -TERM 1"])
            .stdin(Stdio::null());
        // It may end meanwhile.
        drop(kill.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }

    /// As this process sees it.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Node {
    /// Its processes are gone when it returns, so that what they wrote can be removed.
    fn drop(&mut self) {
        self.press_power_button();
        wait::within(END, INTERVAL, || self.process.status().is_some());
        let mut delete = Command::new("ip");
        delete.args(["link", "delete", &self.link]);
        // The namespace may have taken it along.
        drop(delete.stderr(Stdio::null()).status());
    }
}

/// User-data is secret.
fn keep(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true);
    options.mode(0o600).open(path)?.write_all(text)
}

/// As a CNI does that has every pod reach every other by way of its host.
fn connect(network: &Network, link: &str, address: Ipv4Addr) {
    let namespace = network.path();
    let namespace = namespace.display();
    ip(&format!(
        "link add {link} type veth peer name eth0 netns {namespace}
        link set {link} master pods up
        "
    ));
    network.run(move || {
        ip(&format!(
            "link set lo up
            link set eth0 up
            address add {address}/32 dev eth0
            route add {GATEWAY} dev eth0
            route add default via {GATEWAY}
            "
        ));
    });
}
