//! Writing to the host: objects whole, as knest's own fields, and their removal.

use super::FIELD_MANAGER;
use super::host::Host;
use crate::failure::Result;
use kube::Resource;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

impl Host {
    /// Makes an object of the namespace what it is given as.
    pub(super) async fn apply<K>(&self, what: &str, name: &str, object: &K) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug
            + Sync,
        K::DynamicType: Default,
    {
        let api = self.api::<K>();
        let ours = PatchParams::apply(FIELD_MANAGER).force();
        let wanted = Patch::Apply(object);
        self.call(what, || api.patch(name, &ours, &wanted)).await
    }

    /// Removes an object of the namespace. An absent one is no error.
    pub(super) async fn delete<K>(&self, what: &str, name: &str) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
        K::DynamicType: Default,
    {
        let api = self.api::<K>();
        let parameters = DeleteParams::background();
        self.call_opt(what, || api.delete(name, &parameters))
            .await
            .map(drop)
    }
}
