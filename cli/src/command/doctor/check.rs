//! One line of what was found.

use crate::failure::Failure;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grade {
    Ok,
    /// Clusters and VMs work, with something missing.
    Warning,
    /// No cluster works, or none with this VMM.
    Failure,
}

impl Grade {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) grade: Grade,
    pub(super) found: String,
    /// What would help; never empty unless all is well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) remedies: Vec<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            grade: Grade::Ok,
            found: found.into(),
            remedies: vec![],
        }
    }

    pub(super) fn warning(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::bad(name, Grade::Warning, found, remedy)
    }

    pub(super) fn failure(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::bad(name, Grade::Failure, found, remedy)
    }

    /// What a look ended with, with its hints.
    pub(super) fn failed(name: &'static str, grade: Grade, failure: &Failure) -> Self {
        Self {
            name,
            grade,
            found: failure.to_string(),
            remedies: failure.hints().to_vec(),
        }
    }

    pub(super) fn bad(
        name: &'static str,
        grade: Grade,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            name,
            grade,
            found: found.into(),
            remedies: vec![remedy.into()],
        }
    }
}
