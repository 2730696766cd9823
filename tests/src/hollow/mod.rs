//! Hollow nodes: machines without a kernel of their own, in which user-data really runs. kubeadm is
//! the node image's, and so are the programs of static pods; systemctl and kubelet are replaced. No
//! other container runs: the hollow kubelet says of each pod that it does.
//!
//! ```text
//!  the player's thread       ┌ node: network, mount, PID and UTS namespaces ─────────────────┐
//!  Hollow ── start, stop ───►│ boot ─► init ─► user-data ─► kubeadm ─► systemctl ─► kubelet   │
//!                            │                 /etc/kubernetes/manifests: etcd, … ◄┘          │
//!  host's bridge ◄── veth ───│ eth0: the pod's address, everything by way of the host         │
//!                            │ /: overlayfs over the node image's disk; gone with the pod     │
//!                            └ all of it ends with its first process, and that with the test ┘
//! ```

mod guests;
mod image;
mod node;

pub use guests::Hollow;
pub(crate) use image::{PROGRAMS, missing};
