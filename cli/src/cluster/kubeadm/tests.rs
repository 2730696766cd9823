//! The documents are compared, and put before kubeadm itself where it is found.

use super::*;
use crate::cluster::fixture;
use crate::cluster::pki::Pki;
use serde::Deserialize;
use serde_yaml_ng::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use time::OffsetDateTime;
use x509_parser::prelude::{GeneralName, X509Certificate};

#[path = "../../../../vmm/tests/support/skip.rs"]
mod skip;

fn parse(text: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

#[test]
fn init_of_one() {
    let record = fixture::record(1, 1);
    let node = fixture::first(&record, Role::ControlPlane);
    insta::assert_snapshot!(init_documents(&record, node, &fixture::token()).unwrap());
}

#[test]
fn join_of_a_worker() {
    let record = fixture::record(1, 1);
    let node = fixture::first(&record, Role::Worker);
    insta::assert_snapshot!(join_documents(&record, node, &fixture::token()).unwrap());
}

#[test]
fn join_of_a_control_plane() {
    let record = fixture::record(3, 0);
    let node = record.nodes.last().unwrap();
    insta::assert_snapshot!(join_documents(&record, node, &fixture::token()).unwrap());
}

#[test]
fn elections_are_hurried_only_where_machines_are_fast_and_several() {
    let documents = |control_planes, vmm| {
        let mut record = fixture::record(control_planes, 0);
        let node_cidr = record.spec.provider.node_cidr().unwrap();
        record.spec.provider = ProviderSpec::Local { vmm, node_cidr };
        let text = init_documents(&record, &record.nodes[0], &fixture::token()).unwrap();
        assert!(!text.contains("name: leader-elect\n"), "{text}");
        parse(&text)[1].clone()
    };
    for (control_planes, vmm, patient, slow_etcd) in [
        (1, VmmKind::CloudHypervisor, true, false),
        (3, VmmKind::CloudHypervisor, false, false),
        (1, VmmKind::Qemu, true, true),
        (3, VmmKind::Qemu, true, true),
    ] {
        let cluster = documents(control_planes, vmm);
        for component in ["controllerManager", "scheduler"] {
            let args = &cluster[component]["extraArgs"];
            assert_eq!(args.is_sequence(), patient, "{cluster:?}");
        }
        assert_eq!(cluster["etcd"].is_mapping(), slow_etcd, "{cluster:?}");
    }
}

#[test]
fn only_a_control_plane_without_workers_is_not_tainted() {
    for (workers, taints) in [(0, Value::Sequence(vec![])), (1, Value::Null)] {
        let record = fixture::record(1, workers);
        let text = init_documents(&record, &record.nodes[0], &fixture::token()).unwrap();
        assert_eq!(parse(&text)[0]["nodeRegistration"]["taints"], taints);
    }
}

#[test]
fn an_address_not_yet_known_is_left_to_kubeadm() {
    let mut record = fixture::record(1, 1);
    for node in &mut record.nodes {
        node.address = None;
    }
    let [control_plane, worker] = &record.nodes[..] else {
        panic!("{record:?}")
    };
    let init = init_documents(&record, control_plane, &fixture::token()).unwrap();
    let join = join_documents(&record, worker, &fixture::token()).unwrap();
    assert!(
        !init.contains("localAPIEndpoint") && !init.contains("node-ip"),
        "{init}"
    );
    assert!(!join.contains("node-ip"), "{join}");
}

#[test]
fn an_incomplete_record_is_a_defect() {
    let mut record = fixture::record(1, 0);
    record.endpoint = None;
    let node = record.nodes[0].clone();
    for result in [
        init_documents(&record, &node, &fixture::token()),
        join_documents(&record, &node, &fixture::token()),
    ] {
        assert_eq!(
            result.unwrap_err().to_string(),
            "the record has no endpoint yet"
        );
    }
}

proptest::proptest! {
    /// YAML takes some tokens for numbers.
    #[test]
    fn a_token_stays_text(value in "[0-9e]{6}\\.[0-9e]{16}") {
        let record = fixture::record(1, 0);
        let token = BootstrapToken { value: value.clone(), ..fixture::token() };
        let text = init_documents(&record, &record.nodes[0], &token).unwrap();
        let read = &parse(&text)[0]["bootstrapTokens"][0]["token"];
        proptest::prop_assert_eq!(read.as_str(), Some(value.as_str()));
    }
}

/// `$KNEST_KUBEADM`, else the first on `PATH`; a test without it says so, in `$KNEST_SKIPS` too.
fn kubeadm() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|dir| dir.join("kubeadm"));
    let named = std::env::var_os("KNEST_KUBEADM").map(PathBuf::from);
    let kubeadm = named.or_else(|| found.find(|file| file.is_file()));
    if kubeadm.is_none() {
        let test = std::thread::current();
        let name = test.name().unwrap_or("kubeadm");
        skip::skip(name, "no kubeadm ($KNEST_KUBEADM or PATH)");
    }
    kubeadm
}

/// `Err` with what it said.
fn validate(kubeadm: &Path, text: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeadm.yaml");
    fs_err::write(&file, text).unwrap();
    let mut command = Command::new(kubeadm);
    command.args(["config", "validate", "--config"]).arg(&file);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(())
    } else {
        Err(said)
    }
}

#[test]
fn kubeadm_takes_the_documents() {
    let Some(kubeadm) = kubeadm() else { return };
    for (control_planes, workers) in [(1, 0), (1, 1), (3, 2)] {
        let record = fixture::record(control_planes, workers);
        let [first, others @ ..] = &record.nodes[..] else {
            panic!("{record:?}")
        };
        let init = init_documents(&record, first, &fixture::token()).unwrap();
        assert_eq!(validate(&kubeadm, &init), Ok(()));
        for node in others {
            let join = join_documents(&record, node, &fixture::token()).unwrap();
            assert_eq!(validate(&kubeadm, &join), Ok(()));
        }
        // It is strict, about the kubelet's document as well.
        let misspelt = init.replace("cgroupDriver", "cgroupDrive");
        assert!(validate(&kubeadm, &misspelt).is_err_and(|e| e.contains("cgroupDrive")));
    }
}

#[test]
fn kubeadm_takes_the_keys() {
    let Some(kubeadm) = kubeadm() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut record = fixture::record(1, 0);
    let pki = Pki::generate(OffsetDateTime::now_utc()).unwrap();
    fs_err::create_dir(dir.path().join("etcd")).unwrap();
    for (name, content) in pki.files() {
        fs_err::write(dir.path().join(name), content).unwrap();
    }
    let authority = pki.cluster.certificate.clone();
    record.pki = Some(pki);
    let documents = init_documents(&record, &record.nodes[0], &fixture::token()).unwrap();
    let place = format!(
        "clusterName: demo\ncertificatesDir: {}\n",
        dir.path().display()
    );
    let file = dir.path().join("kubeadm.yaml");
    fs_err::write(&file, documents.replace("clusterName: demo\n", &place)).unwrap();
    let mut command = Command::new(&kubeadm);
    command
        .args(["init", "phase", "certs", "all", "--config"])
        .arg(&file);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    for existing in ["ca", "etcd/ca", "front-proxy-ca"] {
        assert!(
            said.contains(&format!("Using existing {existing} certificate authority")),
            "{said}"
        );
    }
    assert!(said.contains(r#"Using the existing "sa" key"#), "{said}");

    // What it signed stands on our authority, and holds the names that we asked for.
    let pem = |text: &str| x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap().1;
    let server = pem(&fs_err::read_to_string(dir.path().join("apiserver.crt")).unwrap());
    let (authority, server) = (pem(&authority), &server.parse_x509().unwrap());
    let authority: X509Certificate<'_> = authority.parse_x509().unwrap();
    server
        .verify_signature(Some(authority.public_key()))
        .unwrap();
    let names = server.subject_alternative_name().unwrap().unwrap();
    let names = &names.value.general_names;
    assert!(
        names.contains(&GeneralName::DNSName("localhost")),
        "{names:?}"
    );
    for address in [
        [127, 0, 0, 1],
        [172, 30, 0, 1],
        [172, 30, 0, 10],
        [10, 112, 0, 1],
    ] {
        assert!(
            names.contains(&GeneralName::IPAddress(&address)),
            "{names:?}"
        );
    }
}
