//! Kube-OVN, `kubeovn.io/v1`. A pod's addresses are from the subnets of its namespace, which
//! Kube-OVN writes on it, else from the default one.
//!
//! ```text
//! Subnet  spec.cidrBlock: of one family or both, comma-separated; spec.gateway likewise; spec.default
//! IP      spec.v4IpAddress: one that somebody has
//! ```

use super::super::host::Host;
use super::{Cni, Survey, specs};
use crate::cluster::spec::HostCni;
use crate::failure::Result;
use async_trait::async_trait;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::{ResourceExt, core::PartialObjectMeta};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

const GROUP: &str = "kubeovn.io";
const VERSION: &str = "v1";
/// On a namespace: its subnets, comma-separated.
const SUBNETS: &str = "ovn.kubernetes.io/logical_switch";

pub(super) struct KubeOvn;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subnet {
    cidr_block: String,
    gateway: String,
    #[serde(rename = "default")]
    is_default: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ip {
    #[serde(rename = "v4IpAddress")]
    v4_ip_address: String,
}

#[async_trait]
impl Cni for KubeOvn {
    fn kind(&self) -> HostCni {
        HostCni::KubeOvn
    }

    fn groups(&self) -> &'static [&'static str] {
        &[GROUP]
    }

    fn annotations(&self, address: Ipv4Addr, mac: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("ovn.kubernetes.io/ip_address".into(), address.to_string()),
            ("ovn.kubernetes.io/mac_address".into(), mac.into()),
        ])
    }

    fn keeping_free(&self) -> &'static str {
        "excludeIps of a Subnet keep Kube-OVN from giving addresses to other pods"
    }

    async fn survey(&self, host: &Host) -> Result<Survey> {
        let api: Api<Namespace> = Api::all(host.client.clone());
        let namespace = host
            .call_opt("looking for the namespace's subnets", || {
                api.get_metadata(&host.namespace)
            })
            .await?;
        let wanted = namespace.map(|n| subnets_of(&n)).unwrap_or_default();
        let subnets = specs::<Subnet>(host, GROUP, VERSION, "Subnet", "subnets").await?;
        let (pools, own) = of(&wanted, &subnets);
        let ips = specs::<Ip>(host, GROUP, VERSION, "IP", "ips").await?;
        let used = ips.iter().filter_map(|(_, ip)| first(&ip.v4_ip_address));
        Ok(Survey {
            pools,
            own: own.into_iter().collect(),
            used: used.collect(),
        })
    }
}

fn subnets_of(namespace: &PartialObjectMeta<Namespace>) -> Vec<String> {
    let named = namespace.annotations().get(SUBNETS);
    let names = named.into_iter().flat_map(|text| text.split(','));
    names
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Ranges and gateways of the subnets that are wanted, of the default one where none is.
fn of(wanted: &[String], subnets: &[(String, Subnet)]) -> (Vec<(String, Ipv4Net)>, Vec<Ipv4Addr>) {
    let fits = |(name, subnet): &&(String, Subnet)| match wanted {
        [] => subnet.is_default,
        wanted => wanted.contains(name),
    };
    let fitting = subnets.iter().filter(fits);
    fitting
        .filter_map(|(name, subnet)| {
            let net = first(&subnet.cidr_block)?;
            Some(((name.clone(), net), first::<Ipv4Addr>(&subnet.gateway)))
        })
        .fold((vec![], vec![]), |(mut pools, mut own), (pool, gateway)| {
            pools.push(pool);
            own.extend(gateway);
            (pools, own)
        })
}

/// The part that is of IPv4.
fn first<T: FromStr>(text: &str) -> Option<T> {
    text.split(',').find_map(|part| part.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn subnet(name: &str, spec: serde_json::Value) -> (String, Subnet) {
        (name.into(), serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_namespace_has_its_own_subnets_or_the_default() {
        let subnets = [
            subnet(
                "ovn-default",
                json!({"cidrBlock": "10.16.0.0/16", "gateway": "10.16.0.1", "default": true}),
            ),
            subnet(
                "team",
                json!({"cidrBlock": "fd00::/112,10.17.0.0/24", "gateway": "fd00::1,10.17.0.1"}),
            ),
            subnet("six", json!({"cidrBlock": "fd01::/112"})),
        ];
        let words = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|w| (*w).into()).collect();
            let (pools, own) = of(&wanted, &subnets);
            let survey = Survey {
                pools,
                ..Survey::default()
            };
            format!("{}; {own:?}", survey.pools())
        };
        assert_eq!(words(&[]), "10.16.0.0/16 (ovn-default); [10.16.0.1]");
        assert_eq!(words(&["team", "six"]), "10.17.0.0/24 (team); [10.17.0.1]");
        assert_eq!(words(&["none"]), "nothing; []");
    }

    #[test]
    fn what_a_pod_asks_for() {
        let asked = KubeOvn.annotations(Ipv4Addr::new(10, 0, 0, 9), "02:6b:0a:00:00:09");
        assert_eq!(asked["ovn.kubernetes.io/ip_address"], "10.0.0.9");
        assert_eq!(asked["ovn.kubernetes.io/mac_address"], "02:6b:0a:00:00:09");
    }
}
