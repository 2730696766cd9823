//! What the host calls a manifest's kinds, each asked for once it is served.

use super::manifest::Object;
use crate::provider::virtink::host::is;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, ResourceExt};
use std::collections::BTreeMap;

/// What the host calls a manifest's kinds, each asked for once it is served.
#[derive(Default)]
pub(super) struct Kinds(tokio::sync::Mutex<BTreeMap<String, (ApiResource, Scope)>>);

impl Kinds {
    /// `None` while the host does not serve the kind.
    async fn get(
        &self,
        client: &Client,
        kind: &GroupVersionKind,
    ) -> kube::Result<Option<(ApiResource, Scope)>> {
        let key = format!("{}/{}", kind.api_version(), kind.kind);
        let mut known = self.0.lock().await;
        if let Some(found) = known.get(&key) {
            return Ok(Some(found.clone()));
        }
        match pinned_kind(client, kind).await {
            Ok((resource, capabilities)) => {
                let found = (resource, capabilities.scope);
                known.insert(key, found.clone());
                Ok(Some(found))
            }
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(error) if is(&error, 404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The API that an object is in.
    pub(super) async fn api(
        &self,
        client: &Client,
        object: &Object,
    ) -> kube::Result<Option<Api<DynamicObject>>> {
        let found = self.get(client, &object.kind).await?;
        let namespace = object.object.namespace();
        Ok(found.map(|(resource, scope)| match scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = namespace.as_deref().unwrap_or("default");
                Api::namespaced_with(client.clone(), namespace, &resource)
            }
        }))
    }
}
