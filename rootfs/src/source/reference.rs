//! An image's name in a registry, as Docker made everybody write it:
//! `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`. Pure.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The registry that a name without one means.
pub(super) const DEFAULT_REGISTRY: &str = "docker.io";
/// The host that it is on.
pub(super) const DEFAULT_SERVER: &str = "registry-1.docker.io";
/// Longest name of a repository, in bytes, by the distribution specification.
const NAME_LIMIT: usize = 255;

/// A parsed name; `Display` gives it in full, with the registry and the tag that were implied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and port, such as `docker.io` or `127.0.0.1:5000`.
    pub registry: String,
    /// Such as `library/alpine`.
    pub repository: String,
    /// Such as `latest`; missing only where there is a digest.
    pub tag: Option<String>,
    /// The manifest's or index's digest, which then decides.
    pub digest: Option<Digest>,
}

impl Reference {
    /// What a registry's `manifests` endpoint calls it.
    #[cfg(feature = "registry")]
    pub(super) fn identifier(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

/// What a registry is called: the default one has several hosts.
pub(super) fn known_as(host: &str) -> &str {
    match host {
        "index.docker.io" | DEFAULT_SERVER => DEFAULT_REGISTRY,
        other => other,
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        let malformed = || Error::MalformedReference(text.chars().take(200).collect());
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            Some(_) => (DEFAULT_REGISTRY, path.to_owned()),
            None => (DEFAULT_REGISTRY, format!("library/{path}")),
        };
        let registry = known_as(registry);
        let legal = legal_host(registry)
            && repository.len() <= NAME_LIMIT
            && repository.split('/').all(legal_component)
            && tag.is_none_or(legal_tag);
        if !legal {
            return Err(malformed());
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Docker's rule: what looks like a host is one.
fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '['])
}

fn legal_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (
                None,
                port.strip_prefix(':')
                    .or_else(|| port.is_empty().then_some("0")),
            ),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), Some("0")),
        },
    };
    let name = |host: &str| {
        host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    host.is_none_or(name) && port.is_some_and(|port| port.parse::<u16>().is_ok())
}

/// Lower-case words, joined by one dot, one or two underscores, or any number of dashes.
fn legal_component(text: &str) -> bool {
    let mut rest = text;
    loop {
        let word = rest
            .bytes()
            .take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            .count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let dashes = rest.bytes().take_while(|&b| b == b'-').count();
        let separator = match rest.as_bytes() {
            [b'.', ..] | [b'_', ..] if !rest.starts_with("__") => 1,
            [b'_', b'_', ..] => 2,
            _ if dashes > 0 => dashes,
            _ => return false,
        };
        rest = &rest[separator..];
    }
}

fn legal_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_in_full() {
        let digest = Digest::of(b"");
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("knest.dev/node:v1.37.2", "knest.dev/node:v1.37.2"),
            ("localhost/a", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
            ("[::1]:5000/a:b", "[::1]:5000/a:b"),
            (
                "ghcr.io/a__b/c-d--e.f_g:T.1-x_",
                "ghcr.io/a__b/c-d--e.f_g:T.1-x_",
            ),
            (&format!("a.b/c@{digest}"), &format!("a.b/c@{digest}")),
            (&format!("a.b/c:d@{digest}"), &format!("a.b/c:d@{digest}")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(full.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "/",
            "A",
            "a.b/",
            "a.b/C",
            "a//b",
            "a b",
            "a.b/c:",
            "a.b/c:-",
            "a.b/c@sha256:1",
            "a.b:x/c",
            "a.b/../c",
            "a.b/c..d",
            "a.b/c_",
            "[::1/c",
            "[x]:1/c",
            "http://a.b/c",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
