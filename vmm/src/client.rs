//! Sends requests over the API socket: one fresh HTTP/1.1 connection each.
//!
//! A fresh connection costs 9 µs more than a kept one, and spares stale and poisoned connections.
//! Cloud Hypervisor serves ten at most and answers one call at a time, so a client keeps at most
//! [`IN_FLIGHT`] open, and retries within the deadline when others have taken them all. It knows
//! nothing of processes: a call to a Cloud Hypervisor that died fails as `Transport`, and
//! [`crate::vm::Vm`] says of what it died.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{ApiError, Error, Result};
use crate::exchange::{self, Attempt, Broken};
use crate::info::{self, PciDeviceInfo, VmCounters, VmInfo, VmmPing};
use crate::request::{self, Body, Class, Request};

/// Connections one client (with its clones) has open at a time.
pub const IN_FLIGHT: usize = 4;
/// The largest request body that Cloud Hypervisor up to v53 takes. A larger one is read as further
/// requests, so it is never sent.
pub const BODY_LIMIT: usize = 51_200;
/// The largest answer that is read.
pub const ANSWER_LIMIT: usize = 16 << 20;

/// The longest pause between two attempts at a busy Cloud Hypervisor.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How long each class of call may take, waiting for a free connection included.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Ping.
    pub ping: Duration,
    /// Info, counters.
    pub query: Duration,
    /// Changes to configuration and devices.
    pub change: Duration,
    /// Boot, shutdown, reboot, delete.
    pub long: Duration,
    /// Snapshot, restore, migration.
    pub transfer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(1),
            query: Duration::from_secs(2),
            change: Duration::from_secs(10),
            long: Duration::from_secs(120),
            transfer: Duration::from_secs(2 * 3600),
        }
    }
}

impl Timeouts {
    /// The time-out of `class`.
    #[must_use]
    pub fn of(&self, class: Class) -> Duration {
        match class {
            Class::Ping => self.ping,
            Class::Query => self.query,
            Class::Change => self.change,
            Class::Long => self.long,
            Class::Transfer => self.transfer,
        }
    }
}

/// A client of one API socket. Clones share its connections' limit.
#[derive(Debug, Clone)]
pub struct Client {
    socket: Arc<Path>,
    timeouts: Timeouts,
    body_limit: usize,
    slots: Arc<Semaphore>,
}

impl Client {
    /// A client of the socket at `path`; connects only when called.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::with_timeouts(path, Timeouts::default())
    }

    /// A client with its own time-outs.
    #[must_use]
    pub fn with_timeouts(path: impl Into<PathBuf>, timeouts: Timeouts) -> Self {
        Self {
            socket: path.into().into(),
            timeouts,
            body_limit: BODY_LIMIT,
            slots: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// The same client with another limit for request bodies; see
    /// [`crate::capability::Capabilities::body_limit`].
    #[must_use]
    pub fn with_body_limit(mut self, limit: usize) -> Self {
        self.body_limit = limit;
        self
    }

    /// The API socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes a call and returns the body of its answer, within its class's time-out.
    ///
    /// # Errors
    /// [`Error::Api`] when refused, [`Error::Timeout`], [`Error::Busy`], [`Error::Transport`], and
    /// what is wrong with the request itself.
    pub async fn call(&self, request: &Request) -> Result<Bytes> {
        self.call_within(request, self.timeouts.of(request.class))
            .await
    }

    /// Makes a call within a time-out of its own.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_within(&self, request: &Request, limit: Duration) -> Result<Bytes> {
        let body = self.body(request)?;
        let deadline = Instant::now() + limit;
        let name = request.name;
        let mut busy = false;
        let attempts = async {
            let _slot = self
                .slots
                .acquire()
                .await
                .map_err(|_| self.transport(name, io::Error::other("the client is closed")))?;
            let mut pause = Duration::from_millis(1);
            loop {
                match self.attempt(request, body.clone()).await? {
                    Attempt::Answer { status, body } => return self.answer(name, status, body),
                    Attempt::Busy => busy = true,
                }
                sleep(pause).await;
                pause = (pause * 2).min(BUSY_PAUSE);
            }
        };
        match timeout_at(deadline, attempts).await {
            Ok(result) => result,
            Err(_) => {
                let (call, socket) = (name, self.socket.to_path_buf());
                Err(if busy {
                    Error::Busy {
                        call,
                        socket,
                        waited: limit,
                    }
                } else {
                    Error::Timeout {
                        call,
                        socket,
                        waited: limit,
                    }
                })
            }
        }
    }

    /// Makes a call and reads its answer as JSON.
    ///
    /// # Errors
    /// As [`Client::call`], and [`Error::Decode`].
    pub async fn query<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let body = self.call(request).await?;
        decode(request.name, &body)
    }

    /// Adds a device: its PCI address when the VM runs, nothing when it was added cold.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn add(&self, request: &Request) -> Result<Option<PciDeviceInfo>> {
        let body = self.call(request).await?;
        if body.is_empty() {
            Ok(None)
        } else {
            decode(request.name, &body).map(Some)
        }
    }

    /// Makes a call that carries file descriptors (`vm.add-net`, `vm.add-device`, `vm.restore`).
    /// The caller keeps its own copies and closes them afterwards.
    ///
    /// # Errors
    /// As [`Client::call`]. Never retried: a lost connection does not say whether the descriptors
    /// arrived.
    pub async fn call_with_fds(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Bytes> {
        let body = self.body(request)?;
        let limit = self.timeouts.of(request.class);
        let name = request.name;
        let exchange = async {
            let _slot = self
                .slots
                .acquire()
                .await
                .map_err(|_| self.transport(name, io::Error::other("the client is closed")))?;
            crate::fdpass::exchange(&self.socket, request, &body, fds)
                .await
                .map_err(|problem| self.broken(name, problem))
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok((status, body))) => self.answer(name, status, body.into()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Timeout {
                call: name,
                socket: self.socket.to_path_buf(),
                waited: limit,
            }),
        }
    }

    /// `vmm.ping`.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn ping(&self) -> Result<VmmPing> {
        self.query(&request::vmm_ping()).await
    }

    /// `vm.info`.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn info(&self) -> Result<VmInfo> {
        self.query(&request::vm_info()).await
    }

    /// `vm.counters`.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn counters(&self) -> Result<VmCounters> {
        self.query(&request::vm_counters()).await
    }

    fn body(&self, request: &Request) -> Result<Bytes> {
        let call = request.name;
        match &request.body {
            Body::Empty => Ok(Bytes::new()),
            Body::Json(json) if json.len() > self.body_limit => Err(Error::RequestTooLarge {
                call,
                size: json.len(),
                limit: self.body_limit,
            }),
            Body::Json(json) => Ok(Bytes::copy_from_slice(json)),
            Body::Unencodable(reason) => Err(Error::Encode {
                call,
                reason: reason.clone(),
            }),
        }
    }

    fn answer(&self, call: &'static str, status: u16, body: Bytes) -> Result<Bytes> {
        match status {
            200..=299 => Ok(body),
            _ => Err(Error::Api {
                call,
                source: ApiError::parse(status, &body),
            }),
        }
    }

    fn transport(&self, call: &'static str, source: io::Error) -> Error {
        Error::Transport {
            call,
            socket: self.socket.to_path_buf(),
            source,
        }
    }

    async fn attempt(&self, request: &Request, body: Bytes) -> Result<Attempt> {
        match UnixStream::connect(&self.socket).await {
            Ok(stream) => exchange::exchange(stream, request, body)
                .await
                .map_err(|problem| self.broken(request.name, problem)),
            // The backlog is full: Cloud Hypervisor is there and behind with accepting.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Attempt::Busy),
            Err(error) => Err(self.transport(request.name, error)),
        }
    }

    fn broken(&self, call: &'static str, problem: Broken) -> Error {
        match problem {
            Broken::Connection(source) => self.transport(call, source),
            Broken::TooLarge => Error::AnswerTooLarge {
                call,
                limit: ANSWER_LIMIT,
            },
        }
    }
}

fn decode<T: DeserializeOwned>(call: &'static str, body: &[u8]) -> Result<T> {
    info::decode(body).map_err(|source| {
        let start = body.get(..200).unwrap_or(body);
        Error::Decode {
            call,
            excerpt: String::from_utf8_lossy(start).into_owned(),
            source,
        }
    })
}
