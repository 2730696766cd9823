//! An image on its way to a registry: what is not there yet is uploaded, each blob in one request,
//! and the manifest comes last, so that a name never means what is not whole.
//!
//! ```text
//! HEAD blobs/DIGEST ─▶ 200: done
//!        └─▶ 404 ─▶ POST blobs/uploads/ ─▶ Location ─▶ PUT Location?digest=DIGEST
//! all blobs there ─▶ PUT manifests/TAG
//! ```

use std::collections::HashSet;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

use super::client::{connect, failure};
use super::options::RegistryOptions;
use super::problem::RegistryProblem as Problem;
use super::session::{Endpoint, Session};
use super::transport::{Outgoing, resolve};
use crate::digest::Digest;
use crate::document::{Descriptor, media};
use crate::error::{Error, Result};
use crate::image::{Image, read_document};
use crate::parallel::each;
use crate::source::{BlobSource, Reference};
use crate::watch::{Watch, Wishes};

/// Blobs that are sent at once.
const PARALLEL: usize = 3;
/// Bytes that are handed on at once.
const CHUNK: usize = 128 << 10;

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest, by which the image can be pulled whatever becomes of the tag.
    pub digest: Digest,
    /// Blobs that were uploaded.
    pub sent: usize,
    /// Blobs that were there already.
    pub present: usize,
}

/// Sends an image to a registry under this name. Blocks.
///
/// # Errors
/// [`Error::Registry`]; what reading the source gives; [`Error::Cancelled`].
pub fn push(
    source: &dyn BlobSource,
    image: &Image,
    reference: &Reference,
    options: &RegistryOptions,
    wishes: Wishes<'_>,
) -> Result<Pushed> {
    let (session, endpoints) = connect(reference, options, "pull,push")?;
    let watch = Watch::new(wishes, image.blobs().map(|blob| blob.size));
    let mut known = HashSet::new();
    let blobs = image
        .blobs()
        .skip(1)
        .filter(|blob| known.insert(blob.digest))
        .collect();
    let push = Push {
        session: Arc::new(session),
        endpoints: endpoints.into(),
        source,
        reference,
        watch: &watch,
        blobs,
    };
    let sent = push.blobs()?;
    push.manifest(image)
        .map_err(|error| watch.or_cancelled(error))?;
    Ok(Pushed {
        digest: image.digest(),
        sent,
        present: push.blobs.len() - sent,
    })
}

struct Push<'a> {
    session: Arc<Session>,
    /// The registry alone: mirrors are not pushed to.
    endpoints: Arc<[Endpoint]>,
    source: &'a dyn BlobSource,
    reference: &'a Reference,
    watch: &'a Watch<'a>,
    blobs: Vec<&'a Descriptor>,
}

impl Push<'_> {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoints[0]
    }

    /// Makes sure that all blobs are there; how many were not.
    fn blobs(&self) -> Result<usize> {
        let order: Vec<usize> = (0..self.blobs.len()).collect();
        let sent = each(PARALLEL, &order, |number| {
            if self.watch.cancelled() {
                return Err(Error::Cancelled);
            }
            self.blob(self.blobs[number])
                .map_err(|error| self.watch.or_cancelled(error))
                .inspect_err(|_| self.watch.abort())
        })?;
        Ok(sent.into_iter().filter(|sent| *sent).count())
    }

    /// Whether the blob had to be sent.
    fn blob(&self, blob: &Descriptor) -> Result<bool> {
        let digest = blob.digest;
        let failed = |problem| failure(self.reference, format!("push blob {digest}"), problem);
        let head = || {
            let url = self.endpoint().url(&format!("blobs/{digest}"))?;
            Ok(Outgoing::new(Method::HEAD, url))
        };
        match self.session.insist(self.endpoint(), head) {
            Ok(_) => {
                self.watch.add(blob.size);
                return Ok(false);
            }
            Err(Problem::Status { status: 404, .. }) => {}
            Err(problem) => return Err(failed(problem)),
        }
        let mut waiting = self.session.patience();
        loop {
            match self.upload(blob)? {
                Ok(()) => return Ok(true),
                Err(problem) => waiting.wait(&self.session, problem).map_err(failed)?,
            }
        }
    }

    /// One attempt. The outer result is this side's, the inner one the registry's.
    fn upload(&self, blob: &Descriptor) -> Result<Result<(), Problem>> {
        let (digest, size) = (blob.digest, blob.size);
        let begin = || {
            let url = self.endpoint().url("blobs/uploads/")?;
            let zero = HeaderValue::from_static("0");
            Ok(Outgoing::new(Method::POST, url).header(CONTENT_LENGTH, zero))
        };
        let answer = match self
            .session
            .block_on(self.session.ask(self.endpoint(), &begin))
        {
            Ok(answer) => answer,
            Err(problem) => return Ok(Err(problem)),
        };
        let location = answer.headers.get(LOCATION);
        let location = location.and_then(|value| resolve(&answer.url, value.to_str().ok()?));
        let url = location.and_then(|url| {
            let joint = if url.query().is_some() { '&' } else { '?' };
            format!("{url}{joint}digest={digest}").parse().ok()
        });
        let Some(url) = url else {
            return Ok(Err(Problem::Protocol {
                host: self.endpoint().host.clone(),
                reason: "does not say where to upload to".into(),
            }));
        };
        let (sender, receiver) = mpsc::channel(2);
        let octets = HeaderValue::from_static("application/octet-stream");
        let mut outgoing = Outgoing::new(Method::PUT, url)
            .header(CONTENT_TYPE, octets)
            .header(CONTENT_LENGTH, size.into());
        outgoing.payload = Some(
            Pipe {
                receiver,
                left: size,
            }
            .boxed_unsync(),
        );
        let (session, endpoints) = (Arc::clone(&self.session), Arc::clone(&self.endpoints));
        let sending = self.session.spawn(async move {
            let answer = session.send(&endpoints[0], outgoing).await?;
            if answer.status == StatusCode::UNAUTHORIZED {
                // A token lives for minutes: the next attempt gets another before it begins.
                endpoints[0].forget();
            }
            session.succeeded(&endpoints[0], answer).await.map(drop)
        });
        let Some(mut sending) = sending else {
            return Err(Error::Cancelled);
        };
        let fed = self.feed(blob, &sender);
        drop(sender);
        let outcome = match fed {
            Ok(Ok(())) => self
                .session
                .block_on(self.session.finished(&self.endpoint().host, &mut sending)),
            other => {
                sending.abort();
                return other;
            }
        };
        if let Err(problem) = &outcome {
            self.watch.take_back(size);
            if matches!(problem, Problem::Unauthorized { known: true, .. }) {
                return Ok(Err(Problem::Connection {
                    host: self.endpoint().host.clone(),
                    reason: "the token ran out".into(),
                }));
            }
        }
        Ok(outcome)
    }

    /// Hands the blob's bytes on as they are taken.
    fn feed(&self, blob: &Descriptor, sender: &mpsc::Sender<Bytes>) -> Result<Result<(), Problem>> {
        let mut reader = self.watch.count(self.source.open(blob)?).take(blob.size);
        let mut total = 0;
        loop {
            let mut chunk = vec![0; CHUNK];
            let count = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let (digest, origin) = (blob.digest, self.source.to_string());
                    return Err(Error::Blob {
                        digest,
                        origin,
                        source,
                    });
                }
            };
            total += count as u64;
            chunk.truncate(count);
            let handed = self
                .session
                .hand(&self.endpoint().host, sender, chunk.into());
            match self.session.block_on(handed) {
                Ok(true) => {}
                // The registry answered before it had all: its answer says why.
                Ok(false) => return Ok(Ok(())),
                Err(problem) => {
                    self.watch.take_back(total);
                    return Ok(Err(problem));
                }
            }
        }
        if total != blob.size {
            return Err(Error::SizeMismatch {
                digest: blob.digest,
                expected: blob.size,
                found: total,
            });
        }
        Ok(Ok(()))
    }

    fn manifest(&self, image: &Image) -> Result<()> {
        let bytes = Bytes::from(read_document(self.source, &image.manifest)?);
        let digest = image.digest();
        let failed = |problem| failure(self.reference, format!("push manifest {digest}"), problem);
        let media_type = match image.manifest.media_type.as_str() {
            "" => media::MANIFEST,
            media_type => media_type,
        };
        let media_type = HeaderValue::from_str(media_type);
        let media_type = media_type.map_err(|error| Error::malformed("media type", error))?;
        let request = || {
            let name = self.reference.identifier();
            let url = self.endpoint().url(&format!("manifests/{name}"))?;
            let outgoing = Outgoing::new(Method::PUT, url).header(CONTENT_TYPE, media_type.clone());
            Ok(outgoing.with(bytes.clone()))
        };
        self.session
            .insist(self.endpoint(), request)
            .map_err(failed)?;
        self.watch.add(image.manifest.size);
        Ok(())
    }
}

/// A body whose bytes come from another thread.
struct Pipe {
    receiver: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Body for Pipe {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.receiver.poll_recv(context).map(|bytes| {
            let bytes = bytes?;
            self.left = self.left.saturating_sub(bytes.len() as u64);
            Some(Ok(Frame::data(bytes)))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
