//! The host's network, as far as machines with addresses of their own need it: which addresses it
//! has, who has them, and by which annotations a pod asks for one. One file a network; another one
//! is another file, and a line in [`ALL`]. Knows neither records nor machines.

mod calico;
mod kube_ovn;

use super::host::{Host, is};
use crate::cluster::spec::HostCni;
use crate::failure::{Failure, Result};
use async_trait::async_trait;
use ipnet::Ipv4Net;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Every network that is known.
const ALL: [&dyn Cni; 2] = [&calico::Calico, &kube_ovn::KubeOvn];

/// A host's network.
#[async_trait]
pub(super) trait Cni: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> HostCni;

    /// API groups, of which a host that has this network serves one at least.
    fn groups(&self) -> &'static [&'static str];

    /// Has a pod get this address, and its link this MAC address.
    fn annotations(&self, address: Ipv4Addr, mac: &str) -> BTreeMap<String, String>;

    /// How a host's administrator keeps addresses from being given to pods that ask for none.
    fn keeping_free(&self) -> &'static str;

    /// What a pod in the host's namespace can be given.
    async fn survey(&self, host: &Host) -> Result<Survey>;
}

/// What a network has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Where addresses are from, by the names that the network has for them.
    pub(super) pools: Vec<(String, Ipv4Net)>,
    /// The network's own: gateways.
    pub(super) own: BTreeSet<Ipv4Addr>,
    /// Somebody's.
    pub(super) used: BTreeSet<Ipv4Addr>,
}

impl Survey {
    /// Whether an address is in one of the pools.
    pub(super) fn holds(&self, address: Ipv4Addr) -> bool {
        self.pools.iter().any(|(_, net)| net.contains(&address))
    }

    /// The pools in words.
    pub(super) fn pools(&self) -> String {
        let pools = self.pools.iter();
        let words: Vec<String> = pools.map(|(name, net)| format!("{net} ({name})")).collect();
        match words.is_empty() {
            true => "nothing".into(),
            false => words.join(", "),
        }
    }
}

/// The network of a kind.
pub(super) fn of(kind: HostCni) -> &'static dyn Cni {
    match kind {
        HostCni::Calico => &calico::Calico,
        HostCni::KubeOvn => &kube_ovn::KubeOvn,
    }
}

/// The host's network: the one that is named, which must be there, or the only one there is.
pub(super) async fn detect(host: &Host, named: Option<HostCni>) -> Result<HostCni> {
    let groups = host
        .call("asking which network the host has", || {
            host.client.list_api_groups()
        })
        .await?;
    let served: BTreeSet<&str> = groups.groups.iter().map(|g| g.name.as_str()).collect();
    let there: Vec<HostCni> = ALL
        .into_iter()
        .filter(|cni| cni.groups().iter().any(|group| served.contains(group)))
        .map(Cni::kind)
        .collect();
    choose(&host.context, named, &there)
}

fn choose(context: &str, named: Option<HostCni>, there: &[HostCni]) -> Result<HostCni> {
    match (named, there) {
        (Some(named), there) if there.contains(&named) => Ok(named),
        (Some(named), _) => Err(Failure::usage(format!("context {context} has no {named}"))
            .hint("leave out --host-cluster-cni to have it found")),
        (None, [only]) => Ok(*only),
        (None, []) => Err(Failure::usage(format!(
            "context {context} has neither Calico nor Kube-OVN"
        ))
        .hint("machines get addresses of their own from no other network of a host's")),
        (None, _) => Err(
            Failure::usage(format!("context {context} has both Calico and Kube-OVN"))
                .hint("say which one gives pods their addresses: --host-cluster-cni"),
        ),
    }
}

/// The `spec` of every object of a kind that is in no namespace, by name. An object that does not
/// read like one is left out; a kind that is not there has none.
async fn specs<T: DeserializeOwned>(
    host: &Host,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
) -> Result<Vec<(String, T)>> {
    let kind = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let api: Api<DynamicObject> = Api::all_with(host.client.clone(), &resource);
    let all = ListParams::default();
    let found = host
        .call(format!("reading the host's {plural}"), || async {
            match api.list(&all).await {
                Err(error) if is(&error, 404) => Ok(vec![]),
                found => found.map(|list| list.items),
            }
        })
        .await?;
    let read = |object: DynamicObject| {
        let name = object.metadata.name.unwrap_or_default();
        match serde_json::from_value(object.data["spec"].clone()) {
            Ok(spec) => Some((name, spec)),
            Err(error) => {
                tracing::debug!(%error, "{plural} {name}");
                None
            }
        }
    };
    Ok(found.into_iter().filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_found_or_must_be_named() {
        let said = |named, there: &[HostCni]| match choose("office", named, there) {
            Ok(cni) => format!("{cni}\n"),
            Err(failure) => failure.render(),
        };
        let (calico, ovn) = (HostCni::Calico, HostCni::KubeOvn);
        insta::assert_snapshot!([
            said(None, &[calico]),
            said(Some(ovn), &[calico, ovn]),
            said(Some(ovn), &[calico]),
            said(None, &[]),
            said(None, &[calico, ovn]),
        ].concat(), @r"
        calico
        kube-ovn
        error: context office has no kube-ovn
        hint: leave out --host-cluster-cni to have it found
        error: context office has neither Calico nor Kube-OVN
        hint: machines get addresses of their own from no other network of a host's
        error: context office has both Calico and Kube-OVN
        hint: say which one gives pods their addresses: --host-cluster-cni
        ");
    }

    #[test]
    fn every_network_is_in_the_list() {
        for cni in ALL {
            assert_eq!(of(cni.kind()).kind(), cni.kind());
        }
        let kinds = <HostCni as clap::ValueEnum>::value_variants().len();
        assert_eq!(kinds, ALL.len());
    }
}
