//! Versions of Cloud Hypervisor, as its ping and its command line write them.

use std::fmt;
use std::str::FromStr;

/// The oldest version this crate is written for.
pub const OLDEST: Version = Version {
    major: 42,
    minor: 0,
    patch: 0,
};

/// A version of Cloud Hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Counts releases.
    pub major: u32,
    /// Bug fixes, and now and then a field.
    pub minor: u32,
    /// Always 0 so far.
    pub patch: u32,
}

impl Version {
    /// Version `major`.0.0.
    #[must_use]
    pub const fn major(major: u32) -> Self {
        Self {
            major,
            minor: 0,
            patch: 0,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)?;
        if self.patch > 0 {
            write!(f, ".{}", self.patch)
        } else {
            Ok(())
        }
    }
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of Cloud Hypervisor")]
pub struct BadVersion(String);

impl FromStr for Version {
    type Err = BadVersion;

    /// Reads `53.0.0`, `v53.0`, `v53.0-dirty`, `v53.0-12-gabcdef`, and `cloud-hypervisor v53.0`.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.chars().take(80).collect());
        let first = text.lines().next().unwrap_or_default();
        let word = first.split_whitespace().last().ok_or_else(bad)?;
        let word = word.trim_start_matches('v');
        let numbers = word.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(str::parse::<u32>);
        let major = parts.next().and_then(Result::ok).ok_or_else(bad)?;
        let mut next = || parts.next().map_or(Ok(0), |part| part.map_err(|_| bad()));
        Ok(Self {
            major,
            minor: next()?,
            patch: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        for (text, version) in [
            ("53.0.0", Version::major(53)),
            ("v53.0-dirty", Version::major(53)),
            (
                "cloud-hypervisor v50.2\nMigration Protocol",
                Version {
                    major: 50,
                    minor: 2,
                    patch: 0,
                },
            ),
            (
                "v51.1-4-gdeadbeef",
                Version {
                    major: 51,
                    minor: 1,
                    patch: 0,
                },
            ),
        ] {
            assert_eq!(text.parse::<Version>().unwrap(), version);
        }
        for text in ["", "cloud-hypervisor", "v", "v53.x", "\u{1f600}"] {
            text.parse::<Version>().unwrap_err();
        }
    }
}
