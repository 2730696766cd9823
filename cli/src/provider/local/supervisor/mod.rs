//! One process a cluster that lives as long as the cluster's machines should: it is inside their
//! namespace, starts and watches their VMMs, and balances their API.
//!
//! ```text
//! knest create … ──(supervisor.sock: one JSON line each way)──► control ─► machines ─► VMMs
//! 127.0.0.1:PORT ─┐                                                           │
//! GATEWAY:6443  ──┴─► balancer ◄── addresses of control planes ───────────────┘
//!                        └◄─────── which of them are ready: health
//! ```
//!
//! It may be killed at any moment: VMMs and pasta go on, and the next supervisor finds them in the
//! state directory. It never writes the record and reads only the endpoint, the range and the keys in
//! it.

mod balancer;
mod client;
mod control;
mod health;
mod machines;
mod policy;
mod protocol;
mod run;

pub(crate) use client::{answering, ensure, power_off, remove, start, stop};
pub(crate) use run::run;
