//! Bootstrap tokens: the secret by which a machine shows that it may become a node. Made here,
//! written into the first node's documents, gone by itself within the hour.

use super::record::BootstrapToken;
use crate::failure::{Failure, Result};
use rand::TryRng;
use rand::rngs::SysRng;
use time::{Duration, OffsetDateTime};

/// How long a token lives.
pub(crate) const TOKEN_LIFE: Duration = Duration::HOUR;

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

impl BootstrapToken {
    /// A new token from the system's generator: 6 characters of public id, 16 of secret (82 bits).
    pub(crate) fn generate(now: OffsetDateTime) -> Result<Self> {
        const ID: usize = 6;
        const LENGTH: usize = ID + 1 + 16;
        // Bytes beyond the last whole alphabet would make its first letters likelier.
        let fair = u8::MAX - u8::MAX % 36;
        let mut value = String::with_capacity(LENGTH);
        let mut bytes = [0; 32];
        while value.len() < LENGTH {
            SysRng
                .try_fill_bytes(&mut bytes)
                .map_err(|e| Failure::host("reading the system's random numbers").because(e))?;
            for byte in bytes.into_iter().filter(|b| *b < fair) {
                if value.len() == ID {
                    value.push('.');
                }
                if value.len() < LENGTH {
                    value.push(char::from(ALPHABET[usize::from(byte % 36)]));
                }
            }
        }
        Ok(Self {
            value,
            expires: now + TOKEN_LIFE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_kubeadms_form_and_never_twice() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let tokens: Vec<_> = (0..64)
            .map(|_| BootstrapToken::generate(now).unwrap())
            .collect();
        for token in &tokens {
            let (id, secret) = token.value.split_once('.').unwrap();
            assert_eq!((id.len(), secret.len()), (6, 16));
            let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            assert!(
                id.chars().chain(secret.chars()).all(valid),
                "{}",
                token.value
            );
            assert!(!format!("{token:?}").contains(secret));
        }
        let distinct: std::collections::BTreeSet<_> = tokens.iter().map(|t| &t.value).collect();
        assert_eq!(distinct.len(), tokens.len());
    }

    #[test]
    fn lives_an_hour() {
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(
            BootstrapToken::generate(now).unwrap().expires,
            now + Duration::HOUR
        );
    }

    #[test]
    fn every_character_is_used() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let used: std::collections::BTreeSet<_> = (0..64)
            .flat_map(|_| BootstrapToken::generate(now).unwrap().value.into_bytes())
            .collect();
        assert_eq!(used.len(), ALPHABET.len() + 1);
    }
}
