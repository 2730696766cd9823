//! `Local`: the provider's acts, each out of the parts beside this file.

use super::life::Life;
use super::lock::ClusterLock;
use super::machine::{Disk, DiskFormat, Machine, VERSION};
use super::network::{self, API_PORT, find_pasta, gateway};
use super::process::marked;
use super::state::{self, ClusterDir, MachineDir};
use super::{disk, image, kvm, preflight, seed, supervisor, vmm};
use crate::cluster::address;
use crate::cluster::name::{ClusterName, NodeName};
use crate::cluster::record::{Endpoint, NodeRecord, NodeState, Record};
use crate::cluster::spec::{MachineSpec, ProviderSpec, Role, VmmKind};
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::provider::{Lock, MachineRequest, MachineStatus, NodeAddress, Provider};
use crate::ui::Reporter;
use crate::work;
use async_trait::async_trait;
use ipnet::Ipv4Net;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;
use tokio::time::Instant;

/// Ports below those that the kernel gives to connections outwards.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORT_ATTEMPTS: usize = 64;

/// What helps where a root disk is too small for its image.
pub(super) const ROOTFS_SIZE: &str = "give it more with --control-plane-machine-rootfs-size and \
     --worker-machine-rootfs-size";
/// How long a guest that is stopped may take to power itself off: its pods end first.
const POWER_OFF: Duration = Duration::from_secs(120);

/// How long a supervisor may take to write an end down.
const SETTLE: Duration = Duration::from_secs(2);

/// Machines on this host.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    paths: Paths,
}

impl Local {
    pub(crate) fn new(paths: &Paths) -> Self {
        Self {
            paths: paths.clone(),
        }
    }

    fn dir(&self, name: &ClusterName) -> ClusterDir {
        ClusterDir::of(&self.paths, name)
    }

    /// A range for nodes that clashes neither with `others` nor with what this host routes.
    pub(crate) fn free_node_cidr(&self, others: &[Ipv4Net]) -> Result<Ipv4Net> {
        let routes = preflight::host_routes()?;
        let clash = |range: Ipv4Net| {
            others
                .iter()
                .chain(&routes)
                .any(|o| address::overlap(*o, range))
        };
        let candidates =
            (0..=255).filter_map(|n| Ipv4Net::new(Ipv4Addr::new(10, 64, n, 0), 24).ok());
        candidates.into_iter().find(|c| !clash(*c)).ok_or_else(|| {
            Failure::host("this host's routes leave no range for the nodes")
                .hint("name one with --node-cidr")
        })
    }

    /// Base disk, clone, seed; its description last, which makes it a machine.
    async fn make(&self, record: &Record, request: &MachineRequest) -> Result<()> {
        let dir = self.dir(&record.spec.name).machine(&request.node.name);
        if dir.load()?.is_some() {
            return Ok(());
        }
        let (vmm, range) = local(record)?;
        let spec = record.spec.machine(request.node.role).clone();
        let address = address_of(&request.node)?;
        let nameservers = seed::nameservers(
            &fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            find_pasta().is_some(),
        );
        let seed = seed::seed(request, range, &nameservers);
        let (paths, node) = (self.paths.clone(), request.node.clone());
        work::blocking(None, move |task| {
            dir.create()?;
            let kernel = image::find(&paths, &spec.kernel_image)?.kernel(&paths, task)?;
            let base = image::root(&paths, &spec, ROOTFS_SIZE, task)?;
            let format = disk::clone(&base, dir.path())?;
            seed.write(&dir.seed()).host("writing the seed")?;
            dir.save(&Machine {
                version: VERSION,
                name: node.name,
                role: node.role,
                vmm,
                cpus: spec.cpu_cores,
                memory: spec.memory.bytes(),
                address,
                mac: node.mac,
                kernel,
                disk: Disk {
                    file: disk::file_name(format).into(),
                    format,
                },
                sealed: false,
            })
        })
        .await
        .map_err(|failure| failure.while_doing(format!("making machine {}", request.node.name)))
    }
}

#[async_trait]
impl Provider for Local {
    fn place(&self) -> String {
        "on this machine".into()
    }

    fn notes(&self, record: &Record) -> Vec<String> {
        let mut notes = vec![];
        if find_pasta().is_none() {
            notes.push(
                "note: pasta is not installed, so the nodes reach nothing outside this cluster \
                 (package passt)"
                    .into(),
            );
        }
        if let ProviderSpec::Local { vmm, .. } = record.spec.provider
            && vmm == VmmKind::Qemu
            && kvm::accelerator() == vmm::Accelerator::Tcg
        {
            notes.push(
                "note: without a KVM that boots stock kernels QEMU emulates the processor: \
                 everything takes minutes"
                    .into(),
            );
        }
        notes
    }

    async fn exists(&self, name: &ClusterName) -> Result<bool> {
        Ok(self.dir(name).path().exists())
    }

    async fn preflight(&self, record: &Record) -> Result<()> {
        preflight::check(&self.paths, record).await
    }

    async fn lock(&self, name: &ClusterName) -> Result<Box<dyn Lock>> {
        Ok(Box::new(ClusterLock::acquire(&self.dir(name))?))
    }

    async fn load(&self, name: &ClusterName) -> Result<Option<Record>> {
        self.dir(name).load()
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let dir = self.dir(&record.spec.name);
        dir.create()?;
        state::write_json(&dir.record(), record)
    }

    async fn forget(&self, name: &ClusterName) -> Result<()> {
        // The lock takes itself and the directory away when it is let go.
        let dir = self.dir(name);
        dir.clear(&[dir.lock()])
    }

    async fn names(&self) -> Result<Vec<ClusterName>> {
        state::clusters(&self.paths)
    }

    async fn reserve_endpoint(&self, record: &Record) -> Result<Endpoint> {
        let (_, range) = local(record)?;
        let gateway = gateway(range);
        let mut taken = vec![];
        for name in state::clusters(&self.paths)? {
            // Another cluster's damage is not this one's concern.
            let endpoint = self
                .dir(&name)
                .load()
                .ok()
                .flatten()
                .and_then(|r| r.endpoint);
            taken.extend(endpoint.map(|e| e.outside));
        }
        for _ in 0..PORT_ATTEMPTS {
            let outside = format!("127.0.0.1:{}", rand::random_range(PORTS));
            if !taken.contains(&outside) && TcpListener::bind(&outside).is_ok() {
                return Ok(Endpoint {
                    inside: format!("{gateway}:{API_PORT}"),
                    outside,
                    cert_sans: vec![gateway.to_string(), "127.0.0.1".into(), "localhost".into()],
                });
            }
        }
        Err(Failure::host(format!(
            "no free port on 127.0.0.1 among {PORT_ATTEMPTS} tried from {} to {}",
            PORTS.start, PORTS.end
        )))
    }

    fn reserve_address(&self, record: &Record, _: Role) -> Result<NodeAddress> {
        let (_, range) = local(record)?;
        let address = address::allocate(range, record.nodes.iter().filter_map(|n| n.address))?;
        Ok(NodeAddress {
            address: Some(address),
            mac: address::mac_for(address),
        })
    }

    async fn prepare(&self, record: &Record, reporter: &dyn Reporter) -> Result<()> {
        let mut specs: Vec<MachineSpec> = vec![];
        for role in [Role::ControlPlane, Role::Worker] {
            if record.staying(role).next().is_some() {
                specs.push(record.spec.machine(role).clone());
            }
        }
        for spec in specs {
            let paths = self.paths.clone();
            work::blocking(Some(reporter), move |task| {
                image::find(&paths, &spec.kernel_image)?.kernel(&paths, task)?;
                image::root(&paths, &spec, ROOTFS_SIZE, task).map(drop)
            })
            .await?;
        }
        Ok(())
    }

    async fn start_machines(&self, record: &Record, machines: &[MachineRequest]) -> Result<()> {
        let dir = self.dir(&record.spec.name);
        let made = machines.iter().map(|request| self.make(record, request));
        futures::future::try_join_all(made).await?;
        supervisor::ensure(&dir).await?;
        let names = machines.iter().map(|m| m.node.name.clone()).collect();
        supervisor::start(&dir, names).await.map(drop)
    }

    async fn machines(&self, name: &ClusterName) -> Result<Vec<MachineStatus>> {
        let dir = self.dir(name);
        let mut machines = vec![];
        for machine in dir.machines()? {
            if machine.load()?.is_some() {
                machines.push(machine);
            }
        }
        let mut lives = false;
        for machine in &machines {
            lives |= machine.living()?.is_some();
        }
        // Machines outlive their supervisor; whoever looks at them gives them a new one. That it
        // can't be had changes nothing about the machines.
        if lives
            && supervisor::answering(&dir).await.is_none()
            && let Err(failure) = supervisor::ensure(&dir).await
        {
            tracing::warn!(%failure, "cluster {name} has no supervisor");
        }
        settled(&dir, &machines).await;
        machines.iter().map(MachineDir::status).collect()
    }

    async fn stop_machines(&self, record: &Record, reporter: &dyn Reporter) -> Result<()> {
        let dir = self.dir(&record.spec.name);
        let machines = dir.machines()?;
        let mut lives = false;
        for machine in &machines {
            lives |= machine.living()?.is_some();
        }
        if lives {
            // Machines outlive their supervisor, but nobody else can press their power buttons.
            supervisor::ensure(&dir).await?;
            reporter.detail("the machines are powering off");
            let names = machines.iter().map(|m| m.name.clone()).collect();
            supervisor::power_off(&dir, names, POWER_OFF).await?;
        }
        supervisor::stop(&dir).await
    }

    async fn resume_machines(&self, record: &Record) -> Result<()> {
        let dir = self.dir(&record.spec.name);
        let mut names = vec![];
        for node in record.in_state(NodeState::Ready) {
            if dir.machine(&node.name).load()?.is_none() {
                return Err(Failure::host(format!(
                    "the disk of machine {} is gone",
                    node.name
                )));
            }
            names.push(node.name.clone());
        }
        supervisor::ensure(&dir).await?;
        supervisor::start(&dir, names).await.map(drop)
    }

    async fn remove_machines(&self, record: &Record, nodes: &[NodeName]) -> Result<()> {
        let dir = self.dir(&record.spec.name);
        let asked = supervisor::remove(&dir, nodes.to_vec()).await?;
        let machines: Vec<MachineDir> = nodes.iter().map(|n| dir.machine(n)).collect();
        work::blocking(None, move |_| {
            for machine in &machines {
                // Nobody was there to be asked: then by force.
                if asked.is_none()
                    && let Some(process) = machine.living()?
                {
                    process.end()?;
                }
                machine.remove()?;
            }
            Ok(())
        })
        .await
    }

    async fn seal(&self, record: &Record, nodes: &[NodeName]) -> Result<()> {
        let dir = self.dir(&record.spec.name);
        let (_, range) = local(record)?;
        let nameservers = seed::nameservers(
            &fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            find_pasta().is_some(),
        );
        for name in nodes {
            let machine = dir.machine(name);
            let Some(description) = machine.load()?.filter(|m| !m.sealed) else {
                continue;
            };
            let config =
                seed::network_config(&description.mac, description.address, range, &nameservers);
            seed::overwrite(&machine.seed(), &seed::sealed(name.as_str(), Some(config)))?;
            machine.save(&Machine {
                sealed: true,
                ..description
            })?;
        }
        Ok(())
    }

    async fn teardown(&self, name: &ClusterName, reporter: &dyn Reporter) -> Result<()> {
        let dir = self.dir(name);
        if !dir.path().exists() {
            return Ok(());
        }
        reporter.detail("stopping the machines");
        supervisor::stop(&dir).await?;
        work::blocking(None, move |_| {
            for machine in dir.machines()? {
                // What can't be read names nobody; the mark finds its process below.
                if let Ok(Some(process)) = machine.living() {
                    process.end()?;
                }
            }
            if network::leftover(dir.path()).is_err() {
                state::remove(&dir.network())?;
            }
            for stray in marked(dir.path()) {
                stray.end()?;
            }
            dir.clear(&[dir.record(), dir.lock()])
        })
        .await
    }
}

/// A VMM that ended a moment ago is known as ended once its supervisor wrote down how: gives it the
/// time, if there is one.
async fn settled(dir: &ClusterDir, machines: &[MachineDir]) {
    let deadline = Instant::now() + SETTLE;
    let unsettled = || machines.iter().any(|m| m.ended_unseen().unwrap_or(false));
    while unsettled() && Instant::now() < deadline && supervisor::answering(dir).await.is_some() {
        tokio::time::sleep(SETTLE / 100).await;
    }
}

/// What the record says of this machine.
pub(super) fn local(record: &Record) -> Result<(VmmKind, Ipv4Net)> {
    match record.spec.provider {
        ProviderSpec::Local { vmm, node_cidr } => Ok((vmm, node_cidr)),
        ProviderSpec::Virtink(_) => Err(Failure::internal(format!(
            "cluster {} is not on this machine",
            record.spec.name
        ))),
    }
}

fn address_of(node: &NodeRecord) -> Result<Ipv4Addr> {
    node.address
        .ok_or_else(|| Failure::internal(format!("node {} has no address", node.name)))
}

impl From<knest_rootfs::DiskFormat> for DiskFormat {
    fn from(format: knest_rootfs::DiskFormat) -> Self {
        match format {
            knest_rootfs::DiskFormat::Raw => Self::Raw,
            knest_rootfs::DiskFormat::Qcow2 => Self::Qcow2,
        }
    }
}
