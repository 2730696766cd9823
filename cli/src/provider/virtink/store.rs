//! Records on the host: one Secret a cluster, written only over the version that was read.

use super::host::{Host, is};
use super::lock::foreign;
use super::objects::{RECORD_KEY, RECORD_TYPE, name_of, owner, record_secret};
use crate::cluster::name::ClusterName;
use crate::cluster::record::Record;
use crate::failure::{Failure, Result};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// Which version of a record's Secret this process has seen last.
#[derive(Clone, Debug, Default)]
struct Version {
    uid: String,
    resource: String,
}

/// The records of one namespace.
pub(super) struct Records {
    pub(super) host: Host,
    seen: Mutex<BTreeMap<ClusterName, Version>>,
}

impl Records {
    pub(super) fn of(host: Host) -> Self {
        Self {
            host,
            seen: Mutex::default(),
        }
    }

    /// `None` where there is none.
    pub(super) async fn load(&self, name: &ClusterName) -> Result<Option<Record>> {
        let api = self.host.api::<Secret>();
        let secret = name_of(name);
        let what = format!("reading the record of cluster {name}");
        let Some(found) = self.host.call_opt(what, || api.get(&secret)).await? else {
            self.forgotten(name);
            return Ok(None);
        };
        self.ours(&found)?;
        let record = read(&self.host, &found)?;
        if record.spec.name != *name {
            return Err(Failure::host(format!(
                "Secret {secret} holds the record of another cluster, {}",
                record.spec.name
            )));
        }
        self.saw(name, &found);
        Ok(Some(record))
    }

    /// Whether there is one, readable or not.
    pub(super) async fn exists(&self, name: &ClusterName) -> Result<bool> {
        let (api, key) = (self.host.api::<Secret>(), name_of(name));
        let what = format!("looking for cluster {name}");
        let found = self.host.call_opt(what, || api.get_metadata(&key)).await?;
        Ok(found.is_some())
    }

    /// Makes the Secret, or writes over the version that was seen last; another one is left alone.
    pub(super) async fn save(&self, record: &Record) -> Result<()> {
        let (api, name) = (self.host.api::<Secret>(), &record.spec.name);
        let what = format!("writing the record of cluster {name}");
        let text = serde_json::to_vec(record)
            .map_err(|e| Failure::internal("rendering a record").because(e))?;
        let mut secret = record_secret(record, &self.host.namespace, text);
        let (post, key) = (PostParams::default(), name_of(name));
        let seen = self.seen.lock().ok().and_then(|s| s.get(name).cloned());
        if let Some(version) = &seen {
            secret.metadata.resource_version = Some(version.resource.clone());
            secret.metadata.uid = Some(version.uid.clone());
        }
        let written = self
            .host
            .call(&what, || async {
                let written = match &seen {
                    Some(_) => api.replace(&key, &post, &secret).await,
                    None => api.create(&post, &secret).await,
                };
                match written {
                    Err(error) if is(&error, 409) => Ok(None),
                    other => other.map(Some),
                }
            })
            .await?;
        if let Some(written) = written {
            self.saw(name, &written);
            return Ok(());
        }
        // Ours all the same, if only an answer was lost.
        let there = self.host.call_opt(&what, || api.get(&key)).await?;
        match there {
            Some(there) if there.data == secret.data && there.type_ == secret.type_ => {
                self.saw(name, &there);
                Ok(())
            }
            Some(there) => {
                self.ours(&there)?;
                Err(Failure::host(format!(
                    "the record of cluster {name} was changed by another knest meanwhile"
                ))
                .hint("run the command again: it goes on from what the other one did"))
            }
            None => Err(Failure::host(format!(
                "the record of cluster {name} was removed by another knest meanwhile"
            ))),
        }
    }

    /// Removes it. An absent one is no error.
    pub(super) async fn remove(&self, name: &ClusterName) -> Result<()> {
        let (api, key) = (self.host.api::<Secret>(), name_of(name));
        let what = format!("removing the record of cluster {name}");
        if let Some(found) = self.host.call_opt(&what, || api.get(&key)).await? {
            self.ours(&found)?;
            // What is left, if anything is, goes with its owner.
            let background = DeleteParams::background();
            self.host
                .call_opt(&what, || api.delete(&key, &background))
                .await?;
        }
        self.forgotten(name);
        Ok(())
    }

    /// Every cluster of the namespace, sorted.
    pub(super) async fn names(&self) -> Result<Vec<ClusterName>> {
        let api = self.host.api::<Secret>();
        let ours = ListParams::default().fields(&format!("type={RECORD_TYPE}"));
        let what = format!("listing the clusters in namespace {}", self.host.namespace);
        let found = self.host.call(what, || api.list_metadata(&ours)).await?;
        let mut names: Vec<ClusterName> = found
            .iter()
            .filter_map(|s| s.name_any().strip_prefix("knest-")?.parse().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Every namespace of the host that has clusters, sorted.
    pub(super) async fn namespaces(host: &Host) -> Result<BTreeSet<String>> {
        let api: Api<Secret> = Api::all(host.client.clone());
        let ours = ListParams::default().fields(&format!("type={RECORD_TYPE}"));
        let what = format!("listing the clusters of context {}", host.context);
        let found = host.call(what, || api.list_metadata(&ours)).await?;
        Ok(found.iter().filter_map(ResourceExt::namespace).collect())
    }

    /// The owner of all that the cluster consists of; its record must have been seen.
    pub(super) fn owner(&self, name: &ClusterName) -> Result<OwnerReference> {
        let seen = self.seen.lock().ok().and_then(|s| s.get(name).cloned());
        seen.map(|version| owner(name, &version.uid))
            .ok_or_else(|| Failure::internal(format!("the record of cluster {name} was not read")))
    }

    fn ours(&self, secret: &Secret) -> Result<()> {
        match secret.type_.as_deref() {
            Some(RECORD_TYPE) => Ok(()),
            _ => Err(foreign(&self.host, "Secret", &secret.name_any())),
        }
    }

    fn saw(&self, name: &ClusterName, secret: &Secret) {
        if let Ok(mut seen) = self.seen.lock() {
            let version = Version {
                uid: secret.uid().unwrap_or_default(),
                resource: secret.resource_version().unwrap_or_default(),
            };
            seen.insert(name.clone(), version);
        }
    }

    fn forgotten(&self, name: &ClusterName) {
        if let Ok(mut seen) = self.seen.lock() {
            seen.remove(name);
        }
    }
}

fn read(host: &Host, secret: &Secret) -> Result<Record> {
    let place = format!(
        "the record in Secret {} of namespace {}",
        secret.name_any(),
        host.namespace
    );
    let text = secret.data.as_ref().and_then(|d| d.get(RECORD_KEY));
    let damaged = || {
        Failure::host(format!("{place} is damaged"))
            .hint("all that is left of its cluster goes with it: kubectl delete that Secret")
    };
    let value = text.map(|t| serde_json::from_slice(&t.0));
    match value {
        Some(Ok(value)) => Record::read(value, place),
        Some(Err(error)) => Err(damaged().because(error)),
        None => Err(damaged()),
    }
}
