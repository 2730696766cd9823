//! Provider `virtink`: machines as VirtualMachines on a host Kubernetes cluster, which schedules
//! them. All that a cluster consists of is in one namespace there, its record included, so any
//! machine that reaches the host can work on it.
//!
//! ```text
//! provider ──► store, lock, index     the record, who works on it, where it is
//!    │    ──► preflight               what this host can do
//!    │    ──► endpoint                the API's Service and its addresses
//!    │    ──► watch, console          machines as they are
//!    │    ──► complaints              what they wait for
//!    │    ──► persistent ─► cni       what machines that stay need of the host: its network,
//!    │        claim, fill ─► disk     addresses of their own, and disks
//!    │    ──► rest                    what only they can: be off, and on again
//!    └──────► objects ──► api         what is asked of the host; Virtink's own types
//!   install                           what a host needs first; apart from the rest
//!   all through host: one kubeconfig context, its calls bounded and its errors explained
//! ```

mod api;
mod claim;
mod cni;
mod complaints;
mod console;
mod disk;
mod endpoint;
mod fill;
mod host;
mod index;
mod install;
mod lock;
mod objects;
mod persistent;
mod preflight;
mod provider;
mod rest;
mod store;
mod survey;
mod watch;
mod write;

pub(crate) use host::{Host, HostName, current_context};
pub(crate) use index::{Place, read as places};
pub(crate) use install::{Sources, install};
pub(crate) use persistent::{Wishes, resolve};
pub(crate) use provider::Virtink;
pub(crate) use survey::{Line, survey};

/// As whom knest writes objects.
const FIELD_MANAGER: &str = "knest";
