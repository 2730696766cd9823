//! Kubernetes versions: which are asked for, which knest can make.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A Kubernetes release, `v1.37.2`; ordered as releases are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

/// What `create` takes without `--kubernetes-version`.
pub(crate) const DEFAULT: Version = Version {
    major: 1,
    minor: 37,
    patch: 2,
};

/// The oldest minor version whose kubeadm reads the documents that knest writes (v1beta4).
pub(crate) const OLDEST_MINOR: u32 = 31;

/// Why a version is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum VersionError {
    #[error("{0:?} is not a Kubernetes version like {DEFAULT}")]
    Malformed(String),
    #[error(
        "Kubernetes {0} is not supported: kubeadm reads v1beta4 only from v1.{OLDEST_MINOR} on"
    )]
    TooOld(Version),
    #[error("{from} can't become {to}: a cluster is never taken back to an older version")]
    Downgrade { from: Version, to: Version },
    #[error(
        "{from} can't become {to} at once: a cluster goes up by one minor version at a time, to \
         v{}.{} next", from.major, from.minor + 1
    )]
    SkipsMinor { from: Version, to: Version },
}

/// Whether a cluster may go from one version to another: kubeadm's own rules.
pub(crate) fn check_upgrade(from: Version, to: Version) -> Result<(), VersionError> {
    if to < from {
        return Err(VersionError::Downgrade { from, to });
    }
    if to.major != from.major || to.minor > from.minor.saturating_add(1) {
        return Err(VersionError::SkipsMinor { from, to });
    }
    Ok(())
}

impl FromStr for Version {
    type Err = VersionError;
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let malformed = || VersionError::Malformed(text.into());
        let mut parts = text
            .strip_prefix('v')
            .unwrap_or(text)
            .split('.')
            .map(|part| {
                let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| part.parse::<u32>().ok()).flatten()
            });
        let mut next = || parts.next().flatten().ok_or_else(malformed);
        let version = Self {
            major: next()?,
            minor: next()?,
            patch: next()?,
        };
        if parts.next().is_some() {
            return Err(malformed());
        }
        if version.major != 1 || version.minor < OLDEST_MINOR {
            return Err(VersionError::TooOld(version));
        }
        Ok(version)
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;
    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("v{}.{}.{}", self.major, self.minor, self.patch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_at_a_time_and_never_back() {
        let check = |from: &str, to: &str| {
            let check = check_upgrade(from.parse().unwrap(), to.parse().unwrap());
            check.map_err(|e| e.to_string())
        };
        for (from, to) in [
            ("v1.36.3", "v1.36.3"),
            ("v1.36.3", "v1.36.9"),
            ("v1.36.3", "v1.37.0"),
        ] {
            assert_eq!(check(from, to), Ok(()), "{from} to {to}");
        }
        assert_eq!(
            check("v1.36.3", "v1.38.0"),
            Err(
                "v1.36.3 can't become v1.38.0 at once: a cluster goes up by one minor version at a \
                 time, to v1.37 next"
                    .into()
            )
        );
        for to in ["v1.36.2", "v1.35.9"] {
            assert!(check("v1.36.3", to).unwrap_err().contains("older version"));
        }
    }

    #[test]
    fn with_and_without_v() {
        assert_eq!("v1.37.2".parse(), Ok(DEFAULT));
        assert_eq!("1.37.2".parse(), Ok(DEFAULT));
        for bad in [
            "",
            "1.37",
            "v1.37.2.1",
            "v1.37.x",
            "latest",
            "v1.37.+2",
            "v1.99999999999.1",
        ] {
            assert!(
                matches!(bad.parse::<Version>(), Err(VersionError::Malformed(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            "v1.24.0".parse::<Version>(),
            Err(VersionError::TooOld(_))
        ));
        assert!(matches!(
            "v2.0.0".parse::<Version>(),
            Err(VersionError::TooOld(_))
        ));
    }
}
