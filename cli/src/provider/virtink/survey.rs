//! Whether a host is fit for clusters: everything that `knest doctor` tells of it.

use super::host::Host;
use super::preflight::{check_access, look_at_hosts, works};
use crate::failure::{Failure, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;

/// One thing that was looked at.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// What it is like, or what is wrong with it.
    pub(crate) found: Result<String>,
    /// Whether no cluster works without it.
    pub(crate) needed: bool,
}

/// Looks at all of it. An error only where the host does not answer.
pub(crate) async fn survey(host: &Host) -> Result<Vec<Line>> {
    let version = host
        .call("asking for the host's version", || {
            host.client.apiserver_version()
        })
        .await?;
    let mut lines = vec![];
    let mut line = |name, needed, found| {
        lines.push(Line {
            name,
            found,
            needed,
        });
    };
    let place = format!(
        "context {}, Kubernetes {}",
        host.context, version.git_version
    );
    line("host", true, Ok(place));
    line("virtink", true, virtink(host).await);
    line("cert-manager", false, cert_manager(host).await);
    let hosts = look_at_hosts(host, &BTreeMap::new()).await;
    let unseen = "you may not look at the host's nodes";
    match hosts {
        Some(hosts) => {
            let words = hosts.words();
            let found = match hosts.none() {
                true => Err(Failure::host(words).hint(
                    "Virtink's daemon gives nodes their devices: \
                     kubectl -n virtink-system get pods -o wide",
                )),
                false => Ok(words),
            };
            line("nodes", true, found);
            line("room", false, Ok(hosts.free()));
        }
        None => line("nodes", false, Ok(unseen.into())),
    }
    line("network", true, network(host).await);
    line("storage", false, Ok(storage(host).await));
    line("quota", false, Ok(quota(host).await));
    let access = check_access(host, false).await;
    let allowed = format!(
        "you may do all that knest needs in namespace {}",
        host.namespace
    );
    line("access", true, access.map(|()| allowed));
    Ok(lines)
}

async fn virtink(host: &Host) -> Result<String> {
    if !host.serves_virtink().await? {
        return Err(Failure::host("not installed").hint("knest install installs it"));
    }
    works(host).await?;
    let api: Api<Deployment> = Api::namespaced(host.client.clone(), "virtink-system");
    let image = api.get("virt-controller").await.ok().and_then(|found| {
        let containers = found.spec.template.spec?.containers;
        containers.into_iter().next()?.image
    });
    Ok(image.unwrap_or_else(|| "served".into()))
}

async fn cert_manager(host: &Host) -> Result<String> {
    let groups = host
        .call("asking for the host's APIs", || {
            host.client.list_api_groups()
        })
        .await?;
    match groups.groups.iter().any(|g| g.name == "cert-manager.io") {
        true => Ok("served".into()),
        false => Err(
            Failure::host("not installed: Virtink's webhooks get no certificate from it")
                .hint("knest install installs it"),
        ),
    }
}

/// The host's CNI, by what runs it, and what it means for machines.
async fn network(host: &Host) -> Result<String> {
    const KNOWN: [(&str, &str); 5] = [
        (
            "calico-node",
            "Calico: machines' UDP passes; their IPIP and VXLAN do not, and are not used",
        ),
        ("kube-ovn-cni", "Kube-OVN"),
        ("kube-flannel-ds", "flannel"),
        ("cilium", "Cilium"),
        ("kindnet", ""),
    ];
    let api: Api<DaemonSet> = Api::all(host.client.clone());
    let Ok(found) = api.list(&ListParams::default()).await else {
        return Ok("you may not look at what runs the host's network".into());
    };
    let has = |name: &str| found.items.iter().any(|d| d.name_any() == name);
    match KNOWN.into_iter().find(|(name, _)| has(name)) {
        Some(("kindnet", _)) => Err(Failure::host(
            "kindnet: Virtink's bridge does not work on it, so machines get no address",
        )
        .hint("give the host another CNI: Calico, Kube-OVN, flannel")),
        Some((_, words)) => Ok(words.into()),
        None => Ok("a CNI that knest does not know".into()),
    }
}

async fn storage(host: &Host) -> String {
    let api: Api<StorageClass> = Api::all(host.client.clone());
    let classes = api.list(&ListParams::default()).await;
    let Ok(classes) = classes else {
        return "you may not look at storage classes; clusters need none".into();
    };
    let names: Vec<String> = classes.iter().map(ResourceExt::name_any).collect();
    match names.is_empty() {
        true => "no storage class; clusters need none".into(),
        false => format!("{}; clusters need none", names.join(", ")),
    }
}

async fn quota(host: &Host) -> String {
    let quotas = host
        .api::<ResourceQuota>()
        .list(&ListParams::default())
        .await;
    let Ok(quotas) = quotas else {
        return "you may not look at quotas".into();
    };
    let words = quotas.items.iter().map(|quota| {
        let status = quota.status.clone().unwrap_or_default();
        let (hard, used) = (
            status.hard.unwrap_or_default(),
            status.used.unwrap_or_default(),
        );
        let each = hard.iter().map(|(name, limit)| {
            let used = used.get(name).map_or("0", |u| &u.0);
            format!("{name} {used}/{}", limit.0)
        });
        let each: Vec<String> = each.collect();
        format!("{}: {}", quota.name_any(), each.join(", "))
    });
    let words: Vec<String> = words.collect();
    match words.is_empty() {
        true => format!("none in namespace {}", host.namespace),
        false => words.join("; "),
    }
}
