//! The other side of the supervisor's socket: what commands ask of it, and how they get one.

use super::protocol::{LINE_MAX, Op, Outcome, Request, Response, Status, VERSION};
use crate::cluster::name::NodeName;
use crate::failure::{Context, Failure, Kind, Result};
use crate::provider::local::daemon;
use crate::provider::local::process::{Identity, tail};
use crate::provider::local::socket::SocketDir;
use crate::provider::local::state::{ClusterDir, read_json, remove as remove_file};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// An answer that needs no work.
const QUICK: Duration = Duration::from_secs(5);
/// A new supervisor, up to its first answer.
const LAUNCH: Duration = Duration::from_secs(40);
/// Machines started or stopped.
const WORK: Duration = Duration::from_secs(120);
/// A supervisor that has stopped everything, to its own end.
const FAREWELL: Duration = Duration::from_secs(15);

/// Its status, if a supervisor answers.
pub(crate) async fn answering(dir: &ClusterDir) -> Option<Status> {
    call(dir, Op::Status, QUICK).await.ok()
}

/// Sees to it that a supervisor answers: the one that lives, or a new one.
pub(crate) async fn ensure(dir: &ClusterDir) -> Result<Status> {
    if let Some(status) = answering(dir).await {
        return Ok(status);
    }
    let arguments = ["--cluster", dir.name.as_str()];
    daemon::launch(
        "starting the cluster's supervisor",
        dir.path(),
        &arguments,
        LAUNCH,
        || call(dir, Op::Status, QUICK),
    )
    .await
}

/// Starts machines; returns when they run.
pub(crate) async fn start(dir: &ClusterDir, machines: Vec<NodeName>) -> Result<Status> {
    call(dir, Op::Start { machines }, WORK).await
}

/// Has machines power themselves off; returns when they are off, by their will or without.
pub(crate) async fn power_off(
    dir: &ClusterDir,
    machines: Vec<NodeName>,
    patience: Duration,
) -> Result<Status> {
    let op = Op::Stop {
        machines,
        patience: patience.as_secs(),
    };
    call(dir, op, patience + WORK).await
}

/// Stops machines for good. `None` if no supervisor answers.
pub(crate) async fn remove(dir: &ClusterDir, machines: Vec<NodeName>) -> Result<Option<()>> {
    if answering(dir).await.is_none() {
        return Ok(None);
    }
    call(dir, Op::Remove { machines }, WORK)
        .await
        .map(|_| Some(()))
}

/// Ends the supervisor and all that it keeps running, by asking or, where that does not help, by
/// force; then its own process is gone, and what it ran may not be.
pub(crate) async fn stop(dir: &ClusterDir) -> Result<()> {
    let mut told = answering(dir).await.is_some();
    if told && let Err(failure) = call(dir, Op::Shutdown, WORK).await {
        tracing::warn!(%failure, "the supervisor did not stop when asked");
        told = false;
    }
    // A damaged file names nobody; its process bears the mark.
    let supervisor = read_json::<Identity>(&dir.supervisor()).ok().flatten();
    if let Some(supervisor) = supervisor {
        let gone = move || match told && supervisor.ends_within(FAREWELL)? {
            true => Ok(()),
            false => supervisor.end(),
        };
        tokio::task::spawn_blocking(gone)
            .await
            .map_err(|e| Failure::internal("waiting for the supervisor").because(e))??;
    }
    remove_file(&dir.supervisor_socket())?;
    remove_file(&dir.supervisor())
}

async fn call(dir: &ClusterDir, op: Op, limit: Duration) -> Result<Status> {
    let request = serde_json::to_string(&Request {
        version: VERSION,
        op,
    })
    .map_err(|e| Failure::internal("rendering a request").because(e))?;
    let talk = async {
        let stream = SocketDir::open(dir.path())?
            .connect("supervisor.sock")
            .await;
        let (read, mut write) = stream.host("connecting to the supervisor")?.into_split();
        write
            .write_all(format!("{request}\n").as_bytes())
            .await
            .host("asking the supervisor")?;
        let mut line = String::new();
        let mut reader = BufReader::new(read).take(LINE_MAX);
        reader
            .read_line(&mut line)
            .await
            .host("hearing the supervisor")?;
        Ok::<_, Failure>(line)
    };
    let line = tokio::time::timeout(limit, talk).await.map_err(|_| {
        Failure::timeout(format!(
            "the supervisor gave no answer in {} s",
            limit.as_secs()
        ))
        .evidence(tail(&dir.supervisor_log(), 10))
    })??;
    if line.is_empty() {
        return Err(
            Failure::new(Kind::Host, "the supervisor ended without an answer")
                .evidence(tail(&dir.supervisor_log(), 10)),
        );
    }
    let response = serde_json::from_str::<Response>(&line)
        .map_err(|e| Failure::host("the supervisor's answer can't be read").because(e))?;
    match response.outcome {
        _ if response.version != VERSION => Err(Failure::host(format!(
            "the supervisor speaks version {}, this knest {VERSION}",
            response.version
        ))
        .hint("use the knest that made this cluster")),
        Outcome::Done(status) => Ok(status),
        Outcome::Failed(report) => Err(report.into()),
    }
}
