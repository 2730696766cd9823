//! What a command failed with, and the one place where it is turned into words and an exit code.
//! Knows nothing of clusters: an error says what failed, a hint says what to do about it.

use std::error::Error as StdError;
use std::fmt;

/// A command's result.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Whose turn it is to act; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request cannot be met as it was put: a malformed flag, a clash, an unknown name.
    Usage,
    /// This machine or the host cluster lacks something.
    Host,
    /// A node, or the cluster it belongs to, did not do what it should have.
    Guest,
    /// A deadline passed; the last observation is in the error.
    Timeout,
    /// The user asked to stop.
    Interrupted,
    /// A defect in knest.
    Internal,
}

impl Kind {
    /// Exit codes: 2 is clap's own for malformed flags, 130 is a shell's for Ctrl-C.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Host => 3,
            Self::Guest => 4,
            Self::Timeout => 5,
            Self::Interrupted => 130,
            Self::Internal => 1,
        }
    }

    /// The word for it in `-o json`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Usage => "Usage",
            Self::Host => "Host",
            Self::Guest => "Guest",
            Self::Timeout => "Timeout",
            Self::Interrupted => "Interrupted",
            Self::Internal => "Internal",
        }
    }
}

/// An error on its way to the user: what failed, why (the sources), evidence, and remedies.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Whose turn it is.
    pub(crate) kind: Kind,
    /// What failed, without its causes.
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// Evidence that does not fit a line: a child's last lines, a serial log's tail.
    evidence: Vec<String>,
    /// Remedies, each a whole sentence.
    hints: Vec<String>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            evidence: vec![],
            hints: vec![],
        }
    }
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }
    pub(crate) fn host(message: impl Into<String>) -> Self {
        Self::new(Kind::Host, message)
    }
    pub(crate) fn guest(message: impl Into<String>) -> Self {
        Self::new(Kind::Guest, message)
    }
    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self::new(Kind::Timeout, message)
    }
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }
    pub(crate) fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// Adds the cause.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// Adds a remedy.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
    /// Adds evidence, printed indented under the message.
    #[must_use]
    pub(crate) fn evidence(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.trim().is_empty() {
            self.evidence.push(text);
        }
        self
    }
    /// Puts what was being done in front: `saving the record: No space left on device`.
    #[must_use]
    pub(crate) fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The remedies.
    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Every line for a person, hints last.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {self}\n");
        for block in &self.evidence {
            for line in block.lines() {
                text.push_str("  | ");
                text.push_str(line);
                text.push('\n');
            }
        }
        for hint in &self.hints {
            text.push_str("hint: ");
            text.push_str(hint);
            text.push('\n');
        }
        text
    }

    /// The same for a program.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "kind": self.kind.word(),
            "message": self.to_string(),
            "evidence": self.evidence,
            "hints": self.hints,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source.as_deref().map(|e| e as &dyn StdError);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Gives any error a kind and a sentence about what was being done.
pub(crate) trait Context<T> {
    /// The host's side failed while doing `what`.
    fn host(self, what: impl fmt::Display) -> Result<T>;
    /// The cluster's side failed while doing `what`.
    fn guest(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn host(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Failure::host(what.to_string()).because(e))
    }
    fn guest(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Failure::guest(what.to_string()).because(e))
    }
}

/// The innermost cause, which says most where the outer ones only pass it on.
pub(crate) fn innermost(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_evidence_and_hints_are_all_shown() {
        let error = Failure::host("starting nft")
            .because(std::io::Error::other("exit status 1"))
            .evidence("line one\nline two")
            .hint("install nftables");
        assert_eq!(
            error.render(),
            "error: starting nft: exit status 1\n  | line one\n  | line two\nhint: install nftables\n"
        );
    }
}
