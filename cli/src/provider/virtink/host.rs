//! The host cluster: which one, how it is asked, and what its answers mean to the user. Every call
//! is bounded, and tried again where that can help: all that knest asks of a host is idempotent.

use super::api::GROUP;
use crate::failure::{Failure, Result, innermost};
use futures::{StreamExt, TryStreamExt, stream};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(30);
/// How often, and after which pauses, a call that met a passing trouble is tried again.
const PAUSES: [u64; 5] = [1, 2, 4, 8, 8];
/// How many things are asked of the host at once.
const AT_ONCE: usize = 16;
/// How long a look at a host that may not be one may take.
const LOOK: Duration = Duration::from_secs(5);

/// Which host, as the user named it; what is not named is kubectl's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostName {
    pub(crate) context: Option<String>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) namespace: Option<String>,
}

/// A host cluster and the namespace in it.
#[derive(Clone)]
pub(crate) struct Host {
    pub(super) client: Client,
    pub(crate) context: String,
    pub(crate) namespace: String,
    /// The file that the context is in, where it was named.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The API server's host, as the kubeconfig has it.
    pub(super) server: Option<String>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({}, {})", self.context, self.namespace)
    }
}

/// The kubeconfig that names hosts: the file that is named, else as kubectl finds its own. `None`
/// where there is none.
fn kubeconfig(named: Option<&Path>) -> Result<Option<Kubeconfig>> {
    use kube::config::KubeconfigError;
    let read = match named {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    match read {
        Ok(config) => Ok(Some(config)),
        // Of those that $KUBECONFIG lists some may not be there, as with kubectl.
        Err(KubeconfigError::ReadConfig(error, _))
            if named.is_none() && error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(KubeconfigError::FindPath) => Ok(None),
        Err(error) => Err(Failure::usage("reading the kubeconfig").because(error)),
    }
}

/// The current context of the kubeconfig, if there is one.
pub(crate) fn current_context(named: Option<&Path>) -> Result<Option<String>> {
    let config = kubeconfig(named)?;
    Ok(config
        .and_then(|c| c.current_context)
        .filter(|c| !c.is_empty()))
}

impl Host {
    /// A client for the host that is named. Makes no connection yet.
    pub(crate) async fn of(name: &HostName) -> Result<Self> {
        let config = kubeconfig(name.kubeconfig.as_deref())?.ok_or_else(|| {
            Failure::usage("there is no kubeconfig that names a host cluster")
                .hint("name one with --host-kubeconfig or $KUBECONFIG")
        })?;
        let context = name
            .context
            .clone()
            .or_else(|| config.current_context.clone())
            .filter(|c| !c.is_empty())
            .ok_or_else(|| {
                Failure::usage("the kubeconfig has no current context")
                    .hint("name the host cluster's with --host-context")
            })?;
        if !config.contexts.iter().any(|c| c.name == context) {
            let known: Vec<&str> = config.contexts.iter().map(|c| c.name.as_str()).collect();
            return Err(
                Failure::usage(format!("the kubeconfig has no context {context}"))
                    .hint(format!("it has: {}", known.join(", "))),
            );
        }
        let options = KubeConfigOptions {
            context: Some(context.clone()),
            ..KubeConfigOptions::default()
        };
        let unusable = |error: &dyn Display| {
            Failure::usage(format!("context {context} can't be used: {error}"))
        };
        let mut config = Config::from_custom_kubeconfig(config, &options)
            .await
            .map_err(|e| unusable(&e))?;
        config.connect_timeout = Some(Duration::from_secs(10));
        // Ours are bounded and reported, which that layer's are not.
        config.default_retry = false;
        let namespace = name
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.host().map(str::to_owned);
        let client = Client::try_from(config).map_err(|e| unusable(&e))?;
        Ok(Self {
            client,
            context,
            namespace,
            kubeconfig: name.kubeconfig.clone(),
            server,
        })
    }

    /// The objects of a kind in the namespace.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Whether the host serves Virtink's API; an error where it does not answer.
    pub(crate) async fn serves_virtink(&self) -> Result<bool> {
        let what = "asking for Virtink's API";
        match timeout(LOOK, self.client.list_api_groups()).await {
            Ok(Ok(groups)) => Ok(groups.groups.iter().any(|g| g.name == GROUP)),
            Ok(Err(error)) => Err(self.failure(what, &error)),
            Err(_) => Err(self.silent(what, LOOK)),
        }
    }

    /// Makes a call, again where it met a passing trouble.
    pub(super) async fn call<T, F>(&self, what: impl Display, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        for pause in PAUSES.into_iter().map(Some).chain([None]) {
            let failure = match timeout(CALL, call()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if passing(&error) => self.failure(&what, &error),
                Ok(Err(error)) => return Err(self.failure(&what, &error)),
                Err(_) => self.silent(&what, CALL),
            };
            match pause {
                Some(pause) => {
                    tracing::debug!(%failure, "trying again in {pause} s");
                    sleep(Duration::from_secs(pause)).await;
                }
                None => return Err(failure),
            }
        }
        Err(Failure::internal("a call without an attempt"))
    }

    /// The same where an object that is absent is an answer.
    pub(super) async fn call_opt<T, F>(
        &self,
        what: impl Display,
        call: impl Fn() -> F,
    ) -> Result<Option<T>>
    where
        F: Future<Output = kube::Result<T>>,
    {
        self.call(what, || {
            let answer = call();
            async {
                match answer.await {
                    Ok(there) => Ok(Some(there)),
                    Err(error) if is(&error, 404) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
        .await
    }

    fn silent(&self, what: impl Display, waited: Duration) -> Failure {
        Failure::host(format!(
            "{what}: context {} does not answer in {} s",
            self.context,
            waited.as_secs()
        ))
        .hint(self.reachable())
    }

    fn reachable(&self) -> String {
        format!(
            "can the host cluster be reached? kubectl --context {} get --raw /readyz",
            self.context
        )
    }

    /// What an error of the host's means.
    pub(super) fn failure(&self, what: impl Display, error: &kube::Error) -> Failure {
        let kube::Error::Api(status) = error else {
            let cause = innermost(error);
            return Failure::host(format!("{what}: context {}: {cause}", self.context))
                .hint(self.reachable());
        };
        let says = &status.message;
        let failure = Failure::host(format!("{what}: {says}"));
        match status.code {
            401 => failure.hint(format!(
                "the host cluster does not accept the credentials of context {}: log in again",
                self.context
            )),
            403 if says.contains("exceeded quota") => failure.hint(format!(
                "ask for smaller or fewer machines, or for a larger quota of namespace {}",
                self.namespace
            )),
            403 if says.contains("being terminated") => failure.hint(format!(
                "namespace {} is being deleted: name another with -n",
                self.namespace
            )),
            403 => failure.hint("ask the host cluster's administrator for what is missing"),
            500.. if says.contains("webhook") => failure
                .hint("Virtink's controller does not answer: kubectl -n virtink-system get pods"),
            _ => failure,
        }
    }
}

/// Does several things, a few at a time; the first failure ends it.
pub(super) async fn together<T>(work: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    stream::iter(work).buffered(AT_ONCE).try_collect().await
}

/// Whether an error is an answer with this status.
pub(super) fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Troubles that pass by themselves: an API server that restarts, is busy, or changes its leader.
pub(super) fn passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn host() -> Host {
        let service = tower_service();
        Host {
            client: Client::new(service, "demo"),
            context: "office".into(),
            namespace: "demo".into(),
            kubeconfig: None,
            server: None,
        }
    }

    /// A host that never answers.
    fn tower_service() -> impl tower::Service<
        http::Request<kube::client::Body>,
        Response = http::Response<kube::client::Body>,
        Error = std::io::Error,
        Future = std::future::Pending<std::io::Result<http::Response<kube::client::Body>>>,
    > + Send
    + Clone
    + 'static {
        tower::service_fn(|_| std::future::pending())
    }

    fn answer(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status {
            code,
            message: message.into(),
            ..Status::default()
        }))
    }

    #[tokio::test]
    async fn answers_in_the_users_words() {
        let text = |code, message| host().failure("making x", &answer(code, message)).render();
        insta::assert_snapshot!([
            text(401, "Unauthorized"),
            text(403, "secrets is forbidden: User \"eve\" cannot create resource"),
            text(403, "pods \"x\" is forbidden: exceeded quota: compute"),
            text(500, "Internal error occurred: failed calling webhook \"x\": connection refused"),
            text(404, "namespaces \"demo\" not found"),
        ].concat(), @r#"
        error: making x: Unauthorized
        hint: the host cluster does not accept the credentials of context office: log in again
        error: making x: secrets is forbidden: User "eve" cannot create resource
        hint: ask the host cluster's administrator for what is missing
        error: making x: pods "x" is forbidden: exceeded quota: compute
        hint: ask for smaller or fewer machines, or for a larger quota of namespace demo
        error: making x: Internal error occurred: failed calling webhook "x": connection refused
        hint: Virtink's controller does not answer: kubectl -n virtink-system get pods
        error: making x: namespaces "demo" not found
        "#);
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_trouble_is_tried_again() {
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let result = host()
            .call("asking", || async {
                match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                    0 => Err(answer(500, "etcdserver: leader changed")),
                    1 => Err(answer(429, "too many requests")),
                    _ => Ok(7),
                }
            })
            .await;
        assert_eq!(result.unwrap(), 7);
        let refused = async || Err::<(), _>(answer(403, "no"));
        assert!(host().call("asking", refused).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends() {
        let never = std::future::pending::<kube::Result<()>>;
        let text = host().call("asking", never).await.unwrap_err().render();
        assert!(
            text.contains("asking: context office does not answer in 30 s"),
            "{text}"
        );
    }
}
