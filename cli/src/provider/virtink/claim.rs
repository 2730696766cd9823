//! Addresses for a cluster's machines, out of the pool that its user gave, so that no two clusters
//! of a host ever have one in common, whoever makes them and when.
//!
//! ```text
//!  choose what nobody has ─► write it down: the record, over the version that was read
//!        ▲                                     │
//!        │ after a moment of random length     ▼
//!  give back ◄──── somebody has it ──── look at all others' ──── nobody has it ─► ours
//! ```
//!
//! Both of two that choose the same write first and look afterwards, so the later one at least sees
//! the other and gives way. A machine that is there has passed: its address is never given back.

use super::host::{Host, is};
use super::objects::{ADDRESSES, RECORD_TYPE};
use super::persistent::Persistent;
use super::provider::Virtink;
use super::store::Records;
use crate::cluster::name::ClusterName;
use crate::cluster::pool::release;
use crate::cluster::record::{NodeRecord, NodeState, Record};
use crate::failure::{Failure, Result};
use crate::provider::Provider;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::sleep;

/// How often two that choose the same may begin anew.
const ROUNDS: u32 = 20;
/// How long, in milliseconds, one of them waits before it does.
const PAUSE: std::ops::Range<u64> = 50..1000;

impl Virtink {
    /// The record with an address for every node, as it was saved.
    pub(super) async fn claim(&self, record: &Record) -> Result<Record> {
        let mut record = record.clone();
        let Some(spec) = Persistent::of(&record).map(|p| p.spec.clone()) else {
            return Ok(record);
        };
        let name = record.spec.name.clone();
        let made = self.watch(&name).await?.all();
        let made: BTreeSet<String> = made.iter().map(|vm| vm.name_any()).collect();
        let mut rival = String::new();
        for _ in 0..ROUNDS {
            let others = self.records.claims(&name).await?;
            let lost = give_back(&mut record.nodes, &others, &made);
            if let Some(other) = lost {
                rival = other;
                self.save(&record).await?;
                sleep(Duration::from_millis(rand::random_range(PAUSE))).await;
                continue;
            }
            if record.nodes.iter().all(|n| n.address.is_some()) {
                return Ok(record);
            }
            let taken = match Persistent::of(&record) {
                Some(persistent) => persistent.taken(&self.host, &self.records).await?,
                None => BTreeSet::new(),
            };
            spec.addresses.assign(&mut record.nodes, &taken)?;
            self.save(&record).await?;
        }
        Err(Failure::host(format!(
            "cluster {rival} takes the same machine addresses at the same time, again and again"
        ))
        .hint("run the command again, or give the clusters pools of their own"))
    }
}

/// Takes from nodes that are yet to be made what another cluster has, and says which one.
fn give_back(
    nodes: &mut [NodeRecord],
    others: &BTreeMap<Ipv4Addr, String>,
    made: &BTreeSet<String>,
) -> Option<String> {
    let mut lost = None;
    for node in nodes {
        let settled = node.state != NodeState::Wanted || made.contains(node.name.as_str());
        let other = node.address.and_then(|a| others.get(&a));
        if let (false, Some(other)) = (settled, other) {
            lost = Some(other.clone());
            release(node);
        }
    }
    lost
}

impl Records {
    /// The addresses that other clusters' records on the host claim, and whose they are. Where the
    /// user may not look into other namespaces, those in the same one; the host's network then
    /// still gives no address twice.
    pub(super) async fn claims(&self, name: &ClusterName) -> Result<BTreeMap<Ipv4Addr, String>> {
        let host = &self.host;
        let everywhere = claimed(host, Api::all(host.client.clone())).await?;
        let all = match everywhere {
            Some(all) => all,
            None => claimed(host, host.api()).await?.ok_or_else(|| {
                Failure::host("you may not list the Secrets that hold clusters' records")
            })?,
        };
        let ours = format!("{}/{name}", host.namespace);
        Ok(all.into_iter().filter(|(_, who)| *who != ours).collect())
    }
}

/// `None` where it is forbidden to look. Only what is beside the records is read.
async fn claimed(host: &Host, api: Api<Secret>) -> Result<Option<BTreeMap<Ipv4Addr, String>>> {
    let records = ListParams::default().fields(&format!("type={RECORD_TYPE}"));
    let found = host
        .call("looking for other clusters' addresses", || async {
            match api.list_metadata(&records).await {
                Err(error) if is(&error, 403) => Ok(None),
                found => found.map(|list| Some(list.items)),
            }
        })
        .await?;
    let Some(found) = found else {
        return Ok(None);
    };
    let mut all = BTreeMap::new();
    for secret in found {
        let namespace = secret.namespace().unwrap_or_default();
        let name = secret.name_any();
        let who = format!(
            "{namespace}/{}",
            name.strip_prefix("knest-").unwrap_or(&name)
        );
        let text = secret.annotations().get(ADDRESSES);
        for address in text.into_iter().flat_map(|t| t.split(',')) {
            if let Ok(address) = address.parse() {
                all.insert(address, who.clone());
            }
        }
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;

    #[test]
    fn only_what_is_yet_to_be_made_gives_way() {
        let mut record = fixture::record(1, 2);
        record.nodes[0].state = NodeState::Ready;
        let made = BTreeSet::from([record.nodes[1].name.to_string()]);
        let all = record.nodes.iter().filter_map(|n| n.address);
        let others = all.map(|a| (a, "team/other".to_owned())).collect();
        let lost = give_back(&mut record.nodes, &others, &made);
        assert_eq!(lost.as_deref(), Some("team/other"));
        let has: Vec<bool> = record.nodes.iter().map(|n| n.address.is_some()).collect();
        assert_eq!(has, [true, true, false]);
        assert_eq!(record.nodes[2].mac, "");
        assert_eq!(give_back(&mut record.nodes, &others, &made), None);
    }
}
