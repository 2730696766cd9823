//! Amounts of memory and disk as Kubernetes writes them: `4Gi`, `512Mi`, `1G`, plain bytes.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A number of bytes in Kubernetes' quantity notation (integers with an optional binary or
/// decimal suffix; fractions and exponents have no use here and are refused).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Quantity(u64);

/// Why a quantity is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum QuantityError {
    #[error("{0:?} is not an amount like 4Gi, 512Mi or 10G")]
    Malformed(String),
    #[error("{0:?} is more than any machine has")]
    TooLarge(String),
}

const SUFFIXES: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

impl Quantity {
    pub(crate) const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
    pub(crate) const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// Of so many bytes.
    pub(crate) const fn of(bytes: u64) -> Self {
        Self(bytes)
    }
    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (digits, unit) = SUFFIXES
            .iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits, *unit)))
            .unwrap_or((text, 1));
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(QuantityError::Malformed(text.into()));
        }
        let too_large = || QuantityError::TooLarge(text.into());
        let number: u64 = digits.parse().map_err(|_| too_large())?;
        let bytes = number
            .checked_mul(unit)
            .filter(|b| *b <= 1 << 50)
            .ok_or_else(too_large)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Quantity {
    type Error = QuantityError;
    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> String {
        quantity.to_string()
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, unit) in &SUFFIXES[..4] {
            if self.0 != 0 && self.0.is_multiple_of(*unit) {
                return f.pad(&format!("{}{suffix}", self.0 / unit));
            }
        }
        f.pad(&self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kubernetes_notation() {
        assert_eq!("4Gi".parse(), Ok(Quantity::gib(4)));
        assert_eq!("1G".parse(), Ok(Quantity(1_000_000_000)));
        assert_eq!(
            "4096Mi".parse::<Quantity>().map(|q| q.to_string()),
            Ok("4Gi".into())
        );
        for bad in ["", "Gi", "-1Gi", "1.5Gi", "4GB", "4 Gi", "four", "1e3"] {
            assert!(
                matches!(bad.parse::<Quantity>(), Err(QuantityError::Malformed(_))),
                "{bad}"
            );
        }
        for huge in ["99999999999999999999", "99999999Ti"] {
            assert!(
                matches!(huge.parse::<Quantity>(), Err(QuantityError::TooLarge(_))),
                "{huge}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(bytes in 0u64..=1 << 50) {
            prop_assert_eq!(Quantity(bytes).to_string().parse(), Ok(Quantity(bytes)));
        }
    }
}
