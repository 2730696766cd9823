//! Names of clusters, nodes and single VMs, checked once, where they enter.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A cluster's name: an RFC 1123 label short enough that every node's name, which begins with it,
/// still is one (63 characters), and that the sockets below its directory stay under 108 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ClusterName(String);

/// A node's name: an RFC 1123 label, unique within its cluster and never used twice there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct NodeName(String);

/// The name of a VM of its own: an RFC 1123 label as short as a cluster's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct VmName(String);

/// Longest cluster name.
pub(crate) const CLUSTER_NAME_MAX: usize = 32;

impl ClusterName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
    /// The kubeconfig's context, cluster and user for it.
    pub(crate) fn context(&self) -> String {
        format!("knest-{self}")
    }
}

impl VmName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl NodeName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a name is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NameError {
    #[error("{0:?} is longer than {1} characters")]
    TooLong(String, usize),
    #[error(
        "{0:?} is not a valid name: use lower-case letters, digits and '-', beginning with a letter and ending with a letter or a digit"
    )]
    Malformed(String),
}

fn label(text: &str, max: usize) -> Result<String, NameError> {
    if text.len() > max {
        return Err(NameError::TooLong(text.into(), max));
    }
    let bytes = text.as_bytes();
    let inner = bytes
        .iter()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    let ends = bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|b| *b != b'-');
    if inner && ends {
        Ok(text.into())
    } else {
        Err(NameError::Malformed(text.into()))
    }
}

impl FromStr for ClusterName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        label(text, CLUSTER_NAME_MAX).map(Self)
    }
}

impl FromStr for VmName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        label(text, CLUSTER_NAME_MAX).map(Self)
    }
}

impl FromStr for NodeName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        label(text, 63).map(Self)
    }
}

macro_rules! as_string {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}
as_string!(ClusterName, NodeName, VmName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_only() {
        for good in ["a", "demo", "a-1", "x".repeat(CLUSTER_NAME_MAX).as_str()] {
            assert!(good.parse::<ClusterName>().is_ok(), "{good}");
        }
        let long = "x".repeat(CLUSTER_NAME_MAX + 1);
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "1a",
            "../x",
            "a b",
            "é",
            long.as_str(),
        ] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }
}
