//! How this user's registries are spoken to: knest's own file, over which flags go.
//!
//! ```yaml
//! mirrors:
//!   docker.io: [mirror.example, "http://127.0.0.1:5000", harbor.example/proxy]
//! plainHttp: ["127.0.0.1:5000"]
//! authorities: [/etc/ssl/our-ca.pem]
//! ```

use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use knest_rootfs::source::registry::RegistryOptions;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the file says, and what flags add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Registries {
    pub(crate) mirrors: BTreeMap<String, Vec<String>>,
    pub(crate) plain_http: BTreeSet<String>,
    pub(crate) authorities: Vec<PathBuf>,
    #[serde(skip)]
    credentials: Vec<PathBuf>,
}

impl Registries {
    /// Reads the file, if there is one.
    pub(crate) fn read(paths: &Paths) -> Result<Self> {
        let path = paths.registries();
        let text = match fs_err::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).host("how registries are spoken to"),
        };
        let mut registries = Self::parse(&text)
            .map_err(|error| Failure::usage(path.display().to_string()).because(error))?;
        registries.credentials.clone_from(&paths.credentials);
        Ok(registries)
    }

    fn parse(text: &str) -> Result<Self, serde_yaml_ng::Error> {
        // An empty document is null.
        Ok(serde_yaml_ng::from_str::<Option<Self>>(text)?.unwrap_or_default())
    }

    /// As the image crate takes it.
    pub(crate) fn options(&self, cancel: &Arc<AtomicBool>) -> RegistryOptions {
        RegistryOptions {
            credentials: self.credentials.clone(),
            mirrors: self.mirrors.clone(),
            plain_http: self.plain_http.clone(),
            authorities: self.authorities.clone(),
            cancel: Some(Arc::clone(cancel)),
            ..RegistryOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_strictly() {
        assert_eq!(Registries::parse("").unwrap(), Registries::default());
        let text = "mirrors: {docker.io: [a.b]}\nplainHttp: ['c:1']\nauthorities: [/d]\n";
        let read = Registries::parse(text).unwrap();
        assert_eq!(read.mirrors["docker.io"], ["a.b"]);
        assert!(read.plain_http.contains("c:1"));
        assert_eq!(read.authorities, [PathBuf::from("/d")]);
        let error = Registries::parse("plain_http: []").unwrap_err().to_string();
        assert!(error.contains("plain_http"), "{error}");
    }
}
