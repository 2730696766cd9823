//! The scripts are compared, checked, and really run: in a mount namespace of their own, where
//! `kubeadm` and its kin only write down how they were called.

use super::*;
use crate::cluster::fixture;
use crate::cluster::pki::Pki;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use time::OffsetDateTime;

/// What the first control plane's script writes: eight keys and certificates, a patch for each of four
/// static pods, kubeadm's document.
const FILES: usize = 13;

fn scripts() -> [(&'static str, String); 3] {
    let record = fixture::record(3, 1);
    let token = fixture::token();
    let first = fixture::first(&record, Role::ControlPlane);
    let worker = fixture::first(&record, Role::Worker);
    [
        ("init", init(&record, first, &token).unwrap()),
        (
            "join_control_plane",
            join(&record, &record.nodes[1], &token).unwrap(),
        ),
        ("join_worker", join(&record, worker, &token).unwrap()),
    ]
}

fn feed(command: &mut Command, input: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn as_reviewed() {
    for (name, script) in scripts() {
        insta::assert_snapshot!(name, script);
    }
}

#[test]
fn shellcheck_agrees() {
    let quiet = Command::new("shellcheck")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !quiet.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no shellcheck");
        return;
    }
    for (name, script) in scripts() {
        let output = feed(
            Command::new("shellcheck").args(["--shell", "sh", "-"]),
            &script,
        );
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {said}");
    }
}

#[test]
fn with_real_keys_it_is_small() {
    let mut record = fixture::record(1, 0);
    record.pki = Some(Pki::generate(OffsetDateTime::now_utc()).unwrap());
    let script = init(&record, &record.nodes[0], &fixture::token()).unwrap();
    assert!(script.len() < 16 << 10, "{}", script.len());
}

#[test]
fn a_worker_gets_no_keys() {
    let [.., (_, script)] = scripts();
    assert!(!script.contains("PRIVATE KEY") && !script.contains("/etc/kubernetes/pki"));
}

#[test]
fn a_file_cannot_end_its_here_document() {
    let content = format!("a\n{DELIMITER}\nrm -rf /\n");
    assert!(file("/etc/x", &content).is_err());
    assert!(
        file("/etc/x", "no newline")
            .unwrap()
            .ends_with(&format!("\n{DELIMITER}\n"))
    );
}

/// A machine's root directory, with commands that log their arguments.
struct Machine {
    dir: tempfile::TempDir,
}

/// Lends the machine the host's programs, within a namespace, and runs the script in it.
const ENTER: &str = r#"set -eu
for dir in bin lib lib64 sbin usr/bin usr/lib usr/lib64 usr/sbin dev; do
    [ ! -d "/$dir" ] || { mkdir -p "$1/$dir" && mount --rbind "/$dir" "$1/$dir"; }
done
PATH="/stubs:$PATH" exec chroot "$1" sh /script
"#;

const KUBEADM: &str = r#"#!/bin/sh
echo "kubeadm $*" >>"/log"
case $1 in
reset) rm -rf /etc/kubernetes ;;
*)
    [ ! -e "/refuse" ] || { rm "/refuse"; exit 1; }
    stat -c '%a %n' $(find /etc/kubernetes -type f) /run/knest/kubeadm.yaml >"/modes"
    cp /run/knest/kubeadm.yaml "/seen.yaml" ;;
esac
"#;
const KUBECTL: &str = "#!/bin/sh\necho \"kubectl $*\" >>\"/log\"\ncat >>\"/applied\"\n";
const MASQUERADE: &str = "#!/bin/sh\necho \"masquerade $*\" >>\"/log\"\n";
const SLEEP: &str = "#!/bin/sh\n";

impl Machine {
    /// None where this machine lets nobody make namespaces.
    fn new() -> Option<Self> {
        let mut probe = Command::new("unshare");
        probe.args(["--user", "--map-root-user", "--mount", "true"]);
        let allowed = probe.stderr(Stdio::null()).status();
        if !allowed.is_ok_and(|s| s.success()) {
            eprintln!("skipped: no user and mount namespaces");
            return None;
        }
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for dir in [
            "etc/kubernetes",
            "run",
            "stubs",
            "usr/share/knest/manifests",
            "usr/libexec/knest",
        ] {
            fs_err::create_dir_all(machine.path(dir)).unwrap();
        }
        for (name, text) in [
            ("stubs/kubeadm", KUBEADM),
            ("stubs/kubectl", KUBECTL),
            ("stubs/sleep", SLEEP),
            ("usr/libexec/knest/masquerade", MASQUERADE),
        ] {
            fs_err::write(machine.path(name), text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs_err::set_permissions(machine.path(name), mode).unwrap();
        }
        let cni = "type: @OVERLAY_TYPE@\nrange: @POD_CIDR@\n";
        fs_err::write(machine.path("usr/share/knest/manifests/cni.yaml"), cni).unwrap();
        Some(machine)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.path(name)).unwrap()
    }

    /// What it printed, and whether it succeeded.
    fn boot(&self, script: &str) -> (String, bool) {
        fs_err::write(self.path("script"), script).unwrap();
        let dir: &Path = self.dir.path();
        let output = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                ENTER,
                "sh",
            ])
            .arg(dir)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8(text).unwrap(), output.status.success())
    }
}

#[test]
fn init_runs_once_and_leaves_no_document() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let [(_, script), ..] = scripts();
    let (said, ok) = machine.boot(&script);
    assert!(ok, "{said}");
    assert_eq!(said, "knest: user-data begins\nknest: user-data ends (0)\n");
    assert!(
        machine.read("modes").lines().all(|l| l.starts_with("600 ")),
        "{}",
        machine.read("modes")
    );
    assert_eq!(machine.read("modes").lines().count(), FILES);
    assert!(
        machine
            .read("seen.yaml")
            .contains("kind: InitConfiguration")
    );
    assert!(!machine.path("run/knest/kubeadm.yaml").exists());
    assert_eq!(
        machine.read("applied"),
        "type: subnet\nrange: 10.244.0.0/16\n"
    );
    let calls = machine.read("log");
    let count = |text: &str, what: &str| text.matches(what).count();
    assert_eq!(
        (count(&calls, "kubeadm init"), count(&calls, "kubectl")),
        (1, 1),
        "{calls}"
    );
    assert!(calls.starts_with("masquerade 10.244.0.0/16\n"), "{calls}");

    // Again: the cluster is not made a second time, what is applied is applied.
    assert!(machine.boot(&script).1);
    let calls = machine.read("log");
    assert_eq!(
        (count(&calls, "kubeadm init"), count(&calls, "kubectl")),
        (1, 2),
        "{calls}"
    );
    assert_eq!(count(&calls, "reset"), 0);
}

#[test]
fn a_failed_init_is_told_and_begun_anew() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let [(_, script), ..] = scripts();
    fs_err::write(machine.path("refuse"), "").unwrap();
    let (said, ok) = machine.boot(&script);
    assert!(
        !ok && said.ends_with("knest: user-data ends (1)\n"),
        "{said}"
    );
    assert!(!machine.path("run/knest/kubeadm.yaml").exists());
    assert!(machine.boot(&script).1);
    assert!(machine.read("log").contains("kubeadm reset --force"));
    assert_eq!(
        machine.read("modes").lines().count(),
        FILES,
        "keys are written again after a reset"
    );
}

#[test]
fn a_join_is_tried_again() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let [_, (_, script), _] = scripts();
    fs_err::write(machine.path("refuse"), "").unwrap();
    let (said, ok) = machine.boot(&script);
    assert!(
        ok && said.contains("knest: join failed, 9 attempts left\n"),
        "{said}"
    );
    assert!(!said.contains(&fixture::token().value));
    let log = machine.read("log");
    let verbs: Vec<_> = log.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    assert_eq!(verbs, ["10.244.0.0/16", "join", "reset", "join"]);
    assert!(
        machine
            .read("seen.yaml")
            .contains("kind: JoinConfiguration")
    );
}
