//! Why a registry did not give or take what it was asked, and which of these reasons may pass.

use std::time::Duration;

/// Why a registry did not give or take what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryProblem {
    /// Status 401.
    #[error("{host} {}", if *known { "does not accept the credentials for it" } else { "wants credentials, and there are none for it" })]
    Unauthorized {
        /// The registry.
        host: String,
        /// Whether credentials were found and sent.
        known: bool,
    },
    /// Any other status that is not what was hoped for.
    #[error("{host} answers {status}{}", said(message))]
    Status {
        /// The server, which may be one that the registry redirected to.
        host: String,
        /// Such as 404.
        status: u16,
        /// The registry's own words; empty when it has none.
        message: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// No connection, or one that broke.
    #[error("{host}: {reason}")]
    Connection {
        /// The server.
        host: String,
        /// The system's or TLS's words.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("{host} sent nothing for {seconds} s")]
    Stalled {
        /// The server.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// An answer that breaks the protocol.
    #[error("{host} {reason}")]
    Protocol {
        /// The server.
        host: String,
        /// How.
        reason: String,
    },
    /// A server that gives whole blobs only, where a part was wanted.
    #[error("{host} gives no parts of blobs")]
    NoRanges {
        /// The server.
        host: String,
    },
    /// A server that was not named as one to be spoken to without TLS.
    #[error("{host} would be spoken to over plain HTTP, which nobody asked for")]
    PlainHttp {
        /// The server.
        host: String,
    },
    /// Credentials that are there but can't be had.
    #[error("the credentials for {host}: {reason}")]
    Credentials {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
    /// The same again and again.
    #[error("given up after {attempts} attempts in {seconds} s")]
    GivenUp {
        /// How often it was tried.
        attempts: u32,
        /// For how long.
        seconds: u64,
        /// What happened the last time.
        #[source]
        last: Box<RegistryProblem>,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl RegistryProblem {
    /// Whether it may go better the next time.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
            _ => false,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What happened in the end, without how often.
    #[must_use]
    pub fn cause(&self) -> &RegistryProblem {
        match self {
            Self::GivenUp { last, .. } => last.cause(),
            other => other,
        }
    }
}

fn said(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}
