//! What can be written and what is refused; and that any order of giving and taking back leaves no
//! two nodes with one address.

use super::super::fixture;
use super::super::record::{NodeState, Record};
use super::super::spec::Role;
use super::*;
use proptest::prelude::*;

fn pool(text: &str) -> Pool {
    text.parse().unwrap()
}

#[test]
fn addresses_are_read_in_every_form() {
    for (text, count, reads) in [
        ("10.244.0.100-10.244.0.110", 11, "10.244.0.100-10.244.0.110"),
        ("10.0.0.7", 1, "10.0.0.7"),
        ("10.0.0.0/29", 6, "10.0.0.1-10.0.0.6"),
        ("10.0.0.0/31", 2, "10.0.0.0-10.0.0.1"),
        ("10.0.0.3/32", 1, "10.0.0.3"),
        (
            " 10.0.0.9 , 10.0.0.1-10.0.0.3,10.0.0.4",
            5,
            "10.0.0.1-10.0.0.4,10.0.0.9",
        ),
        ("0.0.0.0-0.0.0.1", 2, "0.0.0.0-0.0.0.1"),
        (
            "255.255.255.254-255.255.255.255",
            2,
            "255.255.255.254-255.255.255.255",
        ),
    ] {
        let read = pool(text);
        assert_eq!(
            (read.len(), read.to_string().as_str()),
            (count, reads),
            "{text}"
        );
        assert_eq!(pool(&read.to_string()), read);
        assert_eq!(u64::try_from(read.iter().count()).unwrap(), count);
        let in_nets: u64 = read.nets().map(|n| 1 << (32 - n.prefix_len())).sum();
        assert_eq!(in_nets, count, "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let said: Vec<String> = [
        "",
        "10.0.0.1,",
        "10.244.0.100-",
        "-10.244.0.100",
        "10.244.0.110-10.244.0.100",
        "10.244.0",
        "10.0.0.1-10.0.0.2-10.0.0.3",
        "fd00::1",
        "10.0.0.1-fd00::1",
        "fd00::/64",
        "10.0.0.1/24",
        "10.0.0.0/33",
        "10.0.0.1-10.0.0.5,10.0.0.5-10.0.0.9",
        "10.0.0.0/8",
    ]
    .map(|text| Pool::from_str(text).unwrap_err().to_string())
    .into();
    insta::assert_snapshot!(said.join("\n"), @r#"
    "" is no address, no range like 10.0.0.100-10.0.0.110, and no CIDR
    "" is no address, no range like 10.0.0.100-10.0.0.110, and no CIDR
    the range "10.244.0.100-" lacks an end: write FIRST-LAST
    the range "-10.244.0.100" lacks an end: write FIRST-LAST
    the range 10.244.0.110-10.244.0.100 ends before it begins: write 10.244.0.100-10.244.0.110
    "10.244.0" is no address, no range like 10.0.0.100-10.0.0.110, and no CIDR
    "10.0.0.1-10.0.0.2-10.0.0.3" is no address, no range like 10.0.0.100-10.0.0.110, and no CIDR
    "fd00::1" is not of IPv4, which is all that is supported
    "10.0.0.1-fd00::1" is not of IPv4, which is all that is supported
    "fd00::/64" is not of IPv4, which is all that is supported
    10.0.0.1/24 has bits set beyond its prefix: write 10.0.0.0/24
    "10.0.0.0/33" is no address, no range like 10.0.0.100-10.0.0.110, and no CIDR
    10.0.0.1-10.0.0.5 and 10.0.0.5-10.0.0.9 overlap
    16777214 addresses are more than 65536
    "#);
}

#[test]
fn the_lowest_free_one_is_given_and_kept() {
    let pool = pool("10.0.0.1-10.0.0.4");
    let mut record = bare(1, 2);
    record.nodes[1].address = Some(Ipv4Addr::new(10, 0, 0, 1));
    let taken = BTreeSet::from([Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(9, 9, 9, 9)]);
    assert_eq!(pool.free(&taken), 3);
    pool.assign(&mut record.nodes, &taken).unwrap();
    let given: Vec<u8> = record
        .nodes
        .iter()
        .map(|n| n.address.unwrap().octets()[3])
        .collect();
    assert_eq!(given, [3, 1, 4]);
    assert_eq!(record.nodes[0].mac, "02:6b:0a:00:00:03");
}

#[test]
fn too_few_change_nothing() {
    let mut record = bare(1, 2);
    let before = record.clone();
    let error = pool("10.0.0.1-10.0.0.2").assign(&mut record.nodes, &BTreeSet::new());
    assert_eq!(error, Err(PoolError::Exhausted { all: 2 }));
    assert_eq!(record, before);
}

/// Nodes that have no address yet.
fn bare(control_planes: u32, workers: u32) -> Record {
    let mut record = fixture::record(control_planes, workers);
    record.nodes.iter_mut().for_each(release);
    record
}

fn addresses(record: &Record) -> BTreeSet<Ipv4Addr> {
    record.nodes.iter().filter_map(|n| n.address).collect()
}

/// What is done to one of two clusters on one pool.
#[derive(Clone, Debug)]
enum Act {
    Grow(usize, u32),
    Shrink(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..2_usize, 1..4_u32).prop_map(|(cluster, by)| Act::Grow(cluster, by)),
        (0..2_usize, 0..12_usize).prop_map(|(cluster, which)| Act::Shrink(cluster, which)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_order_of_giving_and_taking_back_gives_one_twice(
        acts in proptest::collection::vec(act(), 1..30)
    ) {
        let pool = pool("10.0.0.2,10.0.0.5-10.0.0.9,10.0.1.0/30");
        let mut clusters = [bare(1, 0), bare(1, 0)];
        for cluster in &mut clusters {
            cluster.nodes.clear();
        }
        for act in acts {
            match act {
                Act::Grow(which, by) => {
                    let others = addresses(&clusters[1 - which]);
                    let record = &mut clusters[which];
                    let before = record.clone();
                    for _ in 0..by {
                        let name = record.next_name(Role::Worker).unwrap();
                        record.nodes.push(NodeRecord {
                            name,
                            role: Role::Worker,
                            state: NodeState::Wanted,
                            version: record.spec.kubernetes_version,
                            address: None,
                            mac: String::new(),
                        });
                    }
                    let mut taken = others.clone();
                    taken.extend(addresses(record));
                    let room = pool.free(&taken);
                    let given = pool.assign(&mut record.nodes, &others);
                    prop_assert_eq!(given.is_ok(), room >= u64::from(by));
                    for (was, is) in before.nodes.iter().zip(&record.nodes) {
                        prop_assert_eq!(was, is, "a node keeps its address");
                    }
                    if given.is_err() {
                        *record = before;
                    }
                }
                Act::Shrink(which, index) => {
                    let nodes = &mut clusters[which].nodes;
                    if index < nodes.len() {
                        nodes.remove(index);
                    }
                }
            }
            let all: Vec<&NodeRecord> = clusters.iter().flat_map(|c| &c.nodes).collect();
            let distinct: BTreeSet<_> = all.iter().map(|n| n.address).collect();
            let macs: BTreeSet<_> = all.iter().map(|n| &n.mac).collect();
            prop_assert_eq!((distinct.len(), macs.len()), (all.len(), all.len()));
            let taken: BTreeSet<Ipv4Addr> = all.iter().filter_map(|n| n.address).collect();
            prop_assert!(taken.iter().all(|a| pool.iter().any(|p| p == *a)));
            let free = pool.free(&taken);
            prop_assert_eq!(free, pool.len() - u64::try_from(taken.len()).unwrap());
        }
    }
}
