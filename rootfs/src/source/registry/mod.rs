//! Images in a registry that speaks the OCI distribution protocol: pulled as a [`BlobSource`],
//! pushed by [`push`].
//!
//! ```text
//! client   which endpoints, resolving a name, blobs by address         push   uploads
//!    │                                                                   │
//! blob     a body as a reader: resumed where it broke off ──────────┐    │
//! session  authorisation, and waiting: what is tried again, how long ◀┴────┘
//! transport  one request: TLS, redirections, time limits
//! ```
//! Everything blocks its caller; the sockets live on a small runtime of the registry's own.
//! Neither this machine's environment nor its files are looked at, but for the system's
//! certificate authorities and the credential files that the options name.
//!
//! [`BlobSource`]: crate::BlobSource

mod blob;
mod challenge;
mod client;
mod credentials;
mod options;
mod problem;
mod push;
mod session;
mod text;
mod transport;
mod waiting;

pub use client::Registry;
pub use options::{Patience, RegistryOptions};
pub use problem::RegistryProblem;
pub use push::{Pushed, push};
