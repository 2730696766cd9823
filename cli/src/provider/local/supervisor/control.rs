//! The supervisor's side of its socket.

use super::machines::Machines;
use super::protocol::{LINE_MAX, Op, Outcome, Request, Response, Status, VERSION};
use crate::failure::{Context, Failure, Result};
use crate::provider::local::report::Report;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// How long a client may take to say what it wants, or to take the answer.
const TALK: Duration = Duration::from_secs(10);

/// What answers the socket.
#[derive(Clone)]
pub(super) struct Control {
    pub(super) machines: Machines,
    /// Why machines reach nothing outside, if they don't.
    pub(super) no_way_out: watch::Receiver<Option<String>>,
    /// Told once everything is stopped and the client has its answer.
    pub(super) done: mpsc::Sender<()>,
}

impl Control {
    /// Answers whatever connects, for ever.
    pub(super) async fn serve(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let control = self.clone();
                    tokio::spawn(async move {
                        if let Err(failure) = control.answer(stream).await {
                            tracing::warn!(%failure, "a client went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn answer(&self, stream: UnixStream) -> Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(read).take(LINE_MAX);
        let late = |_| Failure::timeout("a client said nothing");
        let read = tokio::time::timeout(TALK, reader.read_line(&mut line));
        read.await.map_err(late)?.host("reading a request")?;
        let request = serde_json::from_str::<Request>(&line);
        let ends = matches!(&request, Ok(r) if r.op == Op::Shutdown);
        let result = match request {
            Ok(request) if request.version == VERSION => self.act(request.op).await,
            Ok(request) => Err(Failure::host(format!(
                "this cluster's supervisor speaks version {VERSION}, not {}",
                request.version
            ))),
            Err(error) => Err(Failure::internal("a request can't be read").because(error)),
        };
        let ends = ends && result.is_ok();
        let outcome = match result {
            Ok(status) => Outcome::Done(status),
            Err(failure) => Outcome::Failed(Report::from(&failure)),
        };
        let response = serde_json::to_string(&Response {
            version: VERSION,
            outcome,
        });
        let text = response.map_err(|e| Failure::internal("rendering an answer").because(e))?;
        let write = tokio::time::timeout(TALK, async {
            write.write_all(format!("{text}\n").as_bytes()).await?;
            write.shutdown().await
        });
        let written = write.await;
        if ends {
            // Full or closed, it was said before.
            self.done.try_send(()).ok();
        }
        written
            .map_err(|_| Failure::timeout("a client did not take its answer"))?
            .host("answering")
    }

    async fn act(&self, op: Op) -> Result<Status> {
        match op {
            Op::Status => {}
            Op::Start { machines } => self.machines.start(&machines).await?,
            Op::Stop { machines, patience } => {
                let patience = Duration::from_secs(patience);
                self.machines.stop(&machines, patience).await?;
            }
            Op::Remove { machines } => self.machines.remove(&machines).await?,
            Op::Shutdown => self.machines.stop_all().await?,
        }
        let no_way_out = self.no_way_out.borrow().clone();
        Ok(Status {
            pid: std::process::id(),
            no_way_out,
        })
    }
}
