//! Stands between a client and the host's API, and spoils what a test wants spoilt: the answers of a
//! server that is busy, breaks, hangs, or hangs up on who watches. All else it passes on, and it
//! keeps count.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::Host;
use crate::background::Background;

/// What is to become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on.
    None,
    /// It is answered with this status, and never gets there.
    Status(u16),
    /// It gets there, but the answer is lost: this status comes instead.
    Lost(u16),
    /// It is not answered at all.
    Hang,
    /// The answer, as a watch's, ends after so long.
    Cut(Duration),
}

type Rule = Box<dyn FnMut(&Method, &Uri) -> Fault + Send>;

#[derive(Default)]
struct Shared {
    rule: Option<Rule>,
    requests: Vec<String>,
}

/// Runs until it is dropped.
pub struct Faulty {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    directory: PathBuf,
    _work: Background,
}

impl Faulty {
    /// Before the host's API, from a thread in its network. Spoils nothing yet.
    #[must_use]
    pub fn start(host: &Host) -> Self {
        let (ready, address) = std::sync::mpsc::channel();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let theirs = Arc::clone(&shared);
        let pass = async move |client, stopped: oneshot::Receiver<()>| {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("its address");
            ready.send(address).expect("somebody waits for it");
            tokio::select! {
                () = serve(listener, client, theirs) => {}
                _ = stopped => {}
            }
        };
        let work = Background::start("faulty", host.kubeconfig(), pass);
        Self {
            address: address.recv().expect("an address"),
            shared,
            directory: host.directory().to_owned(),
            _work: work,
        }
    }

    /// From now on every request is judged by this rule.
    pub fn set(&self, rule: impl FnMut(&Method, &Uri) -> Fault + Send + 'static) {
        self.with(|shared| shared.rule = Some(Box::new(rule)));
    }

    /// What has been asked since the last call: `METHOD PATH`, without queries.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.with(|shared| std::mem::take(&mut shared.requests))
    }

    /// A kubeconfig whose one context, `host`, leads here, as the administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "host",
            "clusters": [
                {"name": "host", "cluster": {"server": format!("http://{}", self.address)}},
            ],
            "users": [{"name": "host", "user": {}}],
            "contexts": [{"name": "host", "context": {"cluster": "host", "user": "host"}}],
        });
        let path = self.directory.join("faulty.kubeconfig");
        fs_err::write(&path, document.to_string()).expect("a file of the test's");
        path
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty({})", self.address)
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

async fn serve(listener: TcpListener, client: Client, shared: Arc<Mutex<Shared>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        let service = service_fn(move |request| {
            let (client, shared) = (client.clone(), Arc::clone(&shared));
            async move { Ok::<_, Infallible>(answer(request, &client, &shared).await) }
        });
        tokio::spawn(async move {
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            drop(served.await);
        });
    }
}

async fn answer(request: Request<Incoming>, client: &Client, shared: &Mutex<Shared>) -> Answer {
    let fault = {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = format!("{} {}", request.method(), request.uri().path());
        shared.requests.push(asked);
        match &mut shared.rule {
            Some(rule) => rule(request.method(), request.uri()),
            None => Fault::None,
        }
    };
    match fault {
        Fault::None => pass(request, client).await,
        Fault::Status(code) => status(code),
        Fault::Lost(code) => {
            drop(pass(request, client).await);
            status(code)
        }
        Fault::Hang => std::future::pending().await,
        Fault::Cut(after) => {
            let answer = pass(request, client).await;
            let end = Box::pin(tokio::time::sleep(after));
            answer.map(|body| StreamBody::new(BodyStream::new(body).take_until(end)).boxed_unsync())
        }
    }
}

async fn pass(request: Request<Incoming>, client: &Client) -> Answer {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return status(502);
    };
    // They are of the connection to here.
    for header in [http::header::HOST, http::header::CONTENT_LENGTH] {
        parts.headers.remove(header);
    }
    let request = Request::from_parts(parts, Body::from(body.to_bytes()));
    match client.send(request).await {
        Ok(answer) => answer.map(BodyExt::boxed_unsync),
        Err(_) => status(502),
    }
}

fn status(code: u16) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": "Test", "message": format!("spoilt by the test with {code}"),
    });
    let body = Full::new(Bytes::from(status.to_string()));
    let body = body.map_err(|never| match never {}).boxed_unsync();
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body)
        .expect("an answer")
}
