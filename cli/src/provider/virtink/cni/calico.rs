//! Calico, with its own address management. Its objects are in `crd.projectcalico.org/v1`, whether
//! or not its API server stands before them; where they are gone from there, in
//! `projectcalico.org/v3`.
//!
//! ```text
//! IPPool     spec.cidr, spec.disabled, spec.allowedUses
//! IPAMBlock  spec.cidr, spec.allocations: one place an address, null where it is nobody's
//! ```

use super::super::host::Host;
use super::{Cni, Survey, specs};
use crate::cluster::spec::HostCni;
use crate::failure::Result;
use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const STORED: (&str, &str) = ("crd.projectcalico.org", "v1");
const SERVED: (&str, &str) = ("projectcalico.org", "v3");

pub(super) struct Calico;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IpPool {
    cidr: IpNet,
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    allowed_uses: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct IpamBlock {
    cidr: IpNet,
    allocations: Vec<Option<i64>>,
}

#[async_trait]
impl Cni for Calico {
    fn kind(&self) -> HostCni {
        HostCni::Calico
    }

    fn groups(&self) -> &'static [&'static str] {
        &[STORED.0, SERVED.0]
    }

    fn annotations(&self, address: Ipv4Addr, mac: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            (
                "cni.projectcalico.org/ipAddrs".into(),
                format!("[\"{address}\"]"),
            ),
            ("cni.projectcalico.org/hwAddr".into(), mac.into()),
        ])
    }

    fn keeping_free(&self) -> &'static str {
        "an IPReservation keeps Calico from giving addresses to other pods"
    }

    async fn survey(&self, host: &Host) -> Result<Survey> {
        let mut pools = vec![];
        for (group, version) in [STORED, SERVED] {
            if pools.is_empty() {
                pools = specs::<IpPool>(host, group, version, "IPPool", "ippools").await?;
            }
        }
        let (group, version) = STORED;
        let blocks = specs::<IpamBlock>(host, group, version, "IPAMBlock", "ipamblocks").await?;
        Ok(Survey {
            pools: pools.into_iter().filter_map(usable).collect(),
            own: [].into(),
            used: blocks.iter().flat_map(|(_, block)| used(block)).collect(),
        })
    }
}

/// A pool from which pods get addresses.
fn usable((name, pool): (String, IpPool)) -> Option<(String, Ipv4Net)> {
    let uses = &pool.allowed_uses;
    let pods = uses.is_empty() || uses.iter().any(|u| u == "Workload");
    match pool.cidr {
        IpNet::V4(net) if pods && !pool.disabled => Some((name, net)),
        _ => None,
    }
}

fn used(block: &IpamBlock) -> Vec<Ipv4Addr> {
    let IpNet::V4(net) = block.cidr else {
        return vec![];
    };
    let places = net.network().to_bits()..=net.broadcast().to_bits();
    let given = places.zip(&block.allocations);
    given
        .filter(|(_, allocation)| allocation.is_some())
        .map(|(bits, _)| Ipv4Addr::from_bits(bits))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pool_must_be_for_pods() {
        let of = |spec| usable(("p".into(), serde_json::from_value(spec).unwrap()));
        assert!(of(json!({"cidr": "10.244.0.0/16", "ipipMode": "Always"})).is_some());
        assert!(
            of(json!({"cidr": "10.0.0.0/16", "allowedUses": ["Workload", "Tunnel"]})).is_some()
        );
        assert!(of(json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"]})).is_none());
        assert!(of(json!({"cidr": "10.0.0.0/16", "disabled": true})).is_none());
        assert!(of(json!({"cidr": "fd00::/48"})).is_none());
    }

    #[test]
    fn a_block_says_which_addresses_are_somebodys() {
        let block = json!({"cidr": "10.0.0.64/30", "allocations": [0, null, 1, null, 7]});
        let block = serde_json::from_value(block).unwrap();
        let last = |a: Ipv4Addr| a.octets()[3];
        assert_eq!(
            used(&block).into_iter().map(last).collect::<Vec<_>>(),
            [64, 66]
        );
    }

    #[test]
    fn what_a_pod_asks_for() {
        let asked = Calico.annotations(Ipv4Addr::new(10, 0, 0, 9), "02:6b:0a:00:00:09");
        assert_eq!(asked["cni.projectcalico.org/ipAddrs"], r#"["10.0.0.9"]"#);
        assert_eq!(asked["cni.projectcalico.org/hwAddr"], "02:6b:0a:00:00:09");
    }
}
