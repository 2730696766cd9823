//! The supervisor's own life: into the namespace while there is one thread, then everything else.

use super::balancer::Balancer;
use super::control::Control;
use super::health;
use super::machines::Machines;
use crate::cluster::name::ClusterName;
use crate::cluster::record::{Phase, Record};
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::provider::local::daemon;
use crate::provider::local::life::Life;
use crate::provider::local::need_nft;
use crate::provider::local::network::{self, API_PORT, Entry, Links, Network, gateway};
use crate::provider::local::process::{Identity, marked};
use crate::provider::local::provider::local;
use crate::provider::local::state::{ClusterDir, read_json, remove};
use ipnet::Ipv4Net;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::TcpListener;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

/// Supervises a cluster until it is told to stop. To be called while the process has one thread.
pub(crate) fn run(paths: &Paths, name: &ClusterName) -> Result<()> {
    let dir = ClusterDir::of(paths, name);
    let lock = daemon::begin(dir.path())?;
    raise_descriptor_limit();
    let record = dir
        .load()?
        .ok_or_else(|| Failure::usage(format!("no cluster {name}")))?;
    if record.phase == Phase::Deleting {
        return Err(Failure::usage(format!("cluster {name} is being deleted")));
    }
    let (outside, range) = place(&record)?;
    let listener = TcpListener::bind(&outside).host(format!(
        "listening on {outside}, where the cluster's API is reached"
    ))?;
    listener.set_nonblocking(true).host("listening")?;

    let living = living(&dir)?;
    end_strays(&dir, &living)?;
    let entry = network::enter(dir.path(), &living)?;
    tracing::info!(pid = std::process::id(), joined = entry.joined, %outside, "inside");

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .host("starting the runtime")?;
    let network = entry.network.clone();
    runtime.block_on(supervise(&dir, paths, record, listener, range, entry))?;
    // Everything has been stopped; the namespace ends with this process.
    if let Some(pasta) = network.pasta {
        pasta.end()?;
    }
    for path in [dir.network(), dir.supervisor_socket(), dir.supervisor()] {
        remove(&path)?;
    }
    drop(lock);
    Ok(())
}

/// The API's address outside and the nodes' range.
fn place(record: &Record) -> Result<(String, Ipv4Net)> {
    let (_, node_cidr) = local(record)?;
    match &record.endpoint {
        Some(endpoint) => Ok((endpoint.outside.clone(), node_cidr)),
        None => Err(Failure::internal("the cluster has no endpoint yet")),
    }
}

/// The VMMs that an earlier supervisor left running.
fn living(dir: &ClusterDir) -> Result<Vec<Identity>> {
    let machines = dir.machines()?;
    let living = machines.iter().filter_map(|m| m.living().transpose());
    living.collect()
}

/// Ends what bears the cluster's mark and is in no file: begun, but not written down in time.
fn end_strays(dir: &ClusterDir, living: &[Identity]) -> Result<()> {
    let way_out = read_json::<Network>(&dir.network())?.and_then(|n| n.pasta);
    for stray in marked(dir.path()) {
        if !living.contains(&stray) && Some(&stray) != way_out.as_ref() {
            tracing::warn!(pid = stray.pid, "ending a process that nobody wrote down");
            stray.end()?;
        }
    }
    Ok(())
}

async fn supervise(
    dir: &ClusterDir,
    paths: &Paths,
    record: Record,
    outside: TcpListener,
    range: Ipv4Net,
    entry: Entry,
) -> Result<()> {
    let nft = need_nft()?;
    let links = Links::open()?;
    links.ensure_bridge(range).await?;
    network::install_masquerade(&nft, range).await?;
    let machines = Machines::new(dir.clone(), paths.clone(), links.clone());
    machines.adopt().await?;

    let balancer = Balancer::new(machines.control_planes());
    let outside = tokio::net::TcpListener::from_std(outside).host("listening outside")?;
    let inside = (gateway(range), API_PORT);
    let inside = tokio::net::TcpListener::bind(inside)
        .await
        .host(format!("listening on {}:{}", inside.0, inside.1))?;
    tokio::spawn(balancer.clone().serve(outside));
    tokio::spawn(balancer.clone().serve(inside));
    let record = Arc::new(record);
    let ready = move |server| {
        let record = Arc::clone(&record);
        async move { health::ready(&record, server).await }
    };
    tokio::spawn(health::watch(balancer, ready));

    let (tell, no_way_out) = watch::channel(None);
    tokio::spawn(network::watch_way_out(
        entry,
        links,
        dir.path().to_owned(),
        tell,
    ));
    remove(&dir.supervisor_socket())?;
    // Relative to the directory, so that its depth does not matter.
    let socket = UnixListener::bind("supervisor.sock").host("listening on supervisor.sock")?;
    let (done, mut ended) = mpsc::channel(1);
    tokio::spawn(
        Control {
            machines,
            no_way_out,
            done,
        }
        .serve(socket),
    );
    ended.recv().await;
    tracing::info!("told to stop");
    Ok(())
}

/// Two descriptors a connection add up.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "raising the limit on open files");
    }
}
