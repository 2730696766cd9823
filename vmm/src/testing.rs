//! A stand-in for Cloud Hypervisor's API on a real socket (feature `testing`), for what the real one
//! can't be made to do: answers that are slow, cut, huge or no HTTP at all. It knows nothing of guests;
//! what the real one can show is tested with the real one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::exchange::{Attempt, exchange};

/// What a stand-in received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// `GET` or `PUT`.
    pub method: String,
    /// The whole path.
    pub path: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What a stand-in does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// An answer with a status and a body, as Cloud Hypervisor writes it.
    Answer(u16, Vec<u8>),
    /// These bytes, whatever they are; then the connection closes.
    Raw(Vec<u8>),
    /// These bytes, then the second ones again and again, for as long as anyone reads.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes one by one, with this pause before each; then the connection closes.
    Slow(Vec<u8>, Duration),
    /// Nothing, and the connection stays open.
    Silence,
    /// The connection closes.
    Close,
}

impl Reply {
    /// Status 200 and JSON.
    #[must_use]
    pub fn json(body: &serde_json::Value) -> Self {
        Self::Answer(200, body.to_string().into_bytes())
    }

    /// Status 204.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Answer(204, Vec::new())
    }

    /// An error with its chain, as v47 and later write it.
    #[must_use]
    pub fn error(status: u16, chain: &[&str]) -> Self {
        Self::Answer(status, serde_json::json!(chain).to_string().into_bytes())
    }

    /// An answer to `vmm.ping`.
    #[must_use]
    pub fn ping(version: &str) -> Self {
        Self::json(&serde_json::json!({
            "build_version": format!("v{version}"), "version": version,
            "pid": std::process::id(), "features": ["kvm"],
        }))
    }
}

/// A stand-in that listens; dropping it closes the socket and removes it.
#[derive(Debug)]
pub struct Stub {
    path: PathBuf,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Stub {
    /// Listens at `path`; `answer` decides on each request.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn listen(
        path: &Path,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move {
                    // A client that hangs up is what many tests are about.
                    let _ended = serve(stream, &*answer, &log).await;
                });
            }
        });
        Ok(Self {
            path: path.to_owned(),
            received,
            task,
        })
    }

    /// What came so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
        // It may be gone already.
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// What the client makes of `answer`, whatever these bytes are, on a connection in memory that closes
/// behind them: by the way of plain requests, and by the way of those that carry descriptors. `None`
/// is a server that is full.
pub async fn read_answer(answer: &[u8]) -> [Option<Result<(u16, Vec<u8>), String>>; 2] {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let mut bytes = Vec::new();
        receive(&mut server, &mut bytes).await?;
        server.write_all(answer).await?;
        server.shutdown().await
    };
    let request = crate::request::vmm_ping();
    let ask = exchange(client, &request, Default::default());
    // A client that has seen enough hangs up, and the rest can't be written.
    let (plain, _written) = tokio::join!(ask, serve);
    let plain = match plain {
        Ok(Attempt::Answer { status, body }) => Some(Ok((status, body.to_vec()))),
        Ok(Attempt::Busy) => None,
        Err(problem) => Some(Err(format!("{problem:?}"))),
    };
    let beside = crate::fdpass::receive(&mut &*answer).await;
    [
        plain,
        Some(beside.map_err(|problem| format!("{problem:?}"))),
    ]
}

async fn serve(
    mut stream: UnixStream,
    answer: &(dyn Fn(&Received) -> Reply + Send + Sync),
    log: &Mutex<Vec<Received>>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let Some(request) = receive(&mut stream, &mut bytes).await? else {
            return Ok(());
        };
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request.clone());
        match answer(&request) {
            Reply::Answer(status, body) => {
                let length = match status {
                    204 => String::new(),
                    _ => format!(
                        "Content-Type: application/json\r\nContent-Length: {}\r\n",
                        body.len()
                    ),
                };
                let head = format!(
                    "HTTP/1.1 {status} \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n{length}\r\n"
                );
                stream.write_all(&[head.as_bytes(), &body].concat()).await?;
            }
            Reply::Raw(raw) => return stream.write_all(&raw).await,
            Reply::Endless(head, again) => {
                stream.write_all(&head).await?;
                loop {
                    stream.write_all(&again).await?;
                }
            }
            Reply::Slow(bytes, pause) => {
                for byte in bytes {
                    tokio::time::sleep(pause).await;
                    stream.write_all(&[byte]).await?;
                }
                return Ok(());
            }
            Reply::Silence => {
                // Until the client hangs up.
                stream.read_to_end(&mut bytes).await?;
                return Ok(());
            }
            Reply::Close => return Ok(()),
        }
    }
}

async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
) -> io::Result<Option<Received>> {
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            break std::mem::replace(bytes, rest);
        }
        if stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    while bytes.len() < length {
        if stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
    let rest = bytes.split_off(length);
    let body = std::mem::replace(bytes, rest);
    let mut words = head.split_ascii_whitespace();
    let method = words.next().unwrap_or_default().to_ascii_uppercase();
    let path = words.next().unwrap_or_default().to_owned();
    Ok(Some(Received { method, path, body }))
}
