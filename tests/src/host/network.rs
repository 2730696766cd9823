//! A network namespace, and the thread that makes it and starts everything inside. Threads that
//! enter it, and what they start from then on, see only it.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use fs_err as fs;
use nix::sched::{CloneFlags, setns, unshare};

/// The host's nodes: the API server and kube-proxy listen here.
pub const HOST: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
/// The pods' way out, on the bridge that their links are in. Their range is a /16.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

/// What `ip -batch` is told. Everything unknown is on the bridge, where it gets no answer: without
/// a route the kernel would refuse a Service's address before kube-proxy's rules could rewrite it.
const LINKS: &str = "
link set lo up
link add pods type bridge
link set pods up
address add 172.31.0.1/24 dev pods
address add 10.244.0.1/16 dev pods
route add default dev pods
";

/// Pods reach each other through the host alone, which is not to tell them of a shorter way: theirs
/// would leave out kube-proxy's rules.
const SETTINGS: [(&str, &str); 3] = [
    ("ip_forward", "1"),
    ("conf/all/send_redirects", "0"),
    ("conf/pods/send_redirects", "0"),
];

type Order = Box<dyn FnOnce() + Send>;

/// The namespace; it is gone when this, and what was started in it, is.
#[derive(Debug)]
pub struct Network {
    namespace: File,
    orders: Option<Sender<Order>>,
    keeper: Option<JoinHandle<()>>,
}

impl Network {
    /// A host's: with its bridge. Only root can make it.
    #[must_use]
    pub fn new() -> Self {
        let network = Self::empty();
        network.run(|| {
            ip(LINKS);
            for (name, value) in SETTINGS {
                fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect("a setting");
            }
        });
        network
    }

    /// One with nothing in it.
    pub(crate) fn empty() -> Self {
        let (orders, inbox) = channel();
        let (ready, made) = channel();
        let keeper = thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || keep(&ready, &inbox))
            .expect("a thread");
        let namespace = made
            .recv()
            .expect("a network namespace, which only root can make");
        Self {
            namespace,
            orders: Some(orders),
            keeper: Some(keeper),
        }
    }

    /// Where other processes can open it while it is there.
    pub(crate) fn path(&self) -> PathBuf {
        let (process, file) = (std::process::id(), self.namespace.as_raw_fd());
        format!("/proc/{process}/fd/{file}").into()
    }

    /// Moves the calling thread in. Threads and processes that it starts afterwards are inside too.
    pub fn enter(&self) {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("entering the network namespace");
    }

    /// Calls a function on a thread inside that lives as long as this does: a process that is to
    /// end with the thread that started it is started so.
    pub fn run<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let order: Order = Box::new(move || drop(answer.send(call())));
        let orders = self.orders.as_ref().expect("the thread inside");
        orders.send(order).expect("the thread inside");
        answered.recv().expect("the thread inside panicked")
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(keeper) = self.keeper.take() {
            drop(keeper.join());
        }
    }
}

fn keep(ready: &Sender<File>, inbox: &Receiver<Order>) {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        return;
    }
    let namespace = File::open("/proc/thread-self/ns/net").expect("this thread's namespace");
    if ready.send(namespace).is_err() {
        return;
    }
    for order in inbox {
        order();
    }
}

/// Has `ip` do everything in `batch`, in the calling thread's namespace.
pub(crate) fn ip(batch: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ip, of iproute2");
    let mut input = child.stdin.take().expect("its standard input");
    input
        .write_all(batch.as_bytes())
        .expect("its standard input");
    drop(input);
    let output = child.wait_with_output().expect("ip's end");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip -batch: {text}{batch}");
}
