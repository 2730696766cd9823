//! A cluster's network, all of it inside one network namespace:
//!
//! ```text
//! host │ 127.0.0.1:PORT ─┐ (opened before the namespace is entered)
//!      │                 │ balancer, in the supervisor
//! ─────┼─────────────────┼──────────────────────────────────────────────
//!  ns  │   GATEWAY:6443 ─┘
//!      │   knest0 (bridge, GATEWAY/PREFIX) ── tapADDRESS ── machine
//!      │        │                          └─ tapADDRESS ── machine
//!      │   masquerade (nftables) ── outside ── pasta ── host's sockets
//! ```
//!
//! Knows nothing of machines or clusters' life: addresses and names are given.

mod entry;
mod link;
mod namespace;
mod nft;
mod pasta;
mod way_out;

pub(crate) use crate::cluster::address::gateway;
pub(crate) use entry::{Entry, NETWORK, Network, enter, leftover};
pub(crate) use link::Links;
pub(crate) use namespace::{create, obstacles, remedies};
pub(crate) use nft::install as install_masquerade;
pub(crate) use pasta::{DNS_FORWARD, find as find_pasta};
pub(crate) use way_out::watch as watch_way_out;

use std::net::Ipv4Addr;

/// The bridge inside the namespace.
pub(crate) const BRIDGE: &str = "knest0";

/// Where the API is reached inside, on the gateway's address.
pub(crate) const API_PORT: u16 = 6443;

/// The TAP of the machine with this address; unique in the namespace, 11 characters.
pub(crate) fn tap_name(address: Ipv4Addr) -> String {
    format!("tap{:08x}", u32::from(address))
}
