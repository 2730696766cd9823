//! The host's control plane from start to end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rcgen::KeyPair;

use super::components::{Files, PORT};
use super::network::HOST;
use super::pki::{Authority, kubeconfig};
use super::{Network, Process, nodes};
use crate::{Env, wait};

/// How long each of the programs may take to be of use, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_millis(100);

/// A running control plane. Everything of it is gone on drop; after a panic its logs are kept, see
/// [`Env::keep`].
#[derive(Debug)]
pub struct Host {
    processes: Vec<Process>,
    authority: Authority,
    network: Network,
    env: Env,
}

impl Host {
    /// Starts it, and moves the calling thread into its network: only from there, and from what is
    /// started there, it can be reached. The API is then ready, and pods can be made in `default`
    /// and have a node; nothing runs them.
    pub async fn start() -> Self {
        let env = Env::new();
        let network = Network::new();
        network.enter();
        let authority = Authority::generate();
        let mut host = Self {
            processes: Vec::new(),
            authority,
            network,
            env,
        };
        fs::create_dir(host.logs()).expect("a directory of the test's");
        host.write_files();

        let root = host.env.root().to_owned();
        let files = Files(&root);
        host.run("etcd", files.etcd());
        host.run("kube-apiserver", files.apiserver());
        host.wait("the host's API", async |client: &Client| {
            let request = http::Request::get("/readyz").body(Vec::new());
            client.request_text(request.expect("a request")).await
        })
        .await;
        host.run("kube-controller-manager", files.controller_manager());
        host.run("kube-scheduler", files.scheduler());
        let client = host.client().await;
        for number in 1..=nodes::NODES {
            nodes::create(&client, number).await.expect("a node");
        }
        // It waits for its node, a second at a time.
        host.run("kube-proxy", files.proxy(&nodes::name(1)));
        host.wait("the host's controllers", async |client: &Client| {
            Api::<ServiceAccount>::default_namespaced(client.clone())
                .get("default")
                .await
        })
        .await;
        host
    }

    /// The administrator's kubeconfig; its one context is `host`.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        Files(self.env.root()).kubeconfig("admin")
    }

    /// A kubeconfig of somebody else, who may do nothing that no role grants; its one context is
    /// `host`.
    #[must_use]
    pub fn kubeconfig_of(&self, user: &str) -> PathBuf {
        let path = self.env.root().join(format!("user-{user}.kubeconfig"));
        let identity = self.authority.client(user, None);
        let address = format!("https://{HOST}:{PORT}");
        let text = kubeconfig(&address, &self.authority, &identity);
        fs::write(&path, text).expect("a file of the test's");
        path
    }

    /// A new client, as the administrator, for the calling runtime.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub async fn client(&self) -> Client {
        client(&self.kubeconfig()).await
    }

    /// The network that all of it is in.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Where the programs' logs are, `NAME.log`.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.env.root().join("logs")
    }

    /// A directory of this host's, for what a test keeps there; gone with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.env.root()
    }

    /// Runs one more program as part of the host.
    pub(super) fn run(&mut self, name: &str, command: std::process::Command) {
        let process = Process::start(&self.network, &self.logs(), name, command);
        self.processes.push(process);
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Asks until there is an answer; panics at the deadline, or when a program has ended.
    pub(super) async fn wait<T>(
        &mut self,
        what: &str,
        ask: impl AsyncFn(&Client) -> kube::Result<T>,
    ) -> T {
        let client = self.client().await;
        wait::until_async(what, LIMIT, INTERVAL, async || {
            self.processes.iter_mut().for_each(Process::assert_running);
            ask(&client).await
        })
        .await
    }

    fn write_files(&self) {
        let files = Files(self.env.root());
        fs::create_dir(files.pki("")).expect("a directory of the test's");
        let pki = |name: &str, content: &str| fs::write(files.pki(name), content);
        let write = |name: &str, content: &str| pki(name, content).expect("a file of the test's");
        let service = [10, 96, 0, 1].into();
        let server = self
            .authority
            .server(&[HOST, [127, 0, 0, 1].into(), service]);
        let account = KeyPair::generate().expect("a key");
        write("ca.crt", self.authority.certificate());
        write("ca.key", &self.authority.key());
        write("apiserver.crt", &server.certificate);
        write("apiserver.key", &server.key);
        write("sa.key", &account.serialize_pem());
        write("sa.pub", &account.public_key_pem());

        let address = format!("https://{HOST}:{PORT}");
        for (component, user) in [
            (
                "admin",
                self.authority.client("admin", Some("system:masters")),
            ),
            // Its controllers have no service accounts of their own here.
            (
                "kube-controller-manager",
                self.authority.client("controllers", Some("system:masters")),
            ),
            (
                "kube-scheduler",
                self.authority.client("system:kube-scheduler", None),
            ),
            (
                "kube-proxy",
                self.authority.client("system:kube-proxy", None),
            ),
        ] {
            let text = kubeconfig(&address, &self.authority, &user);
            fs::write(files.kubeconfig(component), text).expect("a file of the test's");
        }
    }
}

impl Drop for Host {
    /// The clients first, so that none of them logs a line a millisecond about the others.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.env.keep();
        }
        while self.processes.pop().is_some() {}
    }
}

/// A client for the calling runtime, of what a kubeconfig's current context names.
pub(crate) async fn client(kubeconfig: &Path) -> Client {
    connect(kubeconfig, KubeConfigOptions::default()).await
}

/// A client for the calling runtime, of one of a kubeconfig's contexts.
///
/// # Panics
///
/// Where there is no such context.
pub async fn client_of(kubeconfig: &Path, context: &str) -> Client {
    let options = KubeConfigOptions {
        context: Some(context.to_owned()),
        ..KubeConfigOptions::default()
    };
    connect(kubeconfig, options).await
}

async fn connect(kubeconfig: &Path, options: KubeConfigOptions) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let mut config = Config::from_custom_kubeconfig(read, &options)
        .await
        .expect("a kubeconfig");
    config.connect_timeout = Some(Duration::from_secs(5));
    // A watch is silent for as long as nothing happens.
    config.read_timeout = None;
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}
