//! The script that makes a machine a node: run once, on its first boot, as root, its output on the
//! serial console. Pure rendering; holds secrets, none of which it prints.
//!
//! ```text
//! begins ─► masquerade ─► keys, kubeadm's document ─► kubeadm init ─► CNI, storage ─► ends (0)
//!                              ▲                      kubeadm join ──────────────────► ends (0)
//!                              └─ kubeadm reset, where an attempt was cut short
//! ```

use super::kubeadm;
use super::record::{BootstrapToken, NodeRecord, Record};
use super::spec::{ProviderSpec, Role};
use crate::failure::{Failure, Result};

/// Ends a file inside the script. No PEM and no YAML of ours has such a line.
const DELIMITER: &str = "KNEST_END_OF_FILE";

/// Where kubeadm's document is while kubeadm runs: in memory.
const CONFIG: &str = "/run/knest/kubeadm.yaml";

const HEAD: &str = r#"set -eu
umask 077
export HOME=/root
state=/var/lib/knest
config=/run/knest/kubeadm.yaml

finish() {
    status=$?
    rm -f "$config"
    echo "knest: user-data ends ($status)"
}
trap finish EXIT
echo 'knest: user-data begins'

# Runs what follows the count until it succeeds, at most that many times.
attempt() {
    left=$1
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        echo "knest: $1 failed, $left attempts left"
        sleep 10
    done
}

# Standard input becomes a file that root alone reads.
put() {
    mkdir -p "${1%/*}" && cat >"$1"
}

# kubeadm refuses what an attempt that was cut short left behind.
prepare() {
    if [ -e "$state/attempted" ]; then
        kubeadm reset --force --cri-socket unix:///run/containerd/containerd.sock || return 1
    fi
    put "$state/attempted" </dev/null || return 1
    files
}
"#;

const INIT: &str = r#"
if [ ! -e "$state/node" ]; then
    prepare
    kubeadm init --config "$config" --skip-token-print --skip-phases show-join-command
    put "$state/node" </dev/null
fi
rm -f "$config"
attempt 30 apply /usr/share/knest/manifests/cni.yaml
if [ -e /usr/share/knest/manifests/storage.yaml ]; then
    attempt 30 apply /usr/share/knest/manifests/storage.yaml
fi
"#;

// The API may be there before all that a node asks it for, and then kubeadm gives up at once.
const JOIN: &str = r#"
join() {
    prepare && kubeadm join --config "$config"
}

if [ ! -e "$state/node" ]; then
    attempt 10 join
    put "$state/node" </dev/null
fi
"#;

/// The script of the first control plane. Secret.
pub(crate) fn init(record: &Record, node: &NodeRecord, token: &BootstrapToken) -> Result<String> {
    let documents = kubeadm::init_documents(record, node, token)?;
    let apply = format!(
        r#"
# Hands a manifest of the image to the cluster, its blanks filled.
apply() {{
    sed -e 's|@OVERLAY_TYPE@|{overlay}|g' -e 's|@POD_CIDR@|{pods}|g' "$1" |
        kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout 2m apply \
            --server-side --force-conflicts --field-manager knest -f -
}}
"#,
        overlay = overlay_type(&record.spec.provider),
        pods = record.spec.network.pod_cidr,
    );
    script(record, node, &documents, &[&apply, INIT])
}

/// The script of every other node. Secret.
pub(crate) fn join(record: &Record, node: &NodeRecord, token: &BootstrapToken) -> Result<String> {
    let documents = kubeadm::join_documents(record, node, token)?;
    script(record, node, &documents, &[JOIN])
}

/// kube-router's `--overlay-type`: encapsulation between subnets only, where nodes share a link;
/// between all nodes, where the network below drops what it does not know.
fn overlay_type(provider: &ProviderSpec) -> &'static str {
    match provider {
        ProviderSpec::Local { .. } => "subnet",
        ProviderSpec::Virtink(_) => "full",
    }
}

fn script(record: &Record, node: &NodeRecord, documents: &str, tail: &[&str]) -> Result<String> {
    let mut text = format!(
        "#!/bin/sh\n# Makes this machine node {} of {}.\n",
        node.name, record.spec.name
    );
    text.push_str(HEAD);
    text.push_str("\nfiles() {\n");
    if node.role == Role::ControlPlane {
        let pki = record
            .pki
            .as_ref()
            .ok_or_else(|| kubeadm::incomplete("keys"))?;
        for (name, content) in pki.files() {
            text.push_str(&file(&format!("/etc/kubernetes/pki/{name}"), content)?);
        }
        for (path, patch) in kubeadm::patches::files() {
            text.push_str(&file(&path, &patch)?);
        }
    }
    text.push_str(&file(CONFIG, documents)?);
    text.push_str("}\n\n");
    // Pods need it from the first one on.
    let pods = record.spec.network.pod_cidr;
    text.push_str(&format!("/usr/libexec/knest/masquerade {pods}\n"));
    for part in tail {
        text.push_str(part);
    }
    Ok(text)
}

/// A here-document that writes a file, in a function whose failure it is if it can't.
fn file(path: &str, content: &str) -> Result<String> {
    if content.lines().any(|line| line == DELIMITER) {
        return Err(Failure::internal(format!(
            "{path} has a line that reads {DELIMITER}"
        )));
    }
    let end = if content.ends_with('\n') { "" } else { "\n" };
    Ok(format!(
        "put {path} <<'{DELIMITER}' || return 1\n{content}{end}{DELIMITER}\n"
    ))
}

#[cfg(test)]
mod tests;
