//! What a worker's user-data tells kubeadm, found in the script. Pure.

use serde::Deserialize;

/// How a worker joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Join {
    /// `HOST:PORT`.
    pub(super) server: String,
    pub(super) token: String,
    pub(super) name: String,
}

/// How kubeadm's document begins, in the order that kubeadm itself writes it.
const BEGIN: &str = "kind: JoinConfiguration\n";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    discovery: Discovery,
    #[serde(default)]
    control_plane: Option<serde_json::Value>,
    node_registration: Registration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovery {
    bootstrap_token: Token,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    api_server_endpoint: String,
    token: String,
}

#[derive(Deserialize)]
struct Registration {
    name: String,
}

impl Join {
    /// Of a worker's script; `None` for any other. The document ends at the first line that is no
    /// YAML of its kind: the end of a here-document, in capitals.
    pub(super) fn of(user_data: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(user_data).ok()?;
        let (_, after) = text.split_once(BEGIN)?;
        let lines = after.lines().take_while(|line| {
            let first = line.bytes().next().unwrap_or(b' ');
            first == b' ' || first == b'-' || first.is_ascii_lowercase()
        });
        let document: String = lines.flat_map(|line| [line, "\n"]).collect();
        let document: Document = serde_yaml_ng::from_str(&document).ok()?;
        if document.control_plane.is_some() {
            return None;
        }
        let token = document.discovery.bootstrap_token;
        Some(Self {
            server: token.api_server_endpoint,
            token: token.token,
            name: document.node_registration.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: &str = "#!/bin/sh
put /run/knest/kubeadm.yaml <<'KNEST_END_OF_FILE' || return 1
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken:
    apiServerEndpoint: 10.96.0.10:6443
    token: '123456.1234567890123456'
    caCertHashes:
    - sha256:9f1d
nodeRegistration:
  name: demo-worker-1
KNEST_END_OF_FILE
";

    #[test]
    fn a_worker_is_told_from_a_control_plane() {
        let join = Join::of(WORKER.as_bytes()).unwrap();
        assert_eq!(join.server, "10.96.0.10:6443");
        assert_eq!(join.token, "123456.1234567890123456");
        assert_eq!(join.name, "demo-worker-1");

        let control = WORKER.replace("nodeReg", "controlPlane: {}\nnodeReg");
        assert_eq!(Join::of(control.as_bytes()), None);
        assert_eq!(Join::of(b"#!/bin/sh\nkubeadm init"), None);
    }
}
