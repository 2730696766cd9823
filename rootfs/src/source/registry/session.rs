//! Requests to one repository, with what they need to be answered: authorisation, which is got
//! when a registry asks for it, and patience.
//!
//! ```text
//!  ┌─▶ send ─▶ 401 ─▶ credentials ─▶ token server ─▶ send again ─▶ 401: Unauthorized
//!  │     │
//!  │     ├─▶ 408, 429, 5xx, no connection, silence ─▶ pause (Retry-After, or twice the last) ─┐
//!  │     └─▶ anything else: the answer, or the error                                          │
//!  └──────────────────────────────────────────── as long as the patience lasts ◀──────────────┘
//! ```

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Method, StatusCode, Uri};
use hyper::body::Bytes;
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::challenge::Challenge;
use super::credentials::{self, Credentials};
use super::options::{Patience, RegistryOptions};
use super::problem::RegistryProblem as Problem;
use super::text::{form, words};
use super::transport::{Answer, Outgoing, Transport, host, origin};
use super::waiting::Waiting;
use crate::error::{Error, Result};
use crate::source::reference::{DEFAULT_REGISTRY, DEFAULT_SERVER};

/// Threads that do the sockets' work: inflating and hashing are done by the callers.
const THREADS: usize = 2;
/// Attempts to reach a server that has not answered yet: mostly its name is wrong, or it is down.
const CONNECTIONS: u32 = 3;
/// Most bytes of an error's explanation or of a token.
const ANSWER_LIMIT: u64 = 1 << 20;

/// The runtime and the connections that the endpoints share.
pub(super) struct Session {
    /// Taken by `drop` alone.
    runtime: Option<Runtime>,
    transport: Transport,
    files: Vec<PathBuf>,
    patience: Patience,
}

/// One server that may have the repository: the registry, or a mirror of it.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// What the server is called in credential files and messages.
    pub(super) host: String,
    /// The repository's name there.
    repository: String,
    /// Such as `https://registry-1.docker.io`.
    base: Uri,
    /// `pull` or `pull,push`.
    actions: &'static str,
    credentials: OnceLock<Option<Credentials>>,
    authorization: Mutex<Option<HeaderValue>>,
    /// Held while authorisation is got.
    authorizing: tokio::sync::Mutex<()>,
}

impl Session {
    pub(super) fn new(options: &RegistryOptions, plain_mirrors: Vec<String>) -> Result<Session> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("registry")
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| Error::malformed("runtime", error))?;
        let mut transport = Transport::new(options)?;
        for mirror in plain_mirrors {
            transport.allow_plain(mirror);
        }
        Ok(Session {
            runtime: Some(runtime),
            transport,
            files: options.credentials.clone(),
            patience: options.patience,
        })
    }

    pub(super) fn endpoint(
        &self,
        host: &str,
        repository: String,
        actions: &'static str,
    ) -> Result<Endpoint> {
        let server = if host == DEFAULT_REGISTRY {
            DEFAULT_SERVER
        } else {
            host
        };
        let base = format!("{}://{server}", self.transport.scheme(server));
        let base = base.parse();
        Ok(Endpoint {
            host: host.to_owned(),
            repository,
            base: base.map_err(|error| Error::malformed(format!("registry {host:?}"), error))?,
            actions,
            credentials: OnceLock::new(),
            authorization: Mutex::new(None),
            authorizing: tokio::sync::Mutex::default(),
        })
    }

    /// For a server that has answered before, and so will again.
    pub(super) fn patience(&self) -> Waiting {
        Waiting::new(self.patience, u32::MAX)
    }

    /// Runs to its end what the sockets are needed for.
    pub(super) fn block_on<T>(
        &self,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Err(Problem::Cancelled),
        }
    }

    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        self.runtime.as_ref().map(|runtime| runtime.spawn(work))
    }

    /// Hands bytes to a request that is under way; false when it takes no more.
    pub(super) async fn hand(
        &self,
        host: &str,
        sender: &mpsc::Sender<Bytes>,
        bytes: Bytes,
    ) -> Result<bool, Problem> {
        let sent = self
            .transport
            .within(host, self.patience.idle, sender.send(bytes));
        Ok(sent.await?.is_ok())
    }

    /// What became of a request that was spawned and has all that it sends.
    pub(super) async fn finished(
        &self,
        host: &str,
        sending: &mut JoinHandle<Result<(), Problem>>,
    ) -> Result<(), Problem> {
        match self
            .transport
            .within(host, self.patience.total, &mut *sending)
            .await
        {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Problem::Cancelled),
            Err(problem) => {
                sending.abort();
                Err(problem)
            }
        }
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Sends a request to an endpoint, with its authorisation, until it is answered by something
    /// that does not pass by itself. A status that is not of success is an error.
    pub(super) fn insist(
        &self,
        endpoint: &Endpoint,
        request: impl Fn() -> Result<Outgoing, Problem>,
    ) -> Result<Answer, Problem> {
        let mut waiting = Waiting::new(self.patience, CONNECTIONS);
        loop {
            match self.block_on(self.ask(endpoint, &request)) {
                Err(problem) => waiting.wait(self, problem)?,
                answer => return answer,
            }
        }
    }

    /// Sends a request once, or twice where authorisation has to be got first.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        request: &impl Fn() -> Result<Outgoing, Problem>,
    ) -> Result<Answer, Problem> {
        let before = endpoint.authorization();
        let mut answer = self.send(endpoint, request()?).await?;
        if answer.status == StatusCode::UNAUTHORIZED && origin(&answer.url) == endpoint.origin() {
            // Of many that are refused at once, the first asks, and the others use what it got.
            let turn = endpoint.authorizing.lock().await;
            if endpoint.authorization() == before {
                self.authorize(endpoint, &answer).await?;
            }
            drop(turn);
            answer = self.send(endpoint, request()?).await?;
        }
        self.succeeded(endpoint, answer).await
    }

    /// Sends a request with what authorisation there is.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        mut outgoing: Outgoing,
    ) -> Result<Answer, Problem> {
        if origin(&outgoing.url) == endpoint.origin()
            && let Some(value) = endpoint.authorization()
        {
            outgoing.headers.insert(AUTHORIZATION, value);
        }
        self.transport.send(outgoing).await
    }

    /// The answer, if it is one of success.
    pub(super) async fn succeeded(
        &self,
        endpoint: &Endpoint,
        mut answer: Answer,
    ) -> Result<Answer, Problem> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(Problem::Unauthorized {
                host: host(&answer.url),
                known: endpoint.credentials.get().is_some_and(Option::is_some),
            });
        }
        let retry_after = answer.headers.get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        // The explanation is a courtesy: without it the status has to do.
        let body = self.transport.collect(&mut answer, ANSWER_LIMIT).await;
        Err(Problem::Status {
            host: host(&answer.url),
            status: answer.status.as_u16(),
            message: words(&body.unwrap_or_default()),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    /// Gets what the registry asked for with this answer.
    async fn authorize(&self, endpoint: &Endpoint, answer: &Answer) -> Result<(), Problem> {
        let headers = answer.headers.get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()));
        let credentials = self.credentials(endpoint)?;
        let unauthorized = || Problem::Unauthorized {
            host: endpoint.host.clone(),
            known: credentials.is_some(),
        };
        let value = match challenge {
            None => return Err(unauthorized()),
            Some(Challenge::Basic) => credentials
                .as_ref()
                .and_then(Credentials::basic)
                .ok_or_else(unauthorized)?,
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let token = self.token(endpoint, &realm, service, scope, credentials.as_ref());
                format!("Bearer {}", token.await?)
            }
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| Problem::Credentials {
            host: endpoint.host.clone(),
            reason: "they hold what no header can".into(),
        })?;
        value.set_sensitive(true);
        if let Ok(mut slot) = endpoint.authorization.lock() {
            *slot = Some(value);
        }
        Ok(())
    }

    /// Looked up once: a helper may ask the user something.
    fn credentials(&self, endpoint: &Endpoint) -> Result<Option<Credentials>, Problem> {
        if let Some(known) = endpoint.credentials.get() {
            return Ok(known.clone());
        }
        let found = credentials::find(&self.files, &endpoint.host, &endpoint.repository)?;
        Ok(endpoint.credentials.get_or_init(|| found).clone())
    }

    /// A token from the authorisation server that the registry named.
    async fn token(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
        credentials: Option<&Credentials>,
    ) -> Result<String, Problem> {
        let scope = scope
            .unwrap_or_else(|| format!("repository:{}:{}", endpoint.repository, endpoint.actions));
        let mut fields = vec![("scope", scope)];
        fields.extend(service.map(|service| ("service", service)));
        let malformed = |reason: String| Problem::Protocol {
            host: endpoint.host.clone(),
            reason,
        };
        let no_url = |_| malformed(format!("names the token server {realm:?}, which is no URL"));
        let outgoing = if let Some(Credentials::Token(token)) = credentials {
            fields.push(("grant_type", "refresh_token".into()));
            fields.push(("client_id", "knest".into()));
            fields.push(("refresh_token", token.clone()));
            let url: Uri = realm.parse().map_err(no_url)?;
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            let outgoing = Outgoing::new(Method::POST, url).header(CONTENT_TYPE, kind);
            outgoing.with(form(&fields).into())
        } else {
            let joint = if realm.contains('?') { '&' } else { '?' };
            let url: Uri = format!("{realm}{joint}{}", form(&fields))
                .parse()
                .map_err(no_url)?;
            let basic = credentials.and_then(Credentials::basic);
            let basic = basic.and_then(|basic| HeaderValue::from_str(&basic).ok());
            let mut outgoing = Outgoing::new(Method::GET, url);
            outgoing
                .headers
                .extend(basic.map(|basic| (AUTHORIZATION, basic)));
            outgoing
        };
        let accept = HeaderValue::from_static("application/json");
        let answer = self.transport.send(outgoing.header(ACCEPT, accept)).await?;
        if matches!(
            answer.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) {
            return Err(Problem::Unauthorized {
                host: endpoint.host.clone(),
                known: credentials.is_some(),
            });
        }
        let mut answer = self.succeeded(endpoint, answer).await?;
        let body = self.transport.collect(&mut answer, ANSWER_LIMIT).await?;
        let tokens: Tokens = serde_json::from_slice(&body).unwrap_or_default();
        let token = tokens.token.or(tokens.access_token);
        token.ok_or_else(|| malformed(format!("names the token server {realm}, which gives none")))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Waiting for it is forbidden to a thread that is a runtime's own.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Endpoint {
    /// A URL of the repository, such as `…/v2/NAME/blobs/sha256:…`.
    pub(super) fn url(&self, rest: &str) -> Result<Uri, Problem> {
        let base = self.base.to_string();
        let text = format!(
            "{}/v2/{}/{rest}",
            base.trim_end_matches('/'),
            self.repository
        );
        text.parse().map_err(|_| Problem::Protocol {
            host: self.host.clone(),
            reason: format!("can't be asked for the URL {text}"),
        })
    }

    fn origin(&self) -> (Option<&str>, Option<&str>, Option<u16>) {
        origin(&self.base)
    }

    /// Has authorisation got anew by the next request.
    pub(super) fn forget(&self) {
        if let Ok(mut slot) = self.authorization.lock() {
            *slot = None;
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().ok()?.clone()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    token: Option<String>,
    access_token: Option<String>,
}
