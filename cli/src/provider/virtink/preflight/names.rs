//! Names that others have taken.

use crate::cluster::name::ClusterName;
use crate::cluster::record::{NodeState, Record};
use crate::failure::Result;
use crate::provider::virtink::api::VirtualMachine;
use crate::provider::virtink::disk::claim_name;
use crate::provider::virtink::host::Host;
use crate::provider::virtink::lock::foreign;
use crate::provider::virtink::objects::{CLUSTER, name_of, selector, user_data_name};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret, Service};
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// Nobody else's object is written over.
pub(super) async fn check(host: &Host, record: &Record) -> Result<()> {
    let cluster = &record.spec.name;
    let wanted = || record.in_state(NodeState::Wanted);
    let machines = wanted().map(|n| n.name.to_string()).collect();
    let scripts = wanted().map(|n| user_data_name(&n.name)).collect();
    ours::<Service>(host, cluster, "Service", vec![name_of(cluster)]).await?;
    ours::<VirtualMachine>(host, cluster, "VirtualMachine", machines).await?;
    ours::<Secret>(host, cluster, "Secret", scripts).await?;
    if record.spec.provider.persistent().is_some() {
        let claims = wanted().map(|n| claim_name(&n.name)).collect();
        ours::<PersistentVolumeClaim>(host, cluster, "PersistentVolumeClaim", claims).await?;
    }
    Ok(())
}

/// The machines that the cluster has already.
pub(super) async fn made(host: &Host, cluster: &ClusterName) -> Result<BTreeSet<String>> {
    let api = host.api::<VirtualMachine>();
    let own = ListParams::default().labels(&selector(cluster));
    let what = "looking for the cluster's machines";
    let found = host.call(what, || api.list_metadata(&own)).await?;
    Ok(found.items.iter().map(ResourceExt::name_any).collect())
}

async fn ours<K>(host: &Host, cluster: &ClusterName, kind: &str, names: Vec<String>) -> Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    K::DynamicType: Default,
{
    let api = host.api::<K>();
    let others = ListParams::default().labels(&format!("{CLUSTER}!={cluster}"));
    let what = format!(
        "looking for names that are taken in namespace {}",
        host.namespace
    );
    let found = host.call(what, || api.list_metadata(&others)).await?;
    let taken = found.items.iter().map(ResourceExt::name_any);
    match taken.into_iter().find(|name| names.contains(name)) {
        Some(name) => Err(foreign(host, kind, &name)),
        None => Ok(()),
    }
}
