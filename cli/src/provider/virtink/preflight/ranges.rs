//! The host's own ranges, which a cluster's must not overlap: a node could not tell its own pods and
//! Services from the host's.

use crate::cluster::address::overlap;
use crate::cluster::record::Record;
use crate::failure::{Failure, Result};
use crate::provider::virtink::host::Host;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{Api, ListParams};
use std::net::Ipv4Addr;

/// A range of the host's, and whose it is: `the host's Services`.
pub(in crate::provider::virtink) type Taken = (&'static str, Ipv4Net);

pub(super) async fn check(host: &Host, record: &Record) -> Result<()> {
    let network = &record.spec.network;
    let taken = taken(host).await;
    for (label, flag, net) in [
        ("pod", "--pod-network-cidr", network.pod_cidr),
        ("service", "--service-cidr", network.service_cidr),
    ] {
        if let Some((whose, range)) = first_overlap(net, &taken) {
            return Err(Failure::usage(format!(
                "the {label} range {net} overlaps {range}, which is {whose}"
            ))
            .hint(format!("give another one with {flag}")));
        }
    }
    Ok(())
}

/// The first of the ranges that shares an address with `net`.
pub(in crate::provider::virtink) fn first_overlap(net: Ipv4Net, taken: &[Taken]) -> Option<Taken> {
    taken
        .iter()
        .find(|(_, range)| overlap(net, *range))
        .copied()
}

/// All that the user may see of them: single addresses where ranges are not told.
pub(in crate::provider::virtink) async fn taken(host: &Host) -> Vec<Taken> {
    let mut taken = vec![];
    services(host, &mut taken).await;
    let few = ListParams::default().limit(500);
    let nodes: Api<Node> = Api::all(host.client.clone());
    if let Some(nodes) = seen(nodes.list(&few).await) {
        for node in nodes {
            let spec = node.spec.unwrap_or_default();
            let ranges = spec.pod_cidrs.into_iter().flatten().chain(spec.pod_cidr);
            taken.extend(ranges.filter_map(|r| Some(("the host's pods", r.parse().ok()?))));
            let addresses = node.status.unwrap_or_default().addresses;
            let addresses = addresses.unwrap_or_default().into_iter();
            taken
                .extend(addresses.filter_map(|a| Some(("a node's of the host", one(&a.address)?))));
        }
    }
    // A CNI may give out ranges that the nodes do not tell.
    if let Some(pods) = seen(host.api::<Pod>().list(&few).await) {
        let addresses = pods.items.into_iter().filter_map(|p| p.status?.pod_ip);
        taken.extend(addresses.filter_map(|a| Some(("a pod's of the host", one(&a)?))));
    }
    taken
}

async fn services(host: &Host, taken: &mut Vec<Taken>) {
    let whose = "the host's Services";
    let all: Api<ServiceCIDR> = Api::all(host.client.clone());
    if let Some(ranges) = seen(all.list(&ListParams::default()).await) {
        let specs = ranges.items.into_iter().filter_map(|r| r.spec);
        let ranges = specs.flat_map(|s| s.cidrs.unwrap_or_default());
        taken.extend(ranges.filter_map(|r| Some((whose, r.parse().ok()?))));
    }
    // Older than 1.33, or not to be seen: the API's own address is in it.
    let default: Api<Service> = Api::namespaced(host.client.clone(), "default");
    let api = default.get("kubernetes").await.ok();
    let address = api.and_then(|s| s.spec?.cluster_ip);
    taken.extend(address.and_then(|a| Some((whose, one(&a)?))));
}

fn one(address: &str) -> Option<Ipv4Net> {
    address.parse::<Ipv4Addr>().ok().map(Ipv4Net::from)
}

fn seen<T>(answer: kube::Result<T>) -> Option<T> {
    answer
        .inspect_err(|error| tracing::debug!(%error, "the host's ranges"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_an_address_overlaps() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let taken = [
            ("pods", net("10.244.0.0/18")),
            ("a node", one("172.31.0.1").unwrap()),
        ];
        let first = |text| first_overlap(net(text), &taken).map(|(whose, _)| whose);
        assert_eq!(first("10.244.0.0/16"), Some("pods"));
        assert_eq!(first("10.244.1.0/24"), Some("pods"));
        assert_eq!(first("172.31.0.0/16"), Some("a node"));
        assert_eq!(first("10.245.0.0/16"), None);
        assert_eq!(one("fd00::1"), None);
    }
}
