//! One request and its answer: connections, TLS, redirections, time limits. It knows nothing of
//! registries or credentials, but for this: an `Authorization` header never leaves the server that
//! it was meant for.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fs_err as fs;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::options::{Patience, RegistryOptions};
use super::problem::RegistryProblem as Problem;
use crate::error::{Error, Result};

/// Redirections that one request follows.
const REDIRECT_LIMIT: usize = 5;
/// Payloads longer than this take as long as they take: their senders watch over them.
const STREAMED: u64 = 1 << 20;
/// Between two looks at the wish to stop.
const POLL: Duration = Duration::from_millis(20);
const AGENT: HeaderValue = HeaderValue::from_static(concat!("knest/", env!("CARGO_PKG_VERSION")));

/// What is sent with a request.
pub(super) type Payload = UnsyncBoxBody<Bytes, io::Error>;

/// A request to be sent.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) headers: HeaderMap,
    /// A request that has one follows no redirection: it could not be sent twice.
    pub(super) payload: Option<Payload>,
}

impl Outgoing {
    pub(super) fn new(method: Method, url: Uri) -> Outgoing {
        Outgoing {
            method,
            url,
            headers: HeaderMap::new(),
            payload: None,
        }
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Outgoing {
        self.headers.append(name, value);
        self
    }

    /// Sends these bytes with it.
    pub(super) fn with(mut self, bytes: Bytes) -> Outgoing {
        let body = Full::new(bytes).map_err(|never| match never {});
        self.payload = Some(body.boxed_unsync());
        self
    }
}

/// The head of an answer, and its body to be read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    /// Who answered in the end.
    pub(super) url: Uri,
}

/// A client with its connections.
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Payload>,
    plain: BTreeSet<String>,
    patience: Patience,
    cancel: Option<Arc<AtomicBool>>,
}

impl Transport {
    pub(super) fn new(options: &RegistryOptions) -> Result<Transport> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(options.patience.connect));
        http.set_nodelay(true);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls(&options.authorities)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Transport {
            client: Client::builder(TokioExecutor::new()).build(https),
            plain: options.plain_http.clone(),
            patience: options.patience,
            cancel: options.cancel.clone(),
        })
    }

    /// Speaks plain HTTP to that server too.
    pub(super) fn allow_plain(&mut self, host: String) {
        self.plain.insert(host);
    }

    /// `http` or `https`, as this server is to be spoken to.
    pub(super) fn scheme(&self, host: &str) -> &'static str {
        if self.plain.contains(host) {
            "http"
        } else {
            "https"
        }
    }

    /// Sends a request and follows redirections until something else is answered.
    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<Answer, Problem> {
        let Outgoing {
            method,
            mut url,
            mut headers,
            payload,
        } = outgoing;
        headers.insert(USER_AGENT, AGENT);
        let follows = payload.is_none() && matches!(method, Method::GET | Method::HEAD);
        // Whoever hands bytes on sees himself whether they are taken.
        let streamed = payload
            .as_ref()
            .is_some_and(|body| body.size_hint().exact() > Some(STREAMED));
        let mut payload = payload;
        for _ in 0..=REDIRECT_LIMIT {
            self.may_speak_to(&url)?;
            let host = host(&url);
            let body = payload.take().unwrap_or_else(nothing);
            let mut request = Request::new(body);
            *request.method_mut() = method.clone();
            *request.uri_mut() = url.clone();
            *request.headers_mut() = headers.clone();
            let answering = async {
                self.client
                    .request(request)
                    .await
                    .map_err(|error| Problem::Connection {
                        host: host.clone(),
                        reason: chain(&error),
                    })
            };
            let limit = if streamed {
                Duration::MAX
            } else {
                self.patience.connect + self.patience.idle
            };
            let response = self.within(&host, limit, answering).await??;
            let (head, body) = response.into_parts();
            let next = head.headers.get(LOCATION);
            if !(follows && head.status.is_redirection() && next.is_some()) {
                return Ok(Answer {
                    status: head.status,
                    headers: head.headers,
                    body,
                    url,
                });
            }
            let target = next.and_then(|next| resolve(&url, next.to_str().ok()?));
            let target = target.ok_or_else(|| Problem::Protocol {
                host: host.clone(),
                reason: "redirects to what is no URL".into(),
            })?;
            if origin(&target) != origin(&url) {
                headers.remove(AUTHORIZATION);
            }
            url = target;
        }
        Err(Problem::Protocol {
            host: host(&url),
            reason: format!("redirects more than {REDIRECT_LIMIT} times"),
        })
    }

    /// The next bytes of a body; `None` at its end.
    pub(super) async fn next(
        &self,
        host: &str,
        body: &mut Incoming,
    ) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = self.within(host, self.patience.idle, body.frame()).await?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => {
                    return Err(Problem::Connection {
                        host: host.to_owned(),
                        reason: chain(&error),
                    });
                }
            }
        }
    }

    /// A whole body of at most so many bytes.
    pub(super) async fn collect(
        &self,
        answer: &mut Answer,
        limit: u64,
    ) -> Result<Vec<u8>, Problem> {
        let host = host(&answer.url);
        let mut bytes = Vec::new();
        while let Some(data) = self.next(&host, &mut answer.body).await? {
            bytes.extend_from_slice(&data);
            if bytes.len() as u64 > limit {
                return Err(Problem::Protocol {
                    host,
                    reason: format!("answers more than the {limit} bytes that are accepted"),
                });
            }
        }
        Ok(bytes)
    }

    /// What a future gives within a time, unless the caller wants to stop.
    pub(super) async fn within<T>(
        &self,
        host: &str,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Problem> {
        let stopped = async {
            while !self.cancelled() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            biased;
            done = tokio::time::timeout(limit, future) => done.map_err(|_| Problem::Stalled {
                host: host.to_owned(),
                seconds: limit.as_secs(),
            }),
            () = stopped => Err(Problem::Cancelled),
        }
    }

    /// Waits, unless the caller wants to stop.
    pub(super) async fn pause(&self, time: Duration) -> Result<(), Problem> {
        match self.within("", time, std::future::pending::<()>()).await {
            Err(Problem::Cancelled) => Err(Problem::Cancelled),
            _ => Ok(()),
        }
    }

    fn cancelled(&self) -> bool {
        let flag = self.cancel.as_ref();
        flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    fn may_speak_to(&self, url: &Uri) -> Result<(), Problem> {
        let host = host(url);
        match url.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if self.plain.contains(&host) => Ok(()),
            Some("http") => Err(Problem::PlainHttp { host }),
            _ => Err(Problem::Protocol {
                host,
                reason: format!("names the URL {url}, which is not of HTTP"),
            }),
        }
    }
}

fn nothing() -> Payload {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The system's authorities and those of these files.
fn tls(authorities: &[std::path::PathBuf]) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    // A system without any is found out by the first handshake, whose error says so.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in authorities {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| {
                Error::malformed(format!("certificate in {}", path.display()), error)
            })?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::malformed("TLS configuration", error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = fs::read(path).map_err(Error::file("read", path))?;
    let what = || format!("certificates in {}", path.display());
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::malformed(what(), error))?;
    if found.is_empty() {
        return Err(Error::malformed(what(), "there are none in PEM form"));
    }
    Ok(found)
}

/// Host and, where it is written, port: what a registry is called by.
pub(super) fn host(url: &Uri) -> String {
    url.authority()
        .map_or_else(String::new, |authority| match authority.port() {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_owned(),
        })
}

/// Who may see a secret that was meant for this URL.
pub(super) fn origin(url: &Uri) -> (Option<&str>, Option<&str>, Option<u16>) {
    let port = url.port_u16().or_else(|| match url.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    });
    (url.scheme_str(), url.host(), port)
}

/// A `Location`, seen from the URL that answered with it.
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let path = if location.starts_with('/') {
        location.to_owned()
    } else {
        let directory = base
            .path()
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory);
        format!("{directory}/{location}")
    };
    format!("{scheme}://{authority}{path}").parse().ok()
}

/// An error with its causes: the first alone says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let base: Uri = "https://a.b:5000/v2/x/blobs/uploads/".parse().unwrap();
        for (location, expected) in [
            ("/v2/y?z=1", "https://a.b:5000/v2/y?z=1"),
            ("id?z=1", "https://a.b:5000/v2/x/blobs/uploads/id?z=1"),
            ("http://c/d", "http://c/d"),
            ("//c/d", "https://c/d"),
        ] {
            assert_eq!(resolve(&base, location).unwrap().to_string(), expected);
        }
        assert!(resolve(&base, "https://").is_none());
    }

    #[test]
    fn a_secret_stays_with_scheme_host_and_port() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert_eq!(origin(&uri("https://a/x")), origin(&uri("https://a:443/y")));
        for other in ["http://a/", "https://a:444/", "https://b/"] {
            assert_ne!(origin(&uri("https://a/")), origin(&uri(other)), "{other}");
        }
    }
}
