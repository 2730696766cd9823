//! The members of a cluster's own etcd, one on each control plane. They are asked and told through
//! `etcdctl` in the etcd pod of a control plane, which the cluster's API reaches: that takes no
//! route to the machines and no client of etcd's, and is the same wherever machines live.

use super::guest::Guest;
use super::name::NodeName;
use super::record::NodeRecord;
use crate::failure::{Context, Failure, Result};
use serde::Deserialize;

const ETCDCTL: [&str; 5] = [
    "etcdctl",
    "--endpoints=https://127.0.0.1:2379",
    "--cacert=/etc/kubernetes/pki/etcd/ca.crt",
    "--cert=/etc/kubernetes/pki/etcd/server.crt",
    "--key=/etc/kubernetes/pki/etcd/server.key",
];

/// What `member list` answers.
#[derive(Debug, Deserialize)]
struct MemberList {
    #[serde(default)]
    members: Vec<Member>,
}

/// A member. Numbers that are 0 and lists that are empty are left out of etcd's JSON.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Member {
    #[serde(rename = "ID", default)]
    id: u64,
    /// Empty until it has started: until then only its address tells whose it is.
    #[serde(default)]
    name: String,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Vec<String>,
}

impl Member {
    fn is_of(&self, node: &NodeRecord) -> bool {
        let peer = |url: &String| {
            let address = url
                .strip_prefix("https://")
                .and_then(|u| u.strip_suffix(":2380"));
            address.is_some() && address == node.address.map(|a| a.to_string()).as_deref()
        };
        self.name == node.name.as_str() || self.name.is_empty() && self.peer_urls.iter().any(peer)
    }
}

/// What `endpoint status` answers for one endpoint.
#[derive(Debug, Deserialize)]
struct Status {
    #[serde(rename = "Status")]
    status: StatusBody,
}

#[derive(Debug, Deserialize)]
struct StatusBody {
    header: Header,
    #[serde(default)]
    leader: u64,
}

#[derive(Debug, Deserialize)]
struct Header {
    #[serde(default)]
    member_id: u64,
}

impl Guest {
    /// Takes the member of `node` out of etcd, asked of the one on `via`, a control plane that
    /// stays. One that is no member is no error. A leader hands over first: with two members, one
    /// that goes while it leads may leave the other without a majority.
    pub(crate) async fn leave_etcd(&self, node: &NodeRecord, via: &NodeName) -> Result<()> {
        let list = self.etcdctl(via, &["member", "list", "-w", "json"]).await?;
        let Some(member) = member_of(&list, node)? else {
            return Ok(());
        };
        let status = self
            .etcdctl(via, &["endpoint", "status", "-w", "json"])
            .await?;
        let (heir, leader) = leader(&status)?;
        if leader == member {
            let handed = self
                .etcdctl(&node.name, &["move-leader", &format!("{heir:x}")])
                .await;
            if let Err(failure) = handed {
                // Its machine may be gone; then another leads in a moment.
                tracing::warn!(%failure, "etcd on {} did not hand over", node.name);
            }
        }
        self.etcdctl(via, &["member", "remove", &format!("{member:x}")])
            .await
            .map(drop)
    }

    async fn etcdctl(&self, node: &NodeName, args: &[&str]) -> Result<String> {
        let command: Vec<&str> = ETCDCTL.iter().chain(args).copied().collect();
        self.exec(&format!("etcd-{node}"), "etcd", &command)
            .await
            .map_err(|failure| failure.while_doing(format!("etcd on {node}: {}", args.join(" "))))
    }
}

/// The number of the member that is on `node`.
fn member_of(list: &str, node: &NodeRecord) -> Result<Option<u64>> {
    let list: MemberList = serde_json::from_str(list).guest("reading etcd's members")?;
    Ok(list.members.iter().find(|m| m.is_of(node)).map(|m| m.id))
}

/// The member that was asked and the one that leads.
fn leader(status: &str) -> Result<(u64, u64)> {
    let all: Vec<Status> = serde_json::from_str(status).guest("reading etcd's status")?;
    let first = all
        .first()
        .ok_or_else(|| Failure::guest("etcd's status is empty"))?;
    Ok((first.status.header.member_id, first.status.leader))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;

    /// As etcdctl 3.6 wrote it, the second member not yet started.
    const LIST: &str = r#"{"header":{"cluster_id":14841639068965178418,"member_id":10276657743932975437,"raft_term":2},"members":[{"ID":10276657743932975437,"name":"demo-control-plane-1","peerURLs":["https://172.30.0.10:2380"],"clientURLs":["https://172.30.0.10:2379"]},{"ID":17,"peerURLs":["https://172.30.0.11:2380"],"isLearner":true}]}"#;

    #[test]
    fn members_are_found_by_name_and_before_that_by_address() {
        let record = fixture::record(3, 0);
        let of = |index: usize| member_of(LIST, &record.nodes[index]).unwrap();
        assert_eq!(of(0), Some(10_276_657_743_932_975_437));
        assert_eq!(of(1), Some(17));
        assert_eq!(of(2), None);
        assert!(member_of("Error: no", &record.nodes[0]).is_err());
    }

    #[test]
    fn an_address_given_anew_is_not_its_former_owner() {
        let mut record = fixture::record(3, 0);
        record.nodes[2].address = record.nodes[0].address;
        assert_eq!(member_of(LIST, &record.nodes[2]).unwrap(), None);
        record.nodes[2].address = None;
        assert_eq!(member_of(LIST, &record.nodes[2]).unwrap(), None);
    }

    #[test]
    fn the_leader() {
        let status = r#"[{"Endpoint":"https://127.0.0.1:2379","Status":{"header":{"cluster_id":1,"member_id":7,"revision":5,"raft_term":2},"version":"3.6.5","dbSize":20480,"leader":9,"raftIndex":9}}]"#;
        assert_eq!(leader(status).unwrap(), (7, 9));
        assert!(leader("[]").is_err());
    }
}
