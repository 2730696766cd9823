//! What is refused before anything is made, in words.

use super::*;
use crate::cluster::fixture;
use crate::cluster::pool::release;
use crate::cluster::spec::Expose;
use serde_json::json;
use std::collections::BTreeMap;

fn record(addresses: &str) -> Record {
    let mut record = fixture::record(1, 2);
    record.nodes.iter_mut().for_each(release);
    record.spec.provider = ProviderSpec::Virtink(VirtinkSpec {
        namespace: "clusters".into(),
        expose: Expose::Auto,
        node_selector: BTreeMap::new(),
        persistent: Some(PersistentSpec {
            host_cni: HostCni::KubeOvn,
            addresses: addresses.parse().unwrap(),
            storage_class: None,
            access_mode: AccessMode::ReadWriteOnce,
            volume_mode: VolumeMode::Filesystem,
        }),
    });
    record
}

fn set(addresses: &[&str]) -> BTreeSet<Ipv4Addr> {
    addresses.iter().map(|a| a.parse().unwrap()).collect()
}

#[test]
fn addresses_that_can_not_be_had_are_named() {
    let survey = Survey {
        pools: vec![("ovn-default".into(), "10.16.0.0/24".parse().unwrap())],
        own: set(&["10.16.0.1"]),
        used: set(&["10.16.0.20", "10.16.0.30", "10.16.0.31"]),
    };
    let others = set(&["10.16.0.30", "10.16.0.31"]);
    let say = |addresses: &str, founding: bool| {
        let record = record(addresses);
        let persistent = Persistent::of(&record).unwrap();
        match check_addresses(&persistent, &survey, &others, founding) {
            Ok(()) => "fits".to_owned(),
            Err(failure) => failure.to_string(),
        }
    };
    insta::assert_snapshot!([
        say("10.16.0.100-10.16.0.103", true),
        say("10.16.0.250-10.16.1.2", true),
        say("10.16.0.0/29", true),
        say("10.16.0.20-10.16.0.25", true),
        say("10.16.0.20-10.16.0.25", false),
        say("10.16.0.28-10.16.0.33", true),
        say("10.16.0.28-10.16.0.32", true),
    ].join("\n"), @"
    fits
    machine address 10.16.1.0 is not one that kube-ovn gives pods here: it has 10.16.0.0/24 (ovn-default)
    machine address 10.16.0.1 is a gateway of the host's network
    machine address 10.16.0.20 is in use by a pod that is no machine of knest's
    fits
    fits
    of the 5 machine addresses 3 are free, and 4 are needed: one more than there are new nodes, for a node to be replaced before the old one leaves
    ");
}

#[test]
fn a_nodes_own_address_is_not_in_its_way() {
    let mut record = record("10.16.0.100-10.16.0.103");
    record.nodes[0].address = Some(Ipv4Addr::new(10, 16, 0, 100));
    let survey = Survey {
        pools: vec![("p".into(), "10.16.0.0/16".parse().unwrap())],
        used: set(&["10.16.0.100"]),
        ..Survey::default()
    };
    let persistent = Persistent::of(&record).unwrap();
    assert!(check_addresses(&persistent, &survey, &BTreeSet::new(), true).is_ok());
}

#[test]
fn a_storage_class_is_named_or_the_default() {
    let class = |name: &str, default: &str, age: u8| -> StorageClass {
        serde_json::from_value(json!({"provisioner": "x", "metadata": {
            "name": name, "creationTimestamp": format!("2026-01-0{age}T00:00:00Z"),
            "annotations": {DEFAULT_CLASS: default},
        }}))
        .unwrap()
    };
    let classes = [
        class("slow", "false", 1),
        class("fast", "true", 3),
        class("old", "true", 2),
    ];
    let say = |named, classes: &[StorageClass]| match choose("office", named, classes) {
        Ok(class) => format!("{}\n", class.name_any()),
        Err(failure) => failure.render(),
    };
    insta::assert_snapshot!([
        say(Some("slow"), &classes),
        say(None, &classes),
        say(Some("none"), &classes),
        say(None, &classes[..1]),
        say(None, &[]),
    ].concat(), @"
    slow
    fast
    error: context office has no storage class none
    hint: it has: slow, fast, old
    error: context office has no default storage class
    hint: name one with --storage-class; it has: slow
    error: context office has no default storage class
    hint: name one with --storage-class; it has none at all: machines' disks need a storage provisioner
    ");
}
