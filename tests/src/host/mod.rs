//! A host Kubernetes cluster for tests: the real etcd, kube-apiserver, kube-controller-manager,
//! kube-scheduler and kube-proxy, run natively in a network namespace of their own. Its nodes and
//! what runs on them are the [`player`](crate::player)'s; Virtink is real where it is installed.
//!
//! ```text
//!  the test's thread, what it starts        ┌ network namespace, gone with its last thread ┐
//!  (knest, kubectl: they inherit it) ──────►│ API 172.31.0.1:6443      lo: etcd, webhooks  │
//!                                           │ Services 10.96.0.0/16 (kube-proxy, nftables) │
//!                                           │ bridge: 172.31.0.1/24, 10.244.0.1/16 ◄─ veth ├─ a
//!                                           └──────────────────────────────────────────────┘  VM
//! ```

mod cni;
mod components;
mod network;
pub mod nodes;
mod pki;
mod plane;
mod process;
mod storage;
pub mod virtink;

pub(crate) use components::PROGRAMS;
pub(crate) use network::ip;
pub use network::{GATEWAY, HOST, Network};
pub(crate) use plane::client;
pub use plane::{Host, client_of};
pub use process::Process;
pub(crate) use process::command;
