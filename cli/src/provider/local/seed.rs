//! What a machine reads when it first boots: who it is, where it is, and the script that makes it a
//! node. Rendering is pure; the volume is `knest-rootfs`'s.

use super::network::{DNS_FORWARD, gateway};
use crate::failure::{Context, Result};
use crate::provider::MachineRequest;
use ipnet::Ipv4Net;
use knest_rootfs::Seed;
use std::io::{Seek, SeekFrom, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// A resolver has room for this many.
const NAMESERVERS: usize = 3;

/// What stands where the script stood.
const SEALED: &str = "#!/bin/sh\n# This node has booted: what its first boot needed is gone.\n";

/// A machine's seed.
pub(super) fn seed(request: &MachineRequest, range: Ipv4Net, nameservers: &[Ipv4Addr]) -> Seed {
    let node = &request.node;
    let config = node
        .address
        .map(|a| network_config(&node.mac, a, range, nameservers));
    Seed {
        user_data: request.user_data.clone().into_bytes(),
        ..sealed(node.name.as_str(), config)
    }
}

/// The same without what is secret. The instance's name stays, so that nothing is run twice.
pub(super) fn sealed(name: &str, network_config: Option<String>) -> Seed {
    Seed {
        user_data: SEALED.into(),
        meta_data: format!("instance-id: {name}\nlocal-hostname: {name}\n").into_bytes(),
        network_config: network_config.map(String::into_bytes),
    }
}

/// netplan's version 2: one interface, found by its MAC address, with a fixed address.
pub(crate) fn network_config(
    mac: &str,
    address: Ipv4Addr,
    range: Ipv4Net,
    nameservers: &[Ipv4Addr],
) -> String {
    let mut text = format!(
        "version: 2\n\
         ethernets:\n\
         \x20 node:\n\
         \x20   match:\n\
         \x20     macaddress: \"{mac}\"\n\
         \x20   addresses: [{address}/{}]\n\
         \x20   routes:\n\
         \x20     - to: default\n\
         \x20       via: {}\n",
        range.prefix_len(),
        gateway(range),
    );
    if !nameservers.is_empty() {
        let list: Vec<String> = nameservers.iter().map(Ipv4Addr::to_string).collect();
        text.push_str(&format!(
            "    nameservers:\n      addresses: [{}]\n",
            list.join(", ")
        ));
    }
    text
}

/// The host's resolvers as a machine can ask them, out of the text of `resolv.conf`. One on the
/// host's loopback is reached through pasta, by the address that pasta answers for it.
pub(crate) fn nameservers(resolv_conf: &str, pasta: bool) -> Vec<Ipv4Addr> {
    let words = |line: &str| -> Option<IpAddr> {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())??
            .parse()
            .ok()
    };
    let all: Vec<IpAddr> = resolv_conf.lines().filter_map(words).collect();
    let mut reachable: Vec<Ipv4Addr> = all
        .iter()
        .filter_map(|a| match a {
            IpAddr::V4(a) if !a.is_loopback() && !a.is_unspecified() => Some(*a),
            _ => None,
        })
        .take(NAMESERVERS)
        .collect();
    if reachable.is_empty() && pasta {
        reachable.push(DNS_FORWARD);
    }
    reachable
}

/// Overwrites a seed where it lies. Its VMM has it open: a new file in its place would leave the old
/// content with the running machine.
pub(super) fn overwrite(path: &Path, seed: &Seed) -> Result<()> {
    let what = format!("emptying {}", path.display());
    let mut bytes = seed.render().host(&what)?;
    let mut file = fs_err::OpenOptions::new()
        .write(true)
        .open(path)
        .host(&what)?;
    let length = file.metadata().host(&what)?.len();
    // To the old length, for a smaller volume must not leave the end of a larger one.
    bytes.resize(bytes.len().max(usize::try_from(length).unwrap_or(0)), 0);
    file.seek(SeekFrom::Start(0)).host(&what)?;
    file.write_all(&bytes).host(&what)?;
    file.sync_all().host(&what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::{NodeRecord, NodeState};
    use crate::cluster::spec::Role;

    fn request() -> MachineRequest {
        MachineRequest {
            node: NodeRecord {
                name: "demo-worker-2".parse().unwrap(),
                role: Role::Worker,
                state: NodeState::Wanted,
                version: crate::cluster::version::DEFAULT,
                address: Some(Ipv4Addr::new(10, 4, 0, 11)),
                mac: "02:6b:0a:04:00:0b".into(),
            },
            user_data: "#!/bin/sh\necho SECRET\n".into(),
        }
    }

    #[test]
    fn network_config_names_all_that_a_node_needs() {
        let servers = [Ipv4Addr::new(192, 0, 2, 53)];
        let config = |servers: &[Ipv4Addr]| {
            let NodeRecord { mac, address, .. } = request().node;
            network_config(
                &mac,
                address.unwrap(),
                "10.4.0.0/24".parse().unwrap(),
                servers,
            )
        };
        let text = config(&servers);
        insta::assert_snapshot!(text, @r#"
        version: 2
        ethernets:
          node:
            match:
              macaddress: "02:6b:0a:04:00:0b"
            addresses: [10.4.0.11/24]
            routes:
              - to: default
                via: 10.4.0.1
            nameservers:
              addresses: [192.0.2.53]
        "#);
        assert!(!config(&[]).contains("nameservers"));
    }

    #[test]
    fn resolvers_that_machines_can_reach() {
        let text = "# x\nnameserver 127.0.0.53\nsearch a\nnameserver 192.0.2.1\nnameserver ::1\n";
        assert_eq!(nameservers(text, true), [Ipv4Addr::new(192, 0, 2, 1)]);
        assert_eq!(nameservers("nameserver 127.0.0.53\n", true), [DNS_FORWARD]);
        assert_eq!(
            nameservers("nameserver 127.0.0.53\n", false),
            [] as [Ipv4Addr; 0]
        );
        assert_eq!(
            nameservers("nameserver\nnameserver x\n", false),
            [] as [Ipv4Addr; 0]
        );
    }

    #[test]
    fn sealing_leaves_no_secret_in_the_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("seed.img");
        let range = "10.4.0.0/24".parse().unwrap();
        let mut full = seed(&request(), range, &[]);
        full.user_data.resize(3 << 20, b'S');
        full.write(&path).unwrap();
        let has = |text: &[u8]| {
            fs_err::read(&path)
                .unwrap()
                .windows(text.len())
                .any(|w| w == text)
        };
        assert!(has(b"SECRET") && has(b"SSSSSSSS"));
        let config = network_config("02:00:00:00:00:01", Ipv4Addr::new(10, 4, 0, 11), range, &[]);
        overwrite(&path, &sealed("demo-worker-2", Some(config))).unwrap();
        assert!(!has(b"SECRET") && !has(b"SSSSSSSS"));
        assert!(has(b"instance-id: demo-worker-2") && has(b"10.4.0.11/24"));
    }
}
