//! Where this user's clusters on hosts are: a hint by which verbs find them by name, and what is of
//! this machine alone. The record on the host is what counts; a line here may be lost or stale.
//!
//! ```text
//! state/hosted.json    [{name, context, hostKubeconfig, namespace, kubeconfig}, …], 0600
//! state/hosted.lock    flock, held while that is changed
//! ```

use crate::cluster::name::ClusterName;
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::provider::local::write_json;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::PathBuf;

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    pub(crate) name: ClusterName,
    pub(crate) context: String,
    pub(crate) host_kubeconfig: Option<PathBuf>,
    pub(crate) namespace: String,
    /// The kubeconfig of this machine that holds the cluster's context.
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl Place {
    /// Whether both are of the same cluster.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.context == other.context
            && self.host_kubeconfig == other.host_kubeconfig
            && self.namespace == other.namespace
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "namespace {} of context {}",
            self.namespace, self.context
        )
    }
}

fn file(paths: &Paths) -> PathBuf {
    paths.state.join("hosted.json")
}

/// All of them.
pub(crate) fn read(paths: &Paths) -> Result<Vec<Place>> {
    let path = file(paths);
    match fs_err::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| {
            Failure::host(format!("reading {}", path.display()))
                .because(error)
                .hint(
                    "remove that file: clusters on hosts are then found with --host-context and -n",
                )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(Failure::host("reading where clusters are").because(error)),
    }
}

/// Changes the list; blocks for the moment that another process does.
pub(crate) fn change(paths: &Paths, change: impl FnOnce(&mut Vec<Place>)) -> Result<()> {
    let what = "writing where clusters are";
    fs_err::create_dir_all(&paths.state).host(what)?;
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(paths.state.join("hosted.lock")).host(what)?;
    flock(&lock, FlockOperation::LockExclusive).host(what)?;
    let before = read(paths)?;
    let mut after = before.clone();
    change(&mut after);
    if after == before {
        return Ok(());
    }
    write_json(&file(paths), &after)
}

/// Adds or replaces one.
pub(crate) fn put(paths: &Paths, place: Place) -> Result<()> {
    change(paths, |places| {
        places.retain(|p| !p.same(&place));
        places.push(place);
    })
}

/// Removes one.
pub(crate) fn remove(paths: &Paths, place: &Place) -> Result<()> {
    if !read(paths)?.iter().any(|p| p.same(place)) {
        return Ok(());
    }
    change(paths, |places| places.retain(|p| !p.same(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept_apart() {
        let root = tempfile::tempdir().unwrap();
        let at = |name| root.path().join(name);
        let paths = Paths {
            state: at("s"),
            data: at("d"),
            cache: at("c"),
            config: at("f"),
            ..Paths::default()
        };
        let place = |context: &str| Place {
            name: "demo".parse().unwrap(),
            context: context.into(),
            host_kubeconfig: None,
            namespace: "default".into(),
            kubeconfig: None,
        };
        assert_eq!(read(&paths).unwrap(), []);
        put(&paths, place("a")).unwrap();
        put(&paths, place("b")).unwrap();
        let merged = Place {
            kubeconfig: Some("/k".into()),
            ..place("a")
        };
        put(&paths, merged.clone()).unwrap();
        assert_eq!(read(&paths).unwrap(), [place("b"), merged]);
        remove(&paths, &place("b")).unwrap();
        remove(&paths, &place("c")).unwrap();
        assert_eq!(read(&paths).unwrap().len(), 1);
        fs_err::write(at("s").join("hosted.json"), "what").unwrap();
        assert!(read(&paths).unwrap_err().render().contains("hosted.json"));
    }
}
