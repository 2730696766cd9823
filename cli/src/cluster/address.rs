//! Arithmetic on addresses: which ranges a cluster may have, which address a node gets, which MAC
//! address follows from it. Pure; knows neither interfaces nor providers. IPv4 only.
//!
//! ```text
//! node range   .0 network   .1 gateway (bridge, API)   .2 – .9 kept   .10 … nodes   last: broadcast
//! ```

use crate::failure::{Failure, Result};
use ipnet::{IpNet, Ipv4Net};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The controller manager cuts a range of this length out of the pod range for every node.
pub(crate) const NODE_POD_PREFIX: u8 = 24;

/// kubeadm refuses a pod range that is more than 16 bits shorter than a node's share.
const POD_PREFIX_MIN: u8 = NODE_POD_PREFIX - 16;

/// kube-apiserver refuses a service range of more than 20 bits.
const SERVICE_PREFIX_MIN: u8 = 12;
const SERVICE_PREFIX_MAX: u8 = 24;

/// Offset of the first node in the node range.
const FIRST_NODE: u32 = 10;

/// Ranges that are nobody's to give out.
const SPECIAL: [(&str, Ipv4Net); 4] = [
    (
        "\"this network\"",
        Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    ),
    (
        "loopback",
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    ),
    (
        "link-local",
        Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    ),
    (
        "multicast or reserved",
        Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
    ),
];

/// Why a range or an address is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AddressError {
    #[error("{0:?} is not a range like 10.244.0.0/16")]
    Malformed(String),
    #[error("{0} is an IPv6 range: only IPv4 is supported")]
    Ipv6(IpNet),
    #[error("{given} has bits set beyond its prefix: write {network}")]
    HostBits { given: Ipv4Net, network: Ipv4Net },
    #[error("the {label} range {net} overlaps the {special} range {range}")]
    Special {
        label: String,
        net: Ipv4Net,
        special: &'static str,
        range: Ipv4Net,
    },
    #[error("the {a_label} range {a} and the {b_label} range {b} overlap")]
    Overlap {
        a_label: String,
        a: Ipv4Net,
        b_label: String,
        b: Ipv4Net,
    },
    #[error("the {label} range {net} overlaps {route}, to which this host has a route")]
    Routed {
        label: String,
        net: Ipv4Net,
        route: Ipv4Net,
    },
    #[error(
        "the pod range {net} has room for {room} nodes of a /{NODE_POD_PREFIX} each, {wanted} are wanted"
    )]
    PodRangeTooSmall {
        net: Ipv4Net,
        room: u32,
        wanted: u32,
    },
    #[error("the pod range {0} is too large: kubeadm takes at most a /{POD_PREFIX_MIN}")]
    PodRangeTooLarge(Ipv4Net),
    #[error("the service range {0} is too small: it takes at least a /{SERVICE_PREFIX_MAX}")]
    ServiceRangeTooSmall(Ipv4Net),
    #[error(
        "the service range {0} is too large: kube-apiserver takes at most a /{SERVICE_PREFIX_MIN}"
    )]
    ServiceRangeTooLarge(Ipv4Net),
    #[error("the node range {net} has room for {room} nodes, {wanted} are wanted")]
    NodeRangeTooSmall {
        net: Ipv4Net,
        room: u32,
        wanted: u32,
    },
    #[error("the node range {0} is full")]
    Full(Ipv4Net),
}

/// Reads a range as a user writes it: IPv4, nothing beyond the prefix.
pub(crate) fn parse_cidr(text: &str) -> Result<Ipv4Net, AddressError> {
    match text.parse::<IpNet>() {
        Ok(IpNet::V4(net)) if net == net.trunc() => Ok(net),
        Ok(IpNet::V4(net)) => Err(AddressError::HostBits {
            given: net,
            network: net.trunc(),
        }),
        Ok(net @ IpNet::V6(_)) => Err(AddressError::Ipv6(net)),
        Err(_) => Err(AddressError::Malformed(text.into())),
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        Self::usage(error.to_string())
    }
}

/// Checks that no two ranges share an address and that none is special. A label completes "the …
/// range 10.0.0.0/8".
pub(crate) fn disjoint(ranges: &[(&str, Ipv4Net)]) -> Result<()> {
    Ok(check_disjoint(ranges)?)
}

/// Checks that the ranges are of a size with which `nodes` nodes can work.
pub(crate) fn check_sizes(pods: Ipv4Net, services: Ipv4Net, nodes: u32) -> Result<()> {
    check_pod_range(pods, nodes)?;
    Ok(check_service_range(services)?)
}

/// Checks that no range holds an address to which the host has a route (of
/// [`parse_proc_net_route`]).
pub(crate) fn check_routes(ranges: &[(&str, Ipv4Net)], routes: &[Ipv4Net]) -> Result<()> {
    for (label, net) in ranges {
        if let Some(route) = routes.iter().find(|route| overlap(**route, *net)) {
            let (label, net, route) = ((*label).into(), *net, *route);
            return Err(AddressError::Routed { label, net, route }.into());
        }
    }
    Ok(())
}

fn check_disjoint(ranges: &[(&str, Ipv4Net)]) -> Result<(), AddressError> {
    for (index, (label, net)) in ranges.iter().enumerate() {
        if let Some((special, range)) = SPECIAL.iter().find(|(_, s)| overlap(*s, *net)) {
            return Err(AddressError::Special {
                label: (*label).into(),
                net: *net,
                special,
                range: *range,
            });
        }
        if let Some((other_label, other)) = ranges[..index].iter().find(|(_, o)| overlap(*o, *net))
        {
            return Err(AddressError::Overlap {
                a_label: (*other_label).into(),
                a: *other,
                b_label: (*label).into(),
                b: *net,
            });
        }
    }
    Ok(())
}

/// Whether two ranges share an address: then one holds the other's first.
pub(crate) fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Checks that the pod range has a share for each of `nodes`.
fn check_pod_range(net: Ipv4Net, nodes: u32) -> Result<(), AddressError> {
    if net.prefix_len() < POD_PREFIX_MIN {
        return Err(AddressError::PodRangeTooLarge(net));
    }
    let room = NODE_POD_PREFIX
        .checked_sub(net.prefix_len())
        .map_or(0, |bits| 1 << bits);
    if nodes > room || room == 0 {
        return Err(AddressError::PodRangeTooSmall {
            net,
            room,
            wanted: nodes,
        });
    }
    Ok(())
}

/// Checks the service range's size.
fn check_service_range(net: Ipv4Net) -> Result<(), AddressError> {
    match net.prefix_len() {
        0..SERVICE_PREFIX_MIN => Err(AddressError::ServiceRangeTooLarge(net)),
        SERVICE_PREFIX_MIN..=SERVICE_PREFIX_MAX => Ok(()),
        _ => Err(AddressError::ServiceRangeTooSmall(net)),
    }
}

/// Checks that the node range has an address for each of `nodes`.
pub(crate) fn check_node_range(net: Ipv4Net, nodes: u32) -> Result<(), AddressError> {
    let (first, last) = node_bounds(net);
    let room = last.saturating_add(1).saturating_sub(first);
    if nodes > room || room == 0 {
        return Err(AddressError::NodeRangeTooSmall {
            net,
            room,
            wanted: nodes,
        });
    }
    Ok(())
}

/// The node range's gateway: its first host address.
pub(crate) fn gateway(net: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(net.network().to_bits().saturating_add(1))
}

/// The lowest free node address.
pub(crate) fn allocate(
    net: Ipv4Net,
    taken: impl IntoIterator<Item = Ipv4Addr>,
) -> Result<Ipv4Addr, AddressError> {
    let taken: BTreeSet<u32> = taken.into_iter().map(Ipv4Addr::to_bits).collect();
    let (first, last) = node_bounds(net);
    (first..=last)
        .find(|bits| !taken.contains(bits))
        .map(Ipv4Addr::from_bits)
        .ok_or(AddressError::Full(net))
}

/// First and last node address; the last is below the first where there is no room.
fn node_bounds(net: Ipv4Net) -> (u32, u32) {
    let first = net.network().to_bits().saturating_add(FIRST_NODE);
    (first, net.broadcast().to_bits().saturating_sub(1))
}

/// The MAC address that follows from a node's address: unicast, locally administered, and unique
/// where addresses are.
pub(crate) fn mac_for(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:6b:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The destinations in the text of `/proc/net/route`: routes that are up, without the default
/// route, which overlaps everything and takes nothing. Lines that are not routes are left out.
///
/// Columns: `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses being a native
/// 32-bit number whose bytes in memory are the address.
pub(crate) fn parse_proc_net_route(text: &str) -> Vec<Ipv4Net> {
    const UP: u32 = 1;
    let hex = |field: Option<&&str>| field.and_then(|f| u32::from_str_radix(f, 16).ok());
    let route = |line: &str| -> Option<Ipv4Net> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let destination = Ipv4Addr::from(hex(fields.get(1))?.to_ne_bytes());
        let up = hex(fields.get(3))? & UP != 0;
        let mask = Ipv4Addr::from(hex(fields.get(7))?.to_ne_bytes());
        let net = Ipv4Net::with_netmask(destination, mask).ok()?.trunc();
        (up && net.prefix_len() > 0).then_some(net)
    };
    text.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Net {
        parse_cidr(text).unwrap()
    }

    #[test]
    fn ranges_are_read_as_written() {
        assert_eq!(
            parse_cidr("10.244.0.0/16").unwrap().to_string(),
            "10.244.0.0/16"
        );
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "ten/8",
            "10.0.0.0/8,fd00::/64",
        ] {
            assert_eq!(parse_cidr(bad), Err(AddressError::Malformed(bad.into())));
        }
        assert!(matches!(
            parse_cidr("fd00::/64"),
            Err(AddressError::Ipv6(_))
        ));
        assert_eq!(
            parse_cidr("10.0.0.5/24").unwrap_err().to_string(),
            "10.0.0.5/24 has bits set beyond its prefix: write 10.0.0.0/24"
        );
    }

    #[test]
    fn an_overlap_names_both() {
        let ranges = |service| [("pod", net("10.244.0.0/16")), ("service", net(service))];
        assert_eq!(check_disjoint(&ranges("10.96.0.0/12")), Ok(()));
        assert_eq!(
            check_disjoint(&ranges("10.244.128.0/20"))
                .unwrap_err()
                .to_string(),
            "the pod range 10.244.0.0/16 and the service range 10.244.128.0/20 overlap"
        );
        assert_eq!(
            check_disjoint(&[("node", net("0.0.0.0/0"))])
                .unwrap_err()
                .to_string(),
            "the node range 0.0.0.0/0 overlaps the \"this network\" range 0.0.0.0/8"
        );
        assert!(matches!(
            check_disjoint(&[("node", net("127.1.0.0/16"))]),
            Err(AddressError::Special {
                special: "loopback",
                ..
            })
        ));
    }

    #[test]
    fn sizes() {
        assert_eq!(check_pod_range(net("10.244.0.0/16"), 256), Ok(()));
        assert_eq!(check_pod_range(net("10.244.0.0/24"), 1), Ok(()));
        assert!(matches!(
            check_pod_range(net("10.244.0.0/23"), 3),
            Err(AddressError::PodRangeTooSmall {
                room: 2,
                wanted: 3,
                ..
            })
        ));
        assert!(matches!(
            check_pod_range(net("10.244.0.0/25"), 0),
            Err(AddressError::PodRangeTooSmall { room: 0, .. })
        ));
        assert!(check_pod_range(net("10.0.0.0/8"), 2).is_ok());
        assert!(check_pod_range(net("10.0.0.0/7"), 2).is_err());
        for (range, fits) in [
            ("10.0.0.0/11", false),
            ("10.0.0.0/12", true),
            ("10.0.0.0/24", true),
        ] {
            assert_eq!(check_service_range(net(range)).is_ok(), fits, "{range}");
        }
        assert!(check_service_range(net("10.0.0.0/25")).is_err());
        assert_eq!(check_node_range(net("10.0.0.0/28"), 5), Ok(()));
        assert!(matches!(
            check_node_range(net("10.0.0.0/28"), 6),
            Err(AddressError::NodeRangeTooSmall {
                room: 5,
                wanted: 6,
                ..
            })
        ));
        assert!(check_node_range(net("255.255.255.252/30"), 1).is_err());
    }

    #[test]
    fn a_routed_range_is_refused() {
        let ranges = [
            ("pod", net("10.244.0.0/16")),
            ("node", net("172.30.0.0/24")),
        ];
        check_routes(&ranges, &[net("192.168.1.0/24"), net("172.17.0.0/16")]).unwrap();
        assert_eq!(
            check_routes(&ranges, &[net("172.16.0.0/12")])
                .unwrap_err()
                .to_string(),
            "the node range 172.30.0.0/24 overlaps 172.16.0.0/12, to which this host has a route"
        );
    }

    #[test]
    fn routes_of_the_host() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0000000A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            eth1\t0000A8C0\t00000000\t0000\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            odd\t0000000A\t00000000\t0001\t0\t0\t0\tFF00FF00\t0\t0\t0\n\
            short\t0000000A\n";
        let expected = if cfg!(target_endian = "little") {
            vec![net("10.0.0.0/16")]
        } else {
            vec![]
        };
        assert_eq!(parse_proc_net_route(text), expected);
    }

    fn any_net() -> impl Strategy<Value = Ipv4Net> {
        (any::<u32>(), 0u8..=32).prop_map(|(bits, len)| {
            Ipv4Net::new(Ipv4Addr::from_bits(bits), len)
                .unwrap()
                .trunc()
        })
    }

    proptest! {
        #[test]
        fn overlap_is_sharing_an_address(a in any_net(), b in any_net()) {
            let shared = a.network().max(b.network()) <= a.broadcast().min(b.broadcast());
            prop_assert_eq!(overlap(a, b), shared);
            prop_assert_eq!(overlap(a, b), overlap(b, a));
        }

        #[test]
        fn addresses_never_repeat_until_the_range_is_full(bits: u32, len in 24u8..=32) {
            let net = Ipv4Net::new(Ipv4Addr::from_bits(bits), len).unwrap().trunc();
            let mut taken = vec![];
            while let Ok(address) = allocate(net, taken.iter().copied()) {
                prop_assert!(net.contains(&address) && !taken.contains(&address));
                prop_assert!(address > gateway(net) && address < net.broadcast());
                taken.push(address);
            }
            let room = (1u32 << (32 - len)).saturating_sub(11);
            prop_assert_eq!(u32::try_from(taken.len()).unwrap(), room);
            prop_assert_eq!(check_node_range(net, room).is_ok(), room > 0);
            prop_assert!(check_node_range(net, room + 1).is_err());
            // A hole is filled before the range grows.
            if let Some(hole) = taken.first().copied() {
                let others = taken.iter().copied().filter(|a| *a != hole);
                prop_assert_eq!(allocate(net, others), Ok(hole));
            }
        }

        #[test]
        fn mac_addresses_are_local_unicast_and_differ(a: u32, b: u32) {
            let (a, b) = (Ipv4Addr::from_bits(a), Ipv4Addr::from_bits(b));
            let mac = mac_for(a);
            prop_assert_eq!(mac.len(), 17);
            prop_assert_eq!(u8::from_str_radix(&mac[..2], 16).unwrap() & 3, 2);
            prop_assert_eq!(mac == mac_for(b), a == b);
        }

        #[test]
        fn any_text_is_no_panic(text: String) {
            let routes = parse_proc_net_route(&text);
            prop_assert!(routes.len() <= text.lines().count());
            prop_assert!(parse_cidr(&text).map_or(true, |n| n == n.trunc()));
        }
    }
}
