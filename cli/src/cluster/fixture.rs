//! A cluster for tests: complete, of fixed content, and secret to nobody.

use super::pki::{Authority, KeyFiles, Pki};
use super::quantity::Quantity;
use super::record::{BootstrapToken, Endpoint, NodeRecord, NodeState, Record};
use super::spec::{ClusterSpec, MachineSpec, NetworkSpec, ProviderSpec, Role, VmmKind};
use super::{address, version};
use std::net::Ipv4Addr;
use time::macros::datetime;

/// A record of `control_planes` and `workers` on `local`, ready for its first boot.
pub(crate) fn record(control_planes: u32, workers: u32) -> Record {
    let machine = |count, memory| MachineSpec {
        count,
        cpu_cores: 2,
        memory: Quantity::gib(memory),
        rootfs_size: Quantity::gib(10),
        kernel_image: "kernel".into(),
        rootfs_image: "node".into(),
    };
    let spec = ClusterSpec {
        name: "demo".parse().unwrap(),
        kubernetes_version: version::DEFAULT,
        network: NetworkSpec {
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.112.0.0/16".parse().unwrap(),
        },
        control_plane: machine(control_planes, 2),
        worker: machine(workers, 1),
        provider: ProviderSpec::Local {
            vmm: VmmKind::CloudHypervisor,
            node_cidr: "172.30.0.0/24".parse().unwrap(),
        },
    };
    let mut record = Record::new(spec, datetime!(2026-11-25 00:00 UTC));
    record.endpoint = Some(Endpoint {
        inside: "172.30.0.1:6443".into(),
        outside: "127.0.0.1:40000".into(),
        cert_sans: vec!["127.0.0.1".into(), "localhost".into()],
    });
    record.pki = Some(pki());
    record.bootstrap_token = Some(token());
    for (role, count) in [
        (Role::ControlPlane, control_planes),
        (Role::Worker, workers),
    ] {
        for _ in 0..count {
            let name = record.next_name(role).unwrap();
            let offset = 10 + u32::try_from(record.nodes.len()).unwrap();
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(172, 30, 0, 0).to_bits() + offset);
            record.nodes.push(NodeRecord {
                name,
                role,
                state: NodeState::Wanted,
                version: record.spec.kubernetes_version,
                address: Some(address),
                mac: address::mac_for(address),
            });
        }
    }
    record
}

/// The first node of a role.
pub(crate) fn first(record: &Record, role: Role) -> &NodeRecord {
    record.staying(role).next().unwrap()
}

/// A token that reads as a number where it is not quoted.
pub(crate) fn token() -> BootstrapToken {
    BootstrapToken {
        value: "123456.1234567890123456".into(),
        expires: datetime!(2026-11-25 01:00 UTC),
    }
}

/// Keys of the right form and of no use; the cluster's certificate is a real one, whose key was
/// thrown away.
pub(crate) fn pki() -> Pki {
    let pem = |label: &str, body: &str| {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let authority = |name: &str| Authority {
        certificate: pem("CERTIFICATE", &format!("{name}+certificate")),
        key: pem("PRIVATE KEY", &format!("{name}+key")),
    };
    Pki {
        cluster: Authority {
            certificate: include_str!("testdata/ca.crt").into(),
            ..authority("cluster")
        },
        etcd: authority("etcd"),
        front_proxy: authority("front+proxy"),
        service_account: KeyFiles {
            public: pem("PUBLIC KEY", "service+account+public"),
            private: pem("PRIVATE KEY", "service+account+private"),
        },
    }
}
