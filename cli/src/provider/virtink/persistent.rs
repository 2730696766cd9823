//! Machines that keep their disk and their address: what is wished for them, resolved against what
//! the host has, and checked before anything is made.

use super::cni::{self, Survey};
use super::host::{Host, is};
use super::preflight::check_volumes;
use super::store::Records;
use crate::cluster::pool::Pool;
use crate::cluster::record::Record;
use crate::cluster::spec::{
    AccessMode, HostCni, PersistentSpec, ProviderSpec, VirtinkSpec, VolumeMode,
};
use crate::failure::{Failure, Result};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Marks the class that claims get which name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What a user said of persistent machines; what was not said is found.
#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    pub(crate) host_cni: Option<HostCni>,
    pub(crate) addresses: Pool,
    pub(crate) storage_class: Option<String>,
    pub(crate) access_mode: AccessMode,
    pub(crate) volume_mode: VolumeMode,
}

/// A record whose machines are persistent, and what it says of that.
#[derive(Clone, Copy)]
pub(super) struct Persistent<'a> {
    pub(super) record: &'a Record,
    pub(super) virtink: &'a VirtinkSpec,
    pub(super) spec: &'a PersistentSpec,
}

impl<'a> Persistent<'a> {
    /// `None` where they are not.
    pub(super) fn of(record: &'a Record) -> Option<Self> {
        let ProviderSpec::Virtink(virtink) = &record.spec.provider else {
            return None;
        };
        let spec = virtink.persistent.as_ref()?;
        Some(Self {
            record,
            virtink,
            spec,
        })
    }

    /// Addresses that the cluster's nodes can't have: other clusters', the network's own, and those
    /// of pods that are no machines of this cluster.
    pub(super) async fn taken(&self, host: &Host, records: &Records) -> Result<BTreeSet<Ipv4Addr>> {
        let survey = cni::of(self.spec.host_cni).survey(host).await?;
        let others = records.claims(&self.record.spec.name).await?;
        let mut taken: BTreeSet<Ipv4Addr> = others.into_keys().collect();
        taken.extend(survey.own);
        taken.extend(survey.used);
        Ok(&taken - &self.own())
    }

    /// Those that the cluster's nodes have.
    fn own(&self) -> BTreeSet<Ipv4Addr> {
        let nodes = self.record.nodes.iter();
        nodes.filter_map(|n| n.address).collect()
    }

    /// Checks all that can be known of addresses and disks before anything is made.
    pub(super) async fn check(&self, host: &Host, records: &Records) -> Result<()> {
        let spec = self.spec;
        cni::detect(host, Some(spec.host_cni)).await?;
        let class = class(host, spec.storage_class.as_deref()).await?;
        let cni = cni::of(spec.host_cni);
        let survey = cni.survey(host).await?;
        let others: BTreeSet<Ipv4Addr> = records
            .claims(&self.record.spec.name)
            .await?
            .into_keys()
            .collect();
        let founding = self.own().is_empty();
        check_addresses(self, &survey, &others, founding)
            .map_err(|failure| failure.hint(cni.keeping_free()))?;
        match class {
            Some(class) => check_volumes(host, self.record, spec, &class).await,
            None => Ok(()),
        }
    }
}

/// Addresses that are somebody's are named while the user can still choose others; later they are
/// left out.
fn check_addresses(
    of: &Persistent<'_>,
    survey: &Survey,
    others: &BTreeSet<Ipv4Addr>,
    founding: bool,
) -> Result<()> {
    let pool = &of.spec.addresses;
    let cni = of.spec.host_cni;
    if let Some(outside) = pool.iter().find(|a| !survey.holds(*a)) {
        return Err(Failure::usage(format!(
            "machine address {outside} is not one that {cni} gives pods here: it has {}",
            survey.pools()
        )));
    }
    if let Some(own) = pool.iter().find(|a| survey.own.contains(a)) {
        return Err(Failure::usage(format!(
            "machine address {own} is a gateway of the host's network"
        )));
    }
    let used: BTreeSet<Ipv4Addr> = &(&survey.used - others) - &of.own();
    if let Some(used) = pool.iter().find(|a| founding && used.contains(a)) {
        return Err(Failure::usage(format!(
            "machine address {used} is in use by a pod that is no machine of knest's"
        )));
    }
    let mut taken = &used | others;
    taken.extend(of.own());
    let lacking = of.record.nodes.iter().filter(|n| n.address.is_none());
    let wanted = u64::try_from(lacking.count()).unwrap_or(u64::MAX) + 1;
    match pool.free(&taken) {
        free if free >= wanted => Ok(()),
        free => Err(Failure::usage(format!(
            "of the {} machine addresses {free} are free, and {wanted} are needed: one more than \
             there are new nodes, for a node to be replaced before the old one leaves",
            pool.len()
        ))),
    }
}

/// Finds what was not said, on the host.
pub(crate) async fn resolve(host: &Host, wishes: Wishes) -> Result<PersistentSpec> {
    let class = class(host, wishes.storage_class.as_deref()).await?;
    Ok(PersistentSpec {
        host_cni: cni::detect(host, wishes.host_cni).await?,
        storage_class: class.map(|c| c.name_any()).or(wishes.storage_class),
        addresses: wishes.addresses,
        access_mode: wishes.access_mode,
        volume_mode: wishes.volume_mode,
    })
}

/// The storage class that claims of knest's will name. A user who may not look at classes gets what
/// the host makes of the claim.
async fn class(host: &Host, named: Option<&str>) -> Result<Option<StorageClass>> {
    let api: Api<StorageClass> = Api::all(host.client.clone());
    let all = ListParams::default();
    let found = host
        .call("looking for storage classes", || async {
            match api.list(&all).await {
                Err(error) if is(&error, 403) => Ok(None),
                found => found.map(|list| Some(list.items)),
            }
        })
        .await?;
    match found {
        Some(classes) => choose(&host.context, named, &classes).cloned().map(Some),
        None => Ok(None),
    }
}

fn choose<'a>(
    context: &str,
    named: Option<&str>,
    classes: &'a [StorageClass],
) -> Result<&'a StorageClass> {
    let there = || {
        let names: Vec<String> = classes.iter().map(ResourceExt::name_any).collect();
        match names.is_empty() {
            true => "it has none at all: machines' disks need a storage provisioner".to_owned(),
            false => format!("it has: {}", names.join(", ")),
        }
    };
    if let Some(named) = named {
        return classes
            .iter()
            .find(|c| c.name_any() == named)
            .ok_or_else(|| {
                Failure::usage(format!("context {context} has no storage class {named}"))
                    .hint(there())
            });
    }
    let is_default = |class: &&StorageClass| {
        class.annotations().get(DEFAULT_CLASS).map(String::as_str) == Some("true")
    };
    // Of several the youngest, as the API server has it.
    let default = classes
        .iter()
        .filter(is_default)
        .max_by_key(|c| c.metadata.creation_timestamp.clone());
    default.ok_or_else(|| {
        Failure::usage(format!("context {context} has no default storage class"))
            .hint(format!("name one with --storage-class; {}", there()))
    })
}

#[cfg(test)]
mod tests;
