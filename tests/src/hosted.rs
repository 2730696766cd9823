//! Clusters on the test host: the host with Virtink, what plays its nodes and machines, and a user
//! with `knest` and a kubeconfig whose current context is the host.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use fs_err as fs;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::host::virtink::{GROUP, virtual_machine};
use crate::player::{Guests, Player};
use crate::{Env, Host, wait};

const LIMIT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

/// What a namespace can hold that is or could be knest's.
const KINDS: [(&str, &str, &str); 7] = [
    ("", "v1", "Secret"),
    ("", "v1", "Service"),
    ("", "v1", "Pod"),
    ("", "v1", "PersistentVolumeClaim"),
    ("coordination.k8s.io", "v1", "Lease"),
    ("batch", "v1", "Job"),
    (GROUP, "v1alpha1", "VirtualMachine"),
];

/// All of it; gone on drop.
pub struct Hosted {
    /// The user's home.
    pub env: Env,
    /// The administrator's client.
    pub client: Client,
    /// Whether virt-controller is the real one.
    real: bool,
    player: Option<Player>,
    /// The last to go.
    pub host: Host,
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hosted({})", self.host.directory().display())
    }
}

impl Hosted {
    /// With the real virt-controller where this machine has it.
    pub async fn start(guests: impl Guests) -> Self {
        let mut host = Host::start().await;
        let real = host.install_virtink().await;
        Self::of(host, real, guests).await
    }

    /// With virt-controller played: the real one makes a few objects a second, which is long for
    /// hundreds of machines.
    pub async fn played(guests: impl Guests) -> Self {
        let mut host = Host::start().await;
        host.define_virtink().await;
        Self::of(host, false, guests).await
    }

    async fn of(host: Host, real: bool, guests: impl Guests) -> Self {
        let player = Some(Player::start(&host, real, guests));
        let client = host.client().await;
        let env = user(&host.kubeconfig());
        Self {
            env,
            client,
            real,
            player,
            host,
        }
    }

    /// Who plays kubelets and machines.
    ///
    /// # Panics
    ///
    /// When nobody does.
    #[must_use]
    pub fn player(&self) -> &Player {
        self.player.as_ref().expect("somebody plays")
    }

    /// From now on nobody plays kubelets or machines.
    pub fn stop_playing(&mut self) {
        drop(self.player.take());
    }

    /// Plays with other machines.
    pub fn play(&mut self, guests: impl Guests) {
        self.stop_playing();
        self.player = Some(Player::start(&self.host, self.real, guests));
    }

    /// The objects of a kind in a namespace.
    #[must_use]
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The virtual machines of a namespace.
    #[must_use]
    pub fn machines(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &virtual_machine())
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) {
        let namespace = json!({"metadata": {"name": name}});
        let namespace = serde_json::from_value(namespace).expect("a Namespace");
        let api: Api<Namespace> = Api::all(self.client.clone());
        let made = api.create(&PostParams::default(), &namespace).await;
        drop(made.expect("a namespace"));
    }

    /// Runs `knest` to its end.
    #[must_use]
    pub fn knest(&self, arguments: &[&str]) -> Output {
        self.env.knest(arguments).output().expect("knest starts")
    }

    /// Runs `knest`, which has to end with this exit code; returns its error output.
    #[must_use]
    pub fn ends(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.knest(arguments);
        let said = errors(&output);
        assert_eq!(
            output.status.code(),
            Some(code),
            "knest {arguments:?}: {said}"
        );
        said
    }

    /// Starts `knest`.
    #[must_use]
    pub fn begin(&self, arguments: &[&str]) -> Child {
        begin(&self.env, arguments)
    }

    /// Waits until a namespace has so many machines and all of them run, while `knest` does.
    pub async fn running(&self, namespace: &str, count: usize, knest: &mut Child) {
        let api = self.machines(namespace);
        wait::until_async("running machines", LIMIT, INTERVAL, async || {
            if let Ok(Some(status)) = knest.try_wait() {
                let mut said = String::new();
                let errors = knest.stderr.as_mut().expect("its standard error");
                drop(errors.read_to_string(&mut said));
                panic!("knest ended: {status}\n{said}");
            }
            let list = api.list(&ListParams::default()).await;
            let list = list.map_err(|error| error.to_string())?;
            let phases: Vec<String> = list
                .iter()
                .map(|machine| machine.data["status"]["phase"].to_string())
                .collect();
            match phases.len() == count && phases.iter().all(|phase| phase == "\"Running\"") {
                true => Ok(()),
                false => Err(format!("{phases:?}")),
            }
        })
        .await;
    }

    /// Waits until a machine is in a phase.
    pub async fn phase(&self, namespace: &str, name: &str, phase: &str) {
        let api = self.machines(namespace);
        wait::until_async(phase, LIMIT, INTERVAL, async || {
            let machine = api.get(name).await.map_err(|error| error.to_string())?;
            let status = &machine.data["status"];
            match status["phase"] == phase {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        })
        .await;
    }

    /// `KIND NAME` of everything in a namespace.
    pub async fn left(&self, namespace: &str) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        let all = ListParams::default();
        for (group, version, kind) in KINDS {
            let list = self.list(namespace, group, version, kind, &all).await;
            left.extend(list.iter().map(|o| format!("{kind} {}", o.name_any())));
        }
        left.remove("Service kubernetes");
        left
    }

    /// The objects of a kind.
    pub async fn list(
        &self,
        namespace: &str,
        group: &str,
        version: &str,
        kind: &str,
        which: &ListParams,
    ) -> Vec<DynamicObject> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        api.list(which).await.expect("a list").items
    }

    /// Waits until a namespace is empty: what goes with its owner goes a moment later.
    pub async fn nothing_left(&self, namespace: &str) {
        wait::until_async("nothing left", LIMIT, INTERVAL, async || {
            let left = self.left(namespace).await;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }
}

/// A home whose kubeconfig is a copy of this one.
#[must_use]
pub fn user(kubeconfig: &Path) -> Env {
    let env = Env::new();
    fs::create_dir_all(env.home().join(".kube")).expect("a home");
    fs::copy(kubeconfig, env.kubeconfig()).expect("a kubeconfig");
    env
}

/// Starts `knest` in an environment.
#[must_use]
pub fn begin(env: &Env, arguments: &[&str]) -> Child {
    let mut knest = env.knest(arguments);
    knest.stdout(Stdio::piped()).stderr(Stdio::piped());
    knest.spawn().expect("knest starts")
}

/// Sends Ctrl-C to a program, and waits for its end.
pub async fn interrupt(child: Child) -> Output {
    kill_process(id(&child), Signal::INT).expect("a signal");
    end(child).await
}

/// Waits for a program's end.
pub async fn end(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output())
        .await
        .expect("a thread")
        .expect("an end")
}

/// Kills `knest` as soon as it says that it begins the step of this title; `false` where it ended
/// before.
pub async fn kill_at(child: Child, title: &str) -> bool {
    at(child, title, Signal::KILL).await.0
}

/// Sends Ctrl-C to `knest` as soon as it says that it begins the step of this title; what it had
/// said by its end.
pub async fn interrupt_at(child: Child, title: &str) -> String {
    let (met, said) = at(child, title, Signal::INT).await;
    assert!(met, "{title}: {said}");
    said
}

/// Signals a program that says that it begins a step; whether it said so, and all that it said.
async fn at(mut child: Child, title: &str, signal: Signal) -> (bool, String) {
    let title = title.to_owned();
    tokio::task::spawn_blocking(move || {
        let errors = child.stderr.take().expect("its standard error");
        let mut met = false;
        let mut said = String::new();
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            if !met && line.trim_start_matches([' ', '•']).starts_with(&title) {
                met = true;
                kill_process(id(&child), signal).expect("a signal");
            }
            said.push_str(&line);
            said.push('\n');
        }
        drop(child.wait());
        (met, said)
    })
    .await
    .expect("a thread")
}

fn id(child: &Child) -> Pid {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.expect("a process")
}

/// A program's error output.
#[must_use]
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
