//! Collecting what is wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};

/// The longest path of a Unix socket, without the closing zero.
pub const SOCKET_PATH: usize = 107;

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `net[0].tap`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// Nothing, or [`Error::Invalid`].
pub(crate) fn settle(problems: Vec<Problem>) -> Result<()> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { problems })
    }
}

#[derive(Default)]
pub(super) struct Check {
    pub(super) found: Vec<Problem>,
    ids: BTreeSet<String>,
}

impl Check {
    pub(super) fn wrong(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.found.push(Problem {
            field: field.into(),
            reason: reason.into(),
        });
    }

    pub(super) fn wrong_if(&mut self, is: bool, field: impl Into<String>, reason: &str) {
        if is {
            self.wrong(field, reason);
        }
    }

    /// An identifier, unique over all kinds of device.
    pub(super) fn id(&mut self, field: &str, id: Option<&str>) {
        let Some(id) = id else { return };
        let field = format!("{field}.id");
        if id.is_empty() {
            self.wrong(field, "is empty");
        } else if id.starts_with('_') {
            self.wrong(
                field,
                format!("{id:?} begins with `_`, as Cloud Hypervisor's own do"),
            );
        } else if !self.ids.insert(id.to_owned()) {
            self.wrong(field, format!("{id:?} is taken"));
        }
    }

    pub(super) fn socket(&mut self, field: &str, path: &Path) {
        let length = path.as_os_str().len();
        if length == 0 || length > SOCKET_PATH {
            self.wrong(
                field,
                format!("has {length} bytes, and a socket's path has 1 … {SOCKET_PATH}"),
            );
        }
    }
}
