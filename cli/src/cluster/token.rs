//! Bootstrap tokens: the secret by which a machine shows that it may become a node. Made here,
//! written into the first node's documents, gone by itself within the hour.

use super::record::BootstrapToken;
use rand::RngExt;
use time::{Duration, OffsetDateTime};

/// How long a token lives.
pub(crate) const TOKEN_LIFE: Duration = Duration::HOUR;

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

impl BootstrapToken {
    /// A new token from the system's generator: 6 characters of public id, 16 of secret (82 bits).
    pub(crate) fn generate(now: OffsetDateTime) -> Self {
        let mut rng = rand::rng();
        let mut take = |count: usize| -> String {
            (0..count)
                .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
                .collect()
        };
        let value = format!("{}.{}", take(6), take(16));
        Self {
            value,
            expires: now + TOKEN_LIFE,
        }
    }

    /// Whether a machine that boots now still has `margin` to use it.
    pub(crate) fn lives(&self, now: OffsetDateTime, margin: Duration) -> bool {
        now + margin < self.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_kubeadms_form_and_never_twice() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let tokens: Vec<_> = (0..64).map(|_| BootstrapToken::generate(now)).collect();
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
        let token = BootstrapToken::generate(now);
        assert!(token.lives(now, Duration::minutes(59)));
        assert!(!token.lives(now, Duration::minutes(60)));
        assert!(!token.lives(now + Duration::hours(2), Duration::ZERO));
    }
}
