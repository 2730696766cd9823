//! An image in a registry as a source of blobs. Mirrors are asked before the registry itself; the
//! first that has the image gives all of it, as long as it can.

use std::collections::HashMap;
use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};

use super::blob::RemoteBlob;
use super::options::RegistryOptions;
use super::problem::RegistryProblem as Problem;
use super::session::{Endpoint, Session};
use super::transport::Outgoing;
use crate::digest::Digest;
use crate::document::{Descriptor, media};
use crate::error::{Error, Result};
use crate::image::DOCUMENT_LIMIT;
use crate::source::{Blob, BlobSource, Reference};

/// One image of a registry.
pub struct Registry {
    pub(super) session: Arc<Session>,
    /// In the order in which they are asked, the one that named the image first.
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) reference: Reference,
    root: Descriptor,
    documents: HashMap<Digest, Vec<u8>>,
}

impl Registry {
    /// Asks the registry, its mirrors first, what the reference means. Blocks, like all that is
    /// read from it: not to be called where blocking is forbidden.
    ///
    /// # Errors
    /// [`Error::Registry`]; [`Error::DigestMismatch`] when the answer is not what the reference
    /// or the registry itself says that it is; [`Error::Cancelled`].
    pub fn open(reference: &Reference, options: &RegistryOptions) -> Result<Registry> {
        let (session, endpoints) = connect(reference, options, "pull")?;
        let mut last = None;
        let mut endpoints = endpoints;
        for index in 0..endpoints.len() {
            match manifest(&session, &endpoints[index], reference) {
                Ok((root, bytes)) => {
                    endpoints.swap(0, index);
                    return Ok(Registry {
                        session: Arc::new(session),
                        endpoints: endpoints.into(),
                        reference: reference.clone(),
                        documents: HashMap::from([(root.digest, bytes)]),
                        root,
                    });
                }
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                // What the registry itself says is what counts.
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(Error::Cancelled))
    }
}

/// The runtime, and the servers to be asked in order.
pub(super) fn connect(
    reference: &Reference,
    options: &RegistryOptions,
    actions: &'static str,
) -> Result<(Session, Vec<Endpoint>)> {
    let mirrors = match actions {
        "pull" => options
            .mirrors
            .get(&reference.registry)
            .map_or(&[][..], Vec::as_slice),
        _ => &[],
    };
    let mut plain = Vec::new();
    let mut places = Vec::new();
    for mirror in mirrors {
        let (place, unencrypted) = match mirror.split_once("://") {
            Some(("http", rest)) => (rest, true),
            Some(("https", rest)) => (rest, false),
            _ => (mirror.as_str(), false),
        };
        let place = place.trim_end_matches('/');
        // The same rules as for what people type keep all else out of URLs.
        let there = format!("{place}/{}", reference.repository).parse::<Reference>();
        let there = there
            .ok()
            .filter(|there| place.starts_with(&there.registry));
        let there = there.ok_or_else(|| {
            let form = "it is not [http://]HOST[:PORT][/PATH]";
            Error::malformed(format!("mirror {mirror:?}"), form)
        })?;
        if unencrypted {
            plain.push(there.registry.clone());
        }
        places.push((there.registry, there.repository));
    }
    places.push((reference.registry.clone(), reference.repository.clone()));
    let session = Session::new(options, plain)?;
    let endpoints = places
        .into_iter()
        .map(|(host, repository)| session.endpoint(&host, repository, actions))
        .collect::<Result<_>>()?;
    Ok((session, endpoints))
}

fn manifest(
    session: &Session,
    endpoint: &Endpoint,
    reference: &Reference,
) -> Result<(Descriptor, Vec<u8>)> {
    let failed = |problem| failure(reference, "resolve the name".into(), problem);
    let identifier = reference.identifier();
    let mut waiting = session.patience();
    loop {
        let request = || {
            Ok(document_request(
                endpoint.url(&format!("manifests/{identifier}"))?,
            ))
        };
        let mut answer = session.insist(endpoint, request).map_err(failed)?;
        let body = session.block_on(session.transport().collect(&mut answer, DOCUMENT_LIMIT));
        let bytes = match body {
            Ok(bytes) => bytes,
            Err(problem) => {
                waiting.wait(session, problem).map_err(failed)?;
                continue;
            }
        };
        let text = |name: &str| answer.headers.get(name)?.to_str().ok();
        let digest = Digest::of(&bytes);
        let promised = text("docker-content-digest").and_then(|text| text.parse().ok());
        for expected in reference.digest.into_iter().chain(promised) {
            if expected != digest {
                return Err(Error::DigestMismatch {
                    what: format!("manifest of {reference} from {}", endpoint.host),
                    expected,
                    found: digest,
                });
            }
        }
        let media_type = text(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let root = Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        return Ok((root, bytes));
    }
}

/// A request for an index or a manifest.
pub(super) fn document_request(url: http::Uri) -> Outgoing {
    let types = [
        media::INDEX,
        media::MANIFEST,
        media::DOCKER_LIST,
        media::DOCKER_MANIFEST,
    ];
    types
        .into_iter()
        .fold(Outgoing::new(Method::GET, url), |outgoing, media_type| {
            outgoing.header(ACCEPT, HeaderValue::from_static(media_type))
        })
}

/// Names what failed and for which reference.
pub(super) fn failure(reference: &Reference, doing: String, problem: Problem) -> Error {
    match problem {
        Problem::Cancelled => Error::Cancelled,
        source => Error::Registry {
            reference: reference.to_string(),
            doing,
            source,
        },
    }
}

impl BlobSource for Registry {
    fn root(&self) -> &Descriptor {
        &self.root
    }

    /// Asks for nothing yet: that is left to the first read, whose error then names the blob.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Blob + '_>> {
        if let Some(bytes) = self.documents.get(&blob.digest) {
            return Ok(Box::new(Cursor::new(bytes)));
        }
        let session = Arc::clone(&self.session);
        Ok(Box::new(RemoteBlob::new(
            session,
            Arc::clone(&self.endpoints),
            blob,
        )))
    }

    fn remote(&self) -> bool {
        true
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("reference", &self.reference)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}
