//! Clusters of hundreds: control planes are hollow nodes, and all workers are played by one thread
//! that does on the cluster's API what kubelets do there: ask for a certificate, be a Node, renew
//! its Lease.
//!
//! ```text
//!  user-data ─► JoinConfiguration of a worker ─► bootstrap token ─► CSR ─► Node ─► Lease, Lease, …
//!          └──► anything else ─► Hollow
//! ```

mod guests;
mod join;
mod worker;

pub use guests::Crowd;
