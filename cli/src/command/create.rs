//! `knest create`.

use super::persistent;
use super::place::{Home, Where, choose};
use super::{Env, image};
use crate::cluster::name::ClusterName;
use crate::cluster::quantity::Quantity;
use crate::cluster::record::{Phase, Record};
use crate::cluster::spec::{
    ClusterSpec, Expose, MachineSpec, NetworkSpec, PersistentSpec, ProviderSpec, Role, VirtinkSpec,
    VmmKind,
};
use crate::cluster::version::{self, Version};
use crate::cluster::{address, kubeconfig, references, root};
use crate::failure::{Failure, Result};
use crate::provider::Provider;
use crate::provider::virtink::Sources;
use crate::step::{self, OnFailure};
use crate::{interrupt, ui};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;

/// Where pods and Services are where no flag says: the first that clashes with nothing.
const PODS: [Ipv4Net; 3] = [range(10, 244), range(10, 245), range(172, 29)];
const SERVICES: [Ipv4Net; 3] = [range(10, 112), range(10, 113), range(172, 28)];

const fn range(a: u8, b: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), 16)
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Run again with the same arguments, a create that stopped half-way goes on \
    where it stopped.\n\nExamples:\n  knest create\n  knest create demo --worker-machine-count 2"
)]
pub(crate) struct Args {
    /// The cluster's name
    #[arg(default_value = "knest")]
    name: ClusterName,
    /// The Kubernetes version
    #[arg(long, default_value_t = version::DEFAULT)]
    kubernetes_version: Version,
    /// How many control-plane nodes
    #[arg(long, default_value_t = 1, value_name = "N")]
    control_plane_machine_count: u32,
    /// How many worker nodes
    #[arg(long, default_value_t = 0, value_name = "N")]
    worker_machine_count: u32,
    /// Where pods get their addresses [default: 10.244.0.0/16, or what clashes with no host cluster]
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    pod_network_cidr: Option<Ipv4Net>,
    /// Where Services get their addresses [default: 10.112.0.0/16, or as above]
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    service_cidr: Option<Ipv4Net>,
    /// Where nodes get their addresses [default: a range that clashes with nothing]
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    node_cidr: Option<Ipv4Net>,
    /// What runs the machines on this host [default: cloud-hypervisor]
    #[arg(long, value_enum)]
    vmm: Option<VmmKind>,
    /// Where knest's images are named: REPOSITORY/node:VERSION, REPOSITORY/kernel:latest
    #[arg(
        long,
        value_name = "REPOSITORY",
        env = "KNEST_IMAGE_REPOSITORY",
        default_value = references::REPOSITORY
    )]
    image_repository: String,
    /// Root image of all nodes [default: knest's for the Kubernetes version]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    #[command(flatten)]
    place: Where,
    /// Install Virtink where the host cluster lacks it
    #[arg(long, help_heading = "Installing Virtink")]
    install: bool,
    #[command(flatten)]
    sources: Sources,
    /// How the API is reached from outside the host cluster [default: auto]
    #[arg(long, value_enum, value_name = "HOW")]
    expose: Option<Expose>,
    /// Labels of the host cluster's nodes that may run machines
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    node_selector: Vec<(String, String)>,
    #[command(flatten)]
    persistent: persistent::Flags,
    /// Virtual CPUs of a control-plane node
    #[arg(long, default_value_t = 2, value_name = "N")]
    control_plane_machine_cpu_cores: u32,
    /// Memory of a control-plane node
    #[arg(long, default_value_t = Quantity::gib(2), value_name = "QUANTITY")]
    control_plane_machine_memory_size: Quantity,
    /// Size of a control-plane node's root disk
    #[arg(long, default_value_t = Quantity::gib(8), value_name = "QUANTITY")]
    control_plane_machine_rootfs_size: Quantity,
    /// Kernel image of control-plane nodes [default: knest's]
    #[arg(long, value_name = "IMAGE")]
    control_plane_machine_kernel_image: Option<String>,
    /// Root image of control-plane nodes, or on this machine file:PATH[@sha256:HEX], a disk
    /// [default: that of all nodes]
    #[arg(long, value_name = "IMAGE")]
    control_plane_machine_rootfs_image: Option<String>,
    /// Virtual CPUs of a worker node
    #[arg(long, default_value_t = 2, value_name = "N")]
    worker_machine_cpu_cores: u32,
    /// Memory of a worker node
    #[arg(long, default_value_t = Quantity::gib(2), value_name = "QUANTITY")]
    worker_machine_memory_size: Quantity,
    /// Size of a worker node's root disk
    #[arg(long, default_value_t = Quantity::gib(8), value_name = "QUANTITY")]
    worker_machine_rootfs_size: Quantity,
    /// Kernel image of worker nodes [default: knest's]
    #[arg(long, value_name = "IMAGE")]
    worker_machine_kernel_image: Option<String>,
    /// Root image of worker nodes, or on this machine file:PATH[@sha256:HEX], a disk
    /// [default: that of all nodes]
    #[arg(long, value_name = "IMAGE")]
    worker_machine_rootfs_image: Option<String>,
    /// Keep what was made when the creation fails or is interrupted
    #[arg(long)]
    retain: bool,
    /// How long the creation may take
    #[arg(long, default_value = "20m", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
    /// The kubeconfig to merge into [default: as kubectl finds its own]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// `KEY=VALUE`, both as Kubernetes has them.
fn label(text: &str) -> Result<(String, String), String> {
    let legal = |part: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        part.len() <= 253 && part.bytes().all(inner)
    };
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && legal(key) && legal(value) => {
            Ok((key.into(), value.into()))
        }
        _ => Err(format!("{text:?} is not a label like disk=fast")),
    }
}

fn cidr(text: &str) -> Result<Ipv4Net, String> {
    address::parse_cidr(text).map_err(|e| e.to_string())
}

pub(crate) async fn run(args: Args, env: &Env) -> Result<()> {
    let cancel = interrupt::token()?;
    let choice = choose(&args.place, args.virtink_flag(), env).await?;
    env.printer.note(&choice.words());
    let provider = choice.home.provider();
    if let Home::Virtink(virtink) = &choice.home {
        let host = virtink.host();
        super::install::ensure(host, args.install, &args.sources, args.timeout, env).await?;
    }
    let _lock = provider.lock(&args.name).await?;
    let known = provider.load(&args.name).await?;
    let network = args.network(&choice.home, known.as_ref()).await;
    let persistent = args
        .persistent
        .resolve(&choice.home, known.as_ref())
        .await?;
    let spec = args.spec(&choice.home, network, persistent, known.as_ref())?;
    let record = match known {
        Some(record) => resumable(record, &spec)?,
        None => args.new_record(spec, provider)?,
    };
    let deadline = Instant::now() + args.timeout;
    image::fetch_for(&record, &choice.home, env).await?;
    let reporter = ui::reporter(env.printer.output, env.printer.quiet);
    let mut cx = step::Context {
        provider,
        reporter: reporter.as_ref(),
        record,
        deadline,
    };
    env.printer.note(&format!(
        "Creating cluster {:?} {}",
        args.name.as_str(),
        provider.place()
    ));
    for note in provider.notes(&cx.record) {
        env.printer.note(&note);
    }
    let on_failure = if args.retain {
        OnFailure::Keep
    } else {
        OnFailure::Undo
    };
    step::execute(&step::create_plan(), &mut cx, &cancel, on_failure).await?;
    farewell(&cx.record, env);
    Ok(())
}

/// A record that this run may go on with, or why not.
fn resumable(record: Record, spec: &ClusterSpec) -> Result<Record> {
    let name = &record.spec.name;
    match record.phase {
        Phase::Ready => Err(Failure::usage(format!("cluster {name} exists already"))
            .hint(format!(
                "to use it: kubectl --context {} get nodes",
                name.context()
            ))
            .hint(format!("to remove it: knest delete {name}"))),
        Phase::Stopped => Err(Failure::usage(format!(
            "cluster {name} exists already, and is stopped"
        ))
        .hint(format!("to go on with it: knest start {name}"))),
        Phase::Deleting => Err(Failure::usage(format!("cluster {name} is being deleted"))
            .hint(format!("finish that first: knest delete {name}"))),
        Phase::Creating if record.spec == *spec => Ok(record),
        Phase::Creating => Err(Failure::usage(format!(
            "cluster {name} was begun with other arguments: {}",
            differences(&record.spec, spec)
        ))
        .hint(format!(
            "give the same arguments to go on, or start anew: knest delete {name}"
        ))),
    }
}

/// The fields in which two specifications differ, as `field: was, asked`.
fn differences(was: &ClusterSpec, asked: &ClusterSpec) -> String {
    fn flatten(prefix: &str, value: &serde_json::Value, into: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, inner) in map {
                    flatten(&format!("{prefix}.{key}"), inner, into);
                }
            }
            leaf => into.push((prefix.trim_start_matches('.').into(), leaf.to_string())),
        }
    }
    let leaves = |spec: &ClusterSpec| {
        let mut leaves = vec![];
        flatten(
            "",
            &serde_json::to_value(spec).unwrap_or_default(),
            &mut leaves,
        );
        leaves
    };
    let changed = leaves(was)
        .into_iter()
        .zip(leaves(asked))
        .filter(|(a, b)| a != b);
    changed
        .map(|(a, b)| format!("{} was {}, now {}", a.0, a.1, b.1))
        .collect::<Vec<_>>()
        .join("; ")
}

fn farewell(record: &Record, env: &Env) {
    let name = &record.spec.name;
    let count = record.nodes.len();
    env.printer.note(&format!(
        "\nCluster {name} is ready: {count} node{}, Kubernetes {}.\n\nUse it:    kubectl --context {} get nodes\nScale it:  knest scale {name} --worker-machine-count {}\nRemove it: knest delete {name}",
        if count == 1 { "" } else { "s" },
        record.spec.kubernetes_version,
        name.context(),
        record.spec.worker.count + 1,
    ));
}

impl Args {
    /// A given flag that only provider virtink has.
    fn virtink_flag(&self) -> Option<&'static str> {
        let given = [
            ("--expose", self.expose.is_some()),
            ("--node-selector", !self.node_selector.is_empty()),
            ("--install", self.install),
        ];
        let given = given.into_iter().find(|(_, given)| *given).map(|(f, _)| f);
        given
            .or_else(|| self.sources.flag())
            .or_else(|| self.persistent.flag())
    }

    fn machine(&self, role: Role, home: &Home) -> MachineSpec {
        let repository = &self.image_repository;
        let kernel = || references::kernel(repository);
        let own = || match home {
            Home::Local(_) => references::node(repository, self.kubernetes_version),
            Home::Virtink(_) => references::node_on_virtink(repository, self.kubernetes_version),
        };
        let here = std::env::current_dir().unwrap_or_default();
        let root = |given: &Option<String>| {
            let root = given.clone().or_else(|| self.image.clone());
            root.map_or_else(own, |root| root::absolute(&root, &here))
        };
        match role {
            Role::ControlPlane => MachineSpec {
                count: self.control_plane_machine_count,
                cpu_cores: self.control_plane_machine_cpu_cores,
                memory: self.control_plane_machine_memory_size,
                rootfs_size: self.control_plane_machine_rootfs_size,
                kernel_image: self
                    .control_plane_machine_kernel_image
                    .clone()
                    .unwrap_or_else(kernel),
                rootfs_image: root(&self.control_plane_machine_rootfs_image),
            },
            Role::Worker => MachineSpec {
                count: self.worker_machine_count,
                cpu_cores: self.worker_machine_cpu_cores,
                memory: self.worker_machine_memory_size,
                rootfs_size: self.worker_machine_rootfs_size,
                kernel_image: self
                    .worker_machine_kernel_image
                    .clone()
                    .unwrap_or_else(kernel),
                rootfs_image: root(&self.worker_machine_rootfs_image),
            },
        }
    }

    /// The ranges that are given, those of a creation that goes on, or free ones.
    async fn network(&self, home: &Home, known: Option<&Record>) -> NetworkSpec {
        let taken = match home {
            Home::Virtink(virtink) if known.is_none() => virtink.taken_ranges().await,
            _ => vec![],
        };
        let known = known.map(|record| &record.spec.network);
        let choose = |given: Option<Ipv4Net>, known: Option<Ipv4Net>, others: [Ipv4Net; 3]| {
            let free = |net: &Ipv4Net| {
                let overlap = |range: &Ipv4Net| range.contains(net) || net.contains(range);
                !taken.iter().any(overlap)
            };
            let chosen = || others.into_iter().find(free).unwrap_or(others[0]);
            given.or(known).unwrap_or_else(chosen)
        };
        NetworkSpec {
            pod_cidr: choose(self.pod_network_cidr, known.map(|n| n.pod_cidr), PODS),
            service_cidr: choose(self.service_cidr, known.map(|n| n.service_cidr), SERVICES),
        }
    }

    /// Flags, with every default filled in and checked against each other. A range that knest
    /// chose itself stays what it was when a creation goes on.
    fn spec(
        &self,
        home: &Home,
        network: NetworkSpec,
        persistent: Option<PersistentSpec>,
        known: Option<&Record>,
    ) -> Result<ClusterSpec> {
        let chosen = known.and_then(|record| record.spec.provider.node_cidr());
        let provider = match home {
            Home::Local(local) => ProviderSpec::Local {
                vmm: self.vmm.unwrap_or(VmmKind::CloudHypervisor),
                node_cidr: match self.node_cidr.or(chosen) {
                    Some(given) => given,
                    None => local.free_node_cidr(&[network.pod_cidr, network.service_cidr])?,
                },
            },
            Home::Virtink(virtink) => {
                let local = [
                    ("--vmm", self.vmm.is_some()),
                    ("--node-cidr", self.node_cidr.is_some()),
                ];
                if let Some((flag, _)) = local.into_iter().find(|(_, given)| *given) {
                    return Err(Failure::usage(format!("{flag} is for provider local"))
                        .hint("give --provider local, or leave it out"));
                }
                ProviderSpec::Virtink(VirtinkSpec {
                    namespace: virtink.namespace().into(),
                    expose: self.expose.unwrap_or(Expose::Auto),
                    node_selector: self.node_selector.iter().cloned().collect(),
                    persistent,
                })
            }
        };
        let spec = ClusterSpec {
            name: self.name.clone(),
            kubernetes_version: self.kubernetes_version,
            network,
            control_plane: self.machine(Role::ControlPlane, home),
            worker: self.machine(Role::Worker, home),
            provider,
        };
        spec.check()?;
        Ok(spec)
    }

    fn new_record(&self, spec: ClusterSpec, provider: &dyn Provider) -> Result<Record> {
        let mut record = Record::new(spec, OffsetDateTime::now_utc());
        let var = |name: &str| std::env::var_os(name);
        let home = var("HOME").map(PathBuf::from);
        let list = var("KUBECONFIG");
        let path =
            kubeconfig::target(self.kubeconfig.as_deref(), list.as_deref(), home.as_deref())?;
        record.kubeconfig = Some(std::path::absolute(&path).map_err(|e| {
            Failure::host(format!("the kubeconfig's path {}", path.display())).because(e)
        })?);
        for role in [Role::ControlPlane, Role::Worker] {
            let count = record.spec.machine(role).count;
            step::add_nodes(provider, &mut record, role, count)?;
        }
        Ok(record)
    }
}
