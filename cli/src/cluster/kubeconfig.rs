//! Kubeconfigs: one for a single cluster, and its entries in the user's own file, where everything
//! else is somebody else's and stays as it is. Knows no environment: paths come in as values.

mod file;

use super::kubeadm::incomplete;
use super::record::Record;
use crate::failure::{Failure, Result};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Serialize;
use serde_yaml_ng::{Mapping, Value};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// The lists that hold a cluster's three entries, which share the context's name, and the key of
/// what each entry holds.
const LISTS: [(&str, &str); 3] = [
    ("clusters", "cluster"),
    ("contexts", "context"),
    ("users", "user"),
];

/// The file to write into, by kubectl's rules: the one named by a flag; else of those in
/// `$KUBECONFIG` the first that exists, or the last if none does; else `~/.kube/config`.
pub(crate) fn target(
    flag: Option<&Path>,
    variable: Option<&OsStr>,
    home: Option<&Path>,
) -> Result<PathBuf> {
    if let Some(path) = flag {
        return Ok(path.into());
    }
    let named: Vec<PathBuf> = std::env::split_paths(variable.unwrap_or_default())
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if let Some(path) = named
        .iter()
        .find(|path| path.exists())
        .or_else(|| named.last())
    {
        return Ok(path.clone());
    }
    home.filter(|home| home.is_absolute())
        .map(|home| home.join(".kube/config"))
        .ok_or_else(|| {
            Failure::usage("there is no home directory to keep a kubeconfig in")
                .hint("name a file with --kubeconfig or $KUBECONFIG")
        })
}

/// A kubeconfig for this cluster alone, as its administrator, valid for a year from now. Secret.
pub(crate) fn for_record(record: &Record) -> Result<String> {
    render(record, OffsetDateTime::now_utc())
}

fn render(record: &Record, now: OffsetDateTime) -> Result<String> {
    let pki = record.pki.as_ref().ok_or_else(|| incomplete("keys"))?;
    let endpoint = record
        .endpoint
        .as_ref()
        .ok_or_else(|| incomplete("endpoint"))?;
    let admin = pki.admin_credentials(now)?;
    let name = record.spec.name.context();
    let config = Config {
        api_version: "v1",
        kind: "Config",
        clusters: [NamedCluster {
            name: &name,
            cluster: Cluster {
                server: format!("https://{}", endpoint.outside),
                certificate_authority_data: BASE64_STANDARD.encode(&pki.cluster.certificate),
            },
        }],
        contexts: [NamedContext {
            name: &name,
            context: ContextOf {
                cluster: &name,
                user: &name,
            },
        }],
        current_context: &name,
        users: [NamedUser {
            name: &name,
            user: User {
                client_certificate_data: BASE64_STANDARD.encode(&admin.certificate),
                client_key_data: BASE64_STANDARD.encode(&admin.key),
            },
        }],
    };
    serde_yaml_ng::to_string(&config)
        .map_err(|e| Failure::internal("rendering a kubeconfig").because(e))
}

/// Puts the cluster of `kubeconfig`, a text of [`for_record`], into the file at `path` and chooses
/// its context. The file and its directory are made where they are missing; one that is no
/// kubeconfig is an error and is left alone. Blocks while another program holds the file's lock,
/// for seconds at most.
pub(crate) fn merge(path: &Path, kubeconfig: &str) -> Result<()> {
    let ours = file::parse(kubeconfig)
        .map_err(|e| Failure::internal("reading a kubeconfig of our own").because(e))?;
    file::edit(path, |theirs| merged(theirs, &ours))
}

/// Takes `context` and its cluster and user out of the file at `path`; a file of which nothing is
/// left goes too. No error where there is no such file or context. Blocks like [`merge`].
pub(crate) fn remove(path: &Path, context: &str) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    file::edit(path, |theirs| removed(theirs, context))
}

/// Why a file is no kubeconfig.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error(transparent)]
    Yaml(#[from] serde_yaml_ng::Error),
    #[error("it is not a mapping")]
    NotMapping,
    #[error("its {0} is not a list")]
    NotList(&'static str),
}

/// `theirs` with the entries of `ours`, whose context is current.
fn merged(mut theirs: Mapping, ours: &Mapping) -> Result<Mapping, Malformed> {
    for key in ["apiVersion", "kind"] {
        if !theirs.contains_key(key) {
            theirs.extend(ours.get(key).map(|value| (key.into(), value.clone())));
        }
    }
    for (list, content) in LISTS {
        let present = entries(&mut theirs, list)?;
        for entry in ours
            .get(list)
            .and_then(Value::as_sequence)
            .into_iter()
            .flatten()
        {
            let mut entry = entry.clone();
            let is_same = |other: &Value| other.get("name") == entry.get("name");
            let position = present.iter().position(is_same);
            if list == "contexts" {
                // What the user set in our context, a namespace above all, is kept.
                let old = position.and_then(|at| present[at].get(content)).cloned();
                keep_missing(&mut entry, content, old);
            }
            match position {
                Some(at) => present[at] = entry,
                None => present.push(entry),
            }
        }
    }
    let current = ours.get("current-context").cloned().unwrap_or_default();
    theirs.insert("current-context".into(), current);
    Ok(theirs)
}

/// Gives `entry[content]` the fields that only `old` has.
fn keep_missing(entry: &mut Value, content: &str, old: Option<Value>) {
    let Some(new) = entry.get_mut(content).and_then(Value::as_mapping_mut) else {
        return;
    };
    let Some(Value::Mapping(old)) = old else {
        return;
    };
    for (key, value) in old {
        if !new.contains_key(&key) {
            new.insert(key, value);
        }
    }
}

/// `theirs` without the entries of `context`; empty if that was all.
fn removed(mut theirs: Mapping, context: &str) -> Result<Mapping, Malformed> {
    let mut found = false;
    for (list, _) in LISTS {
        // A list that is not there is not made, so that a file without our entries stays as it is.
        if theirs.get(list).is_some_and(|value| !value.is_null()) {
            let present = entries(&mut theirs, list)?;
            let before = present.len();
            present.retain(|entry| entry.get("name").and_then(Value::as_str) != Some(context));
            found |= present.len() < before;
        }
    }
    if theirs.get("current-context").and_then(Value::as_str) == Some(context) {
        theirs.insert("current-context".into(), "".into());
        found = true;
    }
    let is_blank = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Sequence(list) => list.is_empty(),
        Value::Mapping(map) => map.is_empty(),
        _ => false,
    };
    let says_nothing = |(key, value): (&Value, &Value)| {
        matches!(key.as_str(), Some("apiVersion" | "kind")) || is_blank(value)
    };
    if found && theirs.iter().all(says_nothing) {
        theirs.clear();
    }
    Ok(theirs)
}

/// A list of named entries, made if it is missing or null.
fn entries<'a>(
    config: &'a mut Mapping,
    list: &'static str,
) -> Result<&'a mut Vec<Value>, Malformed> {
    let value = config.entry(list.into()).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Sequence(vec![]);
    }
    value.as_sequence_mut().ok_or(Malformed::NotList(list))
}

#[derive(Serialize)]
struct Config<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'a str,
    kind: &'a str,
    clusters: [NamedCluster<'a>; 1],
    contexts: [NamedContext<'a>; 1],
    #[serde(rename = "current-context")]
    current_context: &'a str,
    users: [NamedUser<'a>; 1],
}

#[derive(Serialize)]
struct NamedCluster<'a> {
    name: &'a str,
    cluster: Cluster,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Serialize)]
struct NamedContext<'a> {
    name: &'a str,
    context: ContextOf<'a>,
}

#[derive(Serialize)]
struct ContextOf<'a> {
    cluster: &'a str,
    user: &'a str,
}

#[derive(Serialize)]
struct NamedUser<'a> {
    name: &'a str,
    user: User,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

#[cfg(test)]
mod tests;
