//! The API's addresses: the Service's own, which nodes use, and one by which it is reached from
//! outside the host. Fixed before the first machine exists, so all of them are in the certificate.

use super::host::Host;
use super::objects::{API_PORT, endpoint, name_of};
use crate::cluster::name::ClusterName;
use crate::cluster::record::Endpoint;
use crate::cluster::spec::Expose;
use crate::failure::{Failure, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{Config, Event, watcher};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a load balancer may take to get its address.
const BALANCER: Duration = Duration::from_secs(300);
/// How long one address may take to show that it can be reached.
const REACH: Duration = Duration::from_secs(2);
/// More addresses than this are not put into the certificate.
const MOST: usize = 64;

/// Makes the Service, and finds its addresses.
pub(super) async fn reserve(
    host: &Host,
    cluster: &ClusterName,
    expose: Expose,
    owner: &OwnerReference,
) -> Result<Endpoint> {
    let name = name_of(cluster);
    let wanted = endpoint(cluster, &host.namespace, expose, owner);
    let made = host.apply("making the API's Service", &name, &wanted);
    let service = made.await?;
    let spec = service.spec.unwrap_or_default();
    let address = spec
        .cluster_ip
        .filter(|ip| !ip.is_empty() && ip != "None")
        .ok_or_else(|| Failure::host(format!("Service {name} got no address")))?;
    let node_port = spec.ports.iter().flatten().find_map(|p| p.node_port);
    let mut names = vec![
        address.clone(),
        "127.0.0.1".into(),
        "localhost".into(),
        format!("{name}.{}.svc", host.namespace),
    ];
    let outside = match (expose, node_port) {
        (Expose::LoadBalancer, _) => {
            let balancer = balancer(host, &name).await?;
            names.push(balancer.clone());
            format!("{balancer}:{API_PORT}")
        }
        (_, Some(port)) => {
            let nodes = node_addresses(host).await?;
            names.extend(nodes.iter().take(MOST).cloned());
            reachable(&nodes, port).await.ok_or_else(|| {
                Failure::host(format!(
                    "port {port} of no node of the host can be reached from here: {}",
                    nodes.join(", ")
                ))
                .hint("--expose loadbalancer asks the host for an address of its own")
            })?
        }
        (_, None) => return Err(Failure::host(format!("Service {name} got no node port"))),
    };
    names.dedup();
    Ok(Endpoint {
        inside: format!("{address}:{API_PORT}"),
        outside,
        cert_sans: names,
    })
}

/// The address that the host's load balancer gives.
async fn balancer(host: &Host, name: &str) -> Result<String> {
    let only = Config::default().fields(&format!("metadata.name={name}"));
    let mut events = Box::pin(watcher(host.api::<Service>(), only));
    let deadline = Instant::now() + BALANCER;
    let mut trouble = String::from("no address yet");
    loop {
        match timeout_at(deadline, events.next()).await {
            Ok(Some(Ok(Event::Apply(service) | Event::InitApply(service)))) => {
                if let Some(address) = ingress(&service) {
                    return Ok(address);
                }
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => {
                trouble = error.to_string();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(None) => return Err(Failure::internal("a watch ended")),
            Err(_) => {
                return Err(Failure::timeout(format!(
                    "Service {name} got no load balancer in {} s; last seen: {trouble}",
                    BALANCER.as_secs()
                ))
                .hint("has the host a controller for them? --expose nodeport needs none"));
            }
        }
    }
}

fn ingress(service: &Service) -> Option<String> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    let first = balancer.ingress.as_ref()?.first()?;
    first.ip.clone().or_else(|| first.hostname.clone())
}

/// Addresses of the host's nodes, external ones first, then whatever the kubeconfig calls its API
/// server. A user who may not list nodes has the last alone.
async fn node_addresses(host: &Host) -> Result<Vec<String>> {
    let api: Api<Node> = Api::all(host.client.clone());
    let few = ListParams::default().limit(u32::try_from(MOST).unwrap_or(u32::MAX));
    let listed = host
        .call("listing the host's nodes", || api.list(&few))
        .await;
    let nodes = match listed {
        Ok(nodes) => nodes.items,
        Err(failure) => {
            tracing::debug!(%failure, "node addresses");
            vec![]
        }
    };
    let of = |kind: &str| {
        let addresses = nodes
            .iter()
            .filter_map(|n| n.status.as_ref()?.addresses.as_ref())
            .flatten();
        let kind = kind.to_owned();
        addresses
            .filter(move |a| a.type_ == kind)
            .map(|a| a.address.clone())
            .collect::<Vec<_>>()
    };
    let mut all = of("ExternalIP");
    all.extend(of("InternalIP"));
    all.extend(host.server.clone());
    // IPv4 and names: what the cluster itself speaks.
    all.retain(|a| !a.contains(':'));
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|a| seen.insert(a.clone()));
    Ok(all)
}

/// The first address that answers on the port: a refusal is an answer too, since nobody listens
/// behind the Service yet.
async fn reachable(addresses: &[String], port: i32) -> Option<String> {
    let looks = addresses.iter().map(|address| async move {
        let place = format!("{address}:{port}");
        let answers = match timeout(REACH, TcpStream::connect(&place)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
            Err(_) => false,
        };
        answers.then_some(place)
    });
    futures::future::join_all(looks)
        .await
        .into_iter()
        .flatten()
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_shows_that_an_address_can_be_reached() {
        let port = {
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            i32::from(taken.local_addr().unwrap().port())
        };
        let found = reachable(&["127.0.0.1".into()], port).await;
        assert_eq!(found, Some(format!("127.0.0.1:{port}")));
        assert_eq!(reachable(&[], port).await, None);
    }
}
