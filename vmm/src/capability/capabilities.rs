//! The version and features of one running Cloud Hypervisor, and the questions to ask them.

use std::collections::BTreeSet;
use std::fmt;

use super::gate::Gate;
use super::{BadVersion, OLDEST, Version};
use crate::client::BODY_LIMIT;
use crate::config::VmConfig;
use crate::error::{Error, Result};
use crate::info::VmmPing;
use crate::migration::{ReceiveMigration, RestoreConfig, SendMigration};

/// Something that the running version would drop, or has no call for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The field or call: `platform.sev_snp`, `vm.resize-disk`.
    pub what: String,
    /// What it takes.
    pub needs: Needs,
}

/// What a field or call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// This version or a later one.
    Version(Version),
    /// A build with this feature.
    Feature(&'static str),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.needs {
            Needs::Version(version) => write!(f, "{} needs {version}", self.what),
            Needs::Feature(feature) => {
                write!(f, "{} needs a build with the feature {feature}", self.what)
            }
        }
    }
}

/// What a running Cloud Hypervisor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Its version.
    pub version: Version,
    /// Its build's features.
    pub features: BTreeSet<String>,
}

impl Capabilities {
    /// From an answer to `vmm.ping`.
    ///
    /// # Errors
    /// When the version can't be read.
    pub fn of(ping: &VmmPing) -> Result<Self, BadVersion> {
        Ok(Self {
            version: ping.version.parse()?,
            features: ping.features.iter().cloned().collect(),
        })
    }

    /// The largest request body it takes.
    #[must_use]
    pub fn body_limit(&self) -> usize {
        if self.version.major > 53 {
            4 << 20
        } else {
            BODY_LIMIT
        }
    }

    /// Whether `vm.send-migration` answers before the migration is done.
    #[must_use]
    pub fn migrates_in_background(&self) -> bool {
        self.version.major >= 53
    }

    /// Checks that it is at least [`OLDEST`].
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn check_age(&self) -> Result<()> {
        self.check_with(|gate| gate.since(OLDEST.major, true, "this driver"))
    }

    /// Checks that nothing in `config` would be dropped.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with everything that would.
    pub fn check(&self, config: &VmConfig) -> Result<()> {
        self.check_with(|gate| gate.config(config))
    }

    /// Checks one call that came with a later version: `vm.resize-disk`,
    /// `vm.add-generic-vhost-user`, `vm.coredump`.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn check_call(&self, call: &str) -> Result<()> {
        self.check_with(|gate| gate.call(call))
    }

    /// Checks what a restore asks for.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn check_restore(&self, restore: &RestoreConfig) -> Result<()> {
        self.check_with(|gate| gate.restore(restore))
    }

    /// Checks what a migration's source asks for.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn check_send(&self, migration: &SendMigration) -> Result<()> {
        self.check_with(|gate| gate.send(migration))
    }

    /// Checks what a migration's destination asks for.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn check_receive(&self, migration: &ReceiveMigration) -> Result<()> {
        self.check_with(|gate| gate.receive(migration))
    }

    /// What of `config` would be dropped.
    #[must_use]
    pub fn missing(&self, config: &VmConfig) -> Vec<Unsupported> {
        let mut gate = Gate::new(self);
        gate.config(config);
        gate.missing
    }

    fn check_with(&self, look: impl FnOnce(&mut Gate<'_>)) -> Result<()> {
        let mut gate = Gate::new(self);
        look(&mut gate);
        if gate.missing.is_empty() {
            return Ok(());
        }
        Err(Error::Unsupported {
            version: self.version.to_string(),
            missing: gate.missing,
        })
    }
}
