//! What would keep a host from holding a cluster's machines, found before anything is made. Who may
//! not look at something is not stopped for it: it is then found out later, and told.

mod access;
mod amount;
mod capacity;
mod images;
mod names;
mod quota;
mod ranges;
mod volumes;

pub(super) use access::check as check_access;
pub(super) use capacity::look as look_at_hosts;
pub(super) use images::check as check_images;
pub(super) use ranges::taken;
pub(super) use volumes::check as check_volumes;

use super::host::Host;
use crate::cluster::record::{NodeRecord, NodeState, Record};
use crate::cluster::spec::VirtinkSpec;
use crate::failure::{Failure, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;

/// Checks all of it.
pub(super) async fn check(host: &Host, record: &Record, virtink: &VirtinkSpec) -> Result<()> {
    if !host.serves_virtink().await? {
        return Err(
            Failure::host(format!("context {} has no Virtink", host.context))
                .hint("knest install installs it"),
        );
    }
    works(host).await?;
    access::check(host, virtink.persistent.is_some()).await?;
    names::check(host, record).await?;
    ranges::check(host, record).await?;
    let made = names::made(host, &record.spec.name).await?;
    let new: Vec<&NodeRecord> = record
        .in_state(NodeState::Wanted)
        .filter(|node| !made.contains(node.name.as_str()))
        .collect();
    quota::check(host, record, &new, virtink.expose).await?;
    capacity::check(host, record, &new, &virtink.node_selector).await
}

/// Whether what takes machines up is there: its definitions alone may be what is left of it.
pub(super) async fn works(host: &Host) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(host.client.clone(), "virtink-system");
    let found = host
        .call_opt("looking for Virtink's controller", || {
            api.get("virt-controller")
        })
        .await;
    // Who may not look, or whose Virtink has another name, learns it from the machines.
    let Ok(Some(found)) = found else {
        return Ok(());
    };
    let status = found.status.unwrap_or_default();
    match status.available_replicas {
        Some(1..) => Ok(()),
        _ => Err(Failure::host(format!(
            "Virtink's controller is not available on context {}",
            host.context
        ))
        .hint("kubectl -n virtink-system describe pods; knest install repairs what is incomplete")),
    }
}

/// That there is one, and for long.
pub(super) async fn namespace(host: &Host) -> Result<()> {
    let api: Api<Namespace> = Api::all(host.client.clone());
    let name = &host.namespace;
    let what = format!("looking for namespace {name}");
    match host.call_opt(what, || api.get(name)).await {
        Ok(Some(found)) if found.metadata.deletion_timestamp.is_some() => {
            Err(Failure::usage(format!("namespace {name} is being deleted"))
                .hint("name another with -n"))
        }
        Ok(None) => Err(
            Failure::usage(format!("there is no namespace {name}")).hint(format!(
                "make it: kubectl --context {} create namespace {name}",
                host.context
            )),
        ),
        // Who may not look may still be allowed to work in it.
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}
