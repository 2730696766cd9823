//! Cloud Hypervisor's error answers.
//!
//! | source | body |
//! |---|---|
//! | v47 and later | JSON array of strings, the outermost first, the root cause last |
//! | v46 and before | plain text |
//! | its HTTP library | `{ "error": "…" }` with raw line feeds, which is not JSON |
//! | some refusals | nothing |
//!
//! The status says little (500 for almost everything up to v53), so the kind is told by stable
//! phrases of the chain first.

use std::fmt;

use serde_json::Value;

/// The most of an error body that is kept.
const KEPT: usize = 16 * 1024;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The causes, the outermost first. Never empty.
    pub chain: Vec<String>,
}

/// What a failure means to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// There is no VM.
    NotCreated,
    /// There is one already.
    AlreadyCreated,
    /// The VM is in a state in which the call makes no sense.
    InvalidState,
    /// The request or the configuration is wrong.
    Validation,
    /// Try again later.
    Busy,
    /// Another process has locked a disk image.
    Locked,
    /// A file, device or connection failed.
    Io,
    /// Cloud Hypervisor is gone.
    Died,
    /// Something else.
    Other,
}

impl ApiError {
    /// Reads an error answer; never fails, whatever the body is.
    #[must_use]
    pub fn parse(status: u16, body: &[u8]) -> Self {
        let body = body.get(..KEPT).unwrap_or(body);
        let text = String::from_utf8_lossy(body);
        let mut chain = parse_array(body).unwrap_or_else(|| parse_text(&text));
        chain.retain(|cause| !cause.is_empty());
        if chain.is_empty() {
            chain.push(format!("HTTP status {status} without a reason"));
        }
        Self { status, chain }
    }

    /// The innermost cause.
    #[must_use]
    pub fn root(&self) -> &str {
        self.chain.last().map_or("", String::as_str)
    }

    /// What it means to a caller.
    #[must_use]
    pub fn kind(&self) -> Kind {
        const PHRASES: &[(&str, Kind)] = &[
            ("VM is not created", Kind::NotCreated),
            ("VM config is missing", Kind::NotCreated),
            ("VM is already created", Kind::AlreadyCreated),
            ("already locked", Kind::Locked),
            ("Error locking disk images", Kind::Locked),
            ("VM is not running", Kind::InvalidState),
            ("The VM is not booted", Kind::InvalidState),
            ("VM is currently migrating", Kind::InvalidState),
            ("memory restore is still in progress", Kind::InvalidState),
            ("invalid VM state transition", Kind::InvalidState),
            ("InvalidStateTransition", Kind::InvalidState),
            ("Failed to validate config", Kind::Validation),
            ("Failed to parse JSON", Kind::Validation),
            ("Invalid request", Kind::Validation),
            ("os error", Kind::Io),
        ];
        if matches!(self.status, 429 | 503) {
            return Kind::Busy;
        }
        // The root cause says most, so it is asked first.
        for cause in self.chain.iter().rev() {
            if let Some((_, kind)) = PHRASES.iter().find(|(phrase, _)| cause.contains(phrase)) {
                return *kind;
            }
        }
        match self.status {
            404 => Kind::NotCreated,
            400 | 413 | 422 => Kind::Validation,
            409 => Kind::AlreadyCreated,
            _ => Kind::Other,
        }
    }
}

fn parse_array(body: &[u8]) -> Option<Vec<String>> {
    let Value::Array(items) = serde_json::from_slice(body).ok()? else {
        return None;
    };
    Some(
        items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => text,
                other => other.to_string(),
            })
            .collect(),
    )
}

fn parse_text(text: &str) -> Vec<String> {
    let text = text.trim();
    let inner = text
        .strip_prefix('{')
        .and_then(|rest| rest.trim_start().strip_prefix("\"error\":"))
        .map_or(text, |rest| {
            rest.trim().trim_end_matches('}').trim().trim_matches('"')
        });
    vec![inner.trim().to_owned()]
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (HTTP {})", self.chain.join(": "), self.status)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_of_body() {
        for (body, root) in [
            (
                &br#"["Error from API","The VM could not boot","Max CPUs (2) lower"]"#[..],
                "Max CPUs (2) lower",
            ),
            (b"VM is not created", "VM is not created"),
            (
                b"{ \"error\": \"bad header\nAll previous\" }",
                "bad header\nAll previous",
            ),
            (b"", "HTTP status 500 without a reason"),
            (b"[]", "HTTP status 500 without a reason"),
            (b"[1,{\"a\":2}]", "{\"a\":2}"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(ApiError::parse(500, body).root(), root);
        }
    }

    #[test]
    fn tells_kinds_by_the_root_cause() {
        for (status, body, kind) in [
            (
                404,
                r#"["Error from API","The VM could not boot","VM is not created"]"#,
                Kind::NotCreated,
            ),
            (
                500,
                "VmBoot(VmNotCreated): VM is not created",
                Kind::NotCreated,
            ),
            (
                500,
                r#"["x","VM is already created"]"#,
                Kind::AlreadyCreated,
            ),
            (
                500,
                r#"["x","Error locking disk images: Another instance likely holds a lock","The file is already locked"]"#,
                Kind::Locked,
            ),
            (
                500,
                r#"["x","invalid VM state transition: Running to Running"]"#,
                Kind::InvalidState,
            ),
            (
                500,
                r#"["x","Failed to validate config","Max CPUs (2) lower than boot CPUs (4)"]"#,
                Kind::Validation,
            ),
            (
                500,
                r#"["x","Cannot open kernel file","No such file or directory (os error 2)"]"#,
                Kind::Io,
            ),
            (429, "[]", Kind::Busy),
            (503, "", Kind::Busy),
            (500, "??", Kind::Other),
            (400, "", Kind::Validation),
        ] {
            assert_eq!(
                ApiError::parse(status, body.as_bytes()).kind(),
                kind,
                "{body}"
            );
        }
    }

    #[test]
    fn keeps_a_bounded_part_of_a_huge_body() {
        let error = ApiError::parse(500, &vec![b'x'; 10 << 20]);
        assert!(error.root().len() <= KEPT);
    }
}
