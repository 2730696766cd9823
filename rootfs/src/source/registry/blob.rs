//! A blob of a registry as a reader. Where the body breaks off it is asked for anew from there,
//! by `Range`; a server that knows no ranges gives it from the start, and what is known is skipped.
//!
//! ```text
//! no body ──▶ ask ──▶ body ──▶ bytes … ──▶ end
//!    ▲         │       │
//!    │         │       └─ breaks off ─┐
//!    └─ pause ◀┴──────────────────────┘   no patience left: the next endpoint, else the error
//! ```

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use http::header::{CONTENT_RANGE, HeaderValue, RANGE};
use http::{Method, StatusCode};
use hyper::body::{Buf, Bytes, Incoming};

use super::client::document_request;
use super::problem::RegistryProblem as Problem;
use super::session::{Endpoint, Session};
use super::transport::{Outgoing, host};
use super::waiting::Waiting;
use crate::document::{Descriptor, is_document};

/// Bytes that count as progress: a server that drops the connection sooner is no better than one
/// that does not answer.
const PROGRESS: u64 = 64 << 10;

/// A blob that is read as it arrives.
pub(super) struct RemoteBlob {
    session: Arc<Session>,
    endpoints: Arc<[Endpoint]>,
    /// Which of them is asked.
    current: usize,
    blob: Descriptor,
    position: u64,
    /// Whether any byte was read, so that a server without ranges may be asked for all again.
    begun: bool,
    body: Option<Body>,
    waiting: Waiting,
    /// Where the last progress was seen.
    mark: u64,
    failure: Option<Problem>,
}

struct Body {
    host: String,
    incoming: Incoming,
    buffer: Bytes,
    /// Bytes to pass over first.
    skip: u64,
}

impl RemoteBlob {
    pub(super) fn new(
        session: Arc<Session>,
        endpoints: Arc<[Endpoint]>,
        blob: &Descriptor,
    ) -> RemoteBlob {
        RemoteBlob {
            waiting: session.patience(),
            session,
            endpoints,
            current: 0,
            blob: blob.clone(),
            position: 0,
            begun: false,
            body: None,
            mark: 0,
            failure: None,
        }
    }

    /// Asks for the blob from the current position on.
    fn ask(&self) -> Result<Body, Problem> {
        let endpoint = &self.endpoints[self.current];
        let (digest, position) = (self.blob.digest, self.position);
        let request = || {
            let outgoing = if is_document(&self.blob.media_type) {
                document_request(endpoint.url(&format!("manifests/{digest}"))?)
            } else {
                Outgoing::new(Method::GET, endpoint.url(&format!("blobs/{digest}"))?)
            };
            Ok(match HeaderValue::from_str(&format!("bytes={position}-")) {
                Ok(range) if position > 0 => outgoing.header(RANGE, range),
                _ => outgoing,
            })
        };
        let answer = self
            .session
            .block_on(self.session.ask(endpoint, &request))?;
        let host = host(&answer.url);
        let skip = match answer.status {
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.headers.get(CONTENT_RANGE);
                let start = range.and_then(|range| first_byte(range.to_str().ok()?));
                if start != Some(position) {
                    let reason = format!("gives another range than the bytes from {position} on");
                    return Err(Problem::Protocol { host, reason });
                }
                0
            }
            _ if position > 0 && !self.begun => {
                return Err(Problem::NoRanges { host });
            }
            _ => position,
        };
        Ok(Body {
            host,
            incoming: answer.body,
            buffer: Bytes::new(),
            skip,
        })
    }

    /// Bytes that are there to be taken; none at the end.
    fn fill(&mut self) -> Result<&mut Bytes, Problem> {
        loop {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => match self.ask() {
                    Ok(body) => body,
                    Err(problem) => {
                        self.retry(problem)?;
                        continue;
                    }
                },
            };
            if body.buffer.is_empty() {
                let next = self
                    .session
                    .transport()
                    .next(&body.host, &mut body.incoming);
                match self.session.block_on(next) {
                    Ok(Some(bytes)) => body.buffer = bytes,
                    Ok(None) => {}
                    Err(problem) => {
                        self.retry(problem)?;
                        continue;
                    }
                }
            }
            let passed = body.skip.min(body.buffer.len() as u64);
            body.skip -= passed;
            body.buffer
                .advance(usize::try_from(passed).unwrap_or(usize::MAX));
            let body = self.body.insert(body);
            if passed == 0 || !body.buffer.is_empty() {
                break;
            }
        }
        match &mut self.body {
            Some(body) => Ok(&mut body.buffer),
            None => Err(Problem::Cancelled),
        }
    }

    /// Waits for another attempt, here or at the next endpoint.
    fn retry(&mut self, problem: Problem) -> Result<(), Problem> {
        let Err(problem) = self.waiting.wait(&self.session, problem) else {
            return Ok(());
        };
        let next = self.current + 1;
        if matches!(problem, Problem::Cancelled) || next == self.endpoints.len() {
            return Err(problem);
        }
        self.current = next;
        self.waiting.progress();
        Ok(())
    }
}

fn error(problem: Problem) -> io::Error {
    match problem {
        Problem::NoRanges { .. } => io::Error::new(io::ErrorKind::Unsupported, problem),
        problem => io::Error::other(problem),
    }
}

/// The first number of `bytes 5-9/10`.
fn first_byte(range: &str) -> Option<u64> {
    range
        .strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}

impl Read for RemoteBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Readers that verify ask again after an error.
        if let Some(failure) = &self.failure {
            return Err(error(failure.clone()));
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match self.fill() {
            Ok(available) => {
                let count = available.len().min(buffer.len());
                available.copy_to_slice(&mut buffer[..count]);
                count
            }
            Err(problem) => {
                self.failure = Some(problem.clone());
                return Err(error(problem));
            }
        };
        self.position += count as u64;
        self.begun |= count > 0;
        if self.position >= self.mark + PROGRESS {
            self.mark = self.position;
            self.waiting.progress();
        }
        Ok(count)
    }
}

impl Seek for RemoteBlob {
    /// The next read asks from there.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(delta) => self.blob.size.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        if position != self.position {
            self.position = position;
            self.mark = position;
            self.begun = false;
            self.body = None;
            self.failure = None;
        }
        Ok(position)
    }
}
