//! The control plane's programs: where they are found, and what each is told. Certificates of
//! their own making, leader election and health ports are off: there is one of each, in a
//! namespace that no one else is in.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::network::HOST;
use super::process::command;
use crate::images;

/// Where Services are.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// Where pods are.
const PODS: &str = "10.244.0.0/16";
/// The port of the API, on [`HOST`].
pub(super) const PORT: u16 = 6443;

/// Every program of a control plane that the host runs.
pub(crate) const PROGRAMS: [&str; 5] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
];

/// The files that the programs read.
///
/// ```text
/// DIRECTORY/pki/{ca,apiserver}.{crt,key}   DIRECTORY/pki/sa.{key,pub}
/// DIRECTORY/etcd/                          DIRECTORY/COMPONENT.kubeconfig
/// ```
pub(super) struct Files<'a>(pub(super) &'a Path);

impl Files<'_> {
    pub(super) fn pki(&self, name: &str) -> PathBuf {
        self.0.join("pki").join(name)
    }

    pub(super) fn kubeconfig(&self, component: &str) -> PathBuf {
        self.0.join(format!("{component}.kubeconfig"))
    }

    /// Its data is thrown away with the test, so nothing is made safe against a power cut.
    pub(super) fn etcd(&self) -> Command {
        let mut command = program("etcd");
        flag(&mut command, "data-dir", self.0.join("etcd").display());
        command.args([
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--log-level=warn",
        ]);
        command
    }

    pub(super) fn apiserver(&self) -> Command {
        let mut command = program("kube-apiserver");
        flag(&mut command, "advertise-address", HOST);
        flag(&mut command, "secure-port", PORT);
        flag(&mut command, "service-cluster-ip-range", SERVICES);
        for (name, file) in [
            ("client-ca-file", "ca.crt"),
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
        ] {
            flag(&mut command, name, self.pki(file).display());
        }
        command.args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--max-requests-inflight=2000",
        ]);
        command
    }

    pub(super) fn controller_manager(&self) -> Command {
        let mut command = self.only("kube-controller-manager");
        for (name, file) in [
            ("root-ca-file", "ca.crt"),
            ("service-account-private-key-file", "sa.key"),
            ("cluster-signing-cert-file", "ca.crt"),
            ("cluster-signing-key-file", "ca.key"),
        ] {
            flag(&mut command, name, self.pki(file).display());
        }
        command
    }

    pub(super) fn scheduler(&self) -> Command {
        self.only("kube-scheduler")
    }

    /// On the node of this name; NodePorts are open at every host's address.
    pub(super) fn proxy(&self, node: &str) -> Command {
        let mut command = self.client("kube-proxy");
        flag(&mut command, "hostname-override", node);
        flag(&mut command, "cluster-cidr", PODS);
        command.args([
            "--proxy-mode=nftables",
            "--nodeport-addresses=172.31.0.0/24",
            "--conntrack-max-per-core=0",
            "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249",
        ]);
        command
    }

    /// A client of which there is one: no leader is to be elected. Its own limit would make a test of
    /// 500 nodes wait for it.
    fn only(&self, name: &str) -> Command {
        let mut command = self.client(name);
        command.args([
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=500",
            "--kube-api-burst=500",
        ]);
        command
    }

    fn client(&self, name: &str) -> Command {
        let mut command = program(name);
        flag(&mut command, "kubeconfig", self.kubeconfig(name).display());
        command
    }
}

fn program(name: &str) -> Command {
    command(images::built(name).unwrap_or_else(|| panic!("{name} is not built")))
}

fn flag(command: &mut Command, name: &str, value: impl std::fmt::Display) {
    command.arg(format!("--{name}={value}"));
}
