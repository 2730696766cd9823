//! How to talk to registries: whom to trust, where else to look, how long to wait.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How to talk to registries. The default is HTTPS by the system's authorities, without credentials.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Docker's `config.json` and containers' `auth.json`, the first that knows a registry decides.
    /// Those that do not exist are passed over.
    pub credentials: Vec<PathBuf>,
    /// Where else a registry's images may be had, tried in order before the registry itself:
    /// `docker.io` → `mirror.example`, `http://127.0.0.1:5000`, `harbor.example/proxy`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts, with their ports, that are spoken to without TLS; nobody else is.
    pub plain_http: BTreeSet<String>,
    /// PEM files of authorities to trust beside the system's.
    pub authorities: Vec<PathBuf>,
    /// How long to wait.
    pub patience: Patience,
    /// Set to true, it ends what is under way in milliseconds.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// When to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection and its TLS handshake.
    pub connect: Duration,
    /// For the next bytes, once connected.
    pub idle: Duration,
    /// For any progress at all, attempts and the pauses between them included.
    pub total: Duration,
    /// The pause before the second attempt; every later one is twice as long, up to 64 times.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(120),
            pause: Duration::from_millis(250),
        }
    }
}
