//! What would keep this host from holding a cluster's machines, found before anything is made.

use super::life::Life;
use super::network::find_pasta;
use super::provider::{ROOTFS_SIZE, local};
use super::state::ClusterDir;
use super::{host, image, kvm, vmm};
use crate::cluster::address;
use crate::cluster::record::{NodeState, Record};
use crate::cluster::root::Root;
use crate::cluster::spec::{MachineSpec, Role, VmmKind};
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::work;
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::path::Path;

/// A machine's disk begins as a clone; what it then writes needs at least this.
const DISK_EACH: u64 = 1 << 30;
/// A base disk takes about this many times its image's packed size.
const UNPACKED: u64 = 4;

/// Checks all of it.
pub(super) async fn check(paths: &Paths, record: &Record) -> Result<()> {
    let (vmm, node_cidr) = local(record)?;
    ranges(record, node_cidr)?;
    programs(paths, vmm)?;
    host::namespaces().await?;
    let wanted = wanted(paths, record)?;
    memory(&wanted)?;
    let (paths, version) = (paths.clone(), record.spec.kubernetes_version);
    work::blocking(None, move |task| {
        if vmm == VmmKind::CloudHypervisor
            && let Some(refusal) = kvm::refusal(&kvm::look())
        {
            return Err(refusal.hint("without KVM, if slowly: --vmm qemu"));
        }
        let kernels: BTreeSet<_> = wanted.iter().map(|s| &s.kernel_image).collect();
        for kernel in kernels {
            image::find(&paths, kernel)?.kernel(&paths, task)?;
        }
        let mut packed = 0;
        let roots: BTreeSet<_> = wanted
            .iter()
            .map(|s| (&s.rootfs_image, s.rootfs_size.bytes()))
            .collect();
        for (root, size) in roots {
            match Root::parse(root)? {
                Root::Image(reference) => {
                    let root = image::find(&paths, &reference)?;
                    root.check_version(version)?;
                    root.check_node(&paths, task)?;
                    packed += root.packed();
                }
                Root::File { path, .. } => image::check_file(&path, size, ROOTFS_SIZE)?,
            }
        }
        let machines: u64 = wanted
            .iter()
            .map(|s| s.rootfs_size.bytes().min(DISK_EACH))
            .sum();
        disk(&paths.state, machines)?;
        disk(&paths.cache, packed.saturating_mul(UNPACKED))
    })
    .await
}

/// The sizes of the machines that are still to be started.
fn wanted(paths: &Paths, record: &Record) -> Result<Vec<MachineSpec>> {
    let dir = ClusterDir::of(paths, &record.spec.name);
    let mut wanted = vec![];
    for role in [Role::ControlPlane, Role::Worker] {
        for node in record
            .staying(role)
            .filter(|n| n.state == NodeState::Wanted)
        {
            if dir.machine(&node.name).living()?.is_none() {
                wanted.push(record.spec.machine(role).clone());
            }
        }
    }
    Ok(wanted)
}

/// What this host routes, the default route apart.
pub(super) fn host_routes() -> Result<Vec<Ipv4Net>> {
    let text = fs_err::read_to_string("/proc/net/route").host("reading this host's routes")?;
    Ok(address::parse_proc_net_route(&text))
}

/// pasta brings the host's own addresses into the namespace, so none may be the cluster's.
fn ranges(record: &Record, node_cidr: Ipv4Net) -> Result<()> {
    let network = &record.spec.network;
    address::check_routes(
        &[
            ("node range", node_cidr),
            ("pod range", network.pod_cidr),
            ("service range", network.service_cidr),
        ],
        &host_routes()?,
    )
}

fn programs(paths: &Paths, vmm: VmmKind) -> Result<()> {
    vmm::find(vmm, paths)?;
    host::need_nft()?;
    // Without pasta there is no way out, which is a note and not an error.
    drop(find_pasta());
    Ok(())
}

fn memory(wanted: &[MachineSpec]) -> Result<()> {
    let asked: u64 = wanted.iter().map(|s| s.memory.bytes()).sum();
    let available = host::memory_available()?;
    if asked <= available {
        return Ok(());
    }
    Err(Failure::host(format!(
        "the machines want {} MiB of memory, and {} MiB are available",
        asked >> 20,
        available >> 20
    ))
    .hint(
        "ask for less with --control-plane-machine-memory-size and --worker-machine-memory-size, \
         or for fewer machines",
    ))
}

fn disk(place: &Path, asked: u64) -> Result<()> {
    let available = host::disk_available(place)?;
    if asked <= available {
        return Ok(());
    }
    Err(Failure::host(format!(
        "{} has {} MiB left, and the machines' disks want {} MiB",
        place.display(),
        available >> 20,
        asked >> 20
    ))
    .hint(
        "free some space, or put knest's directories elsewhere (XDG_STATE_HOME, KNEST_CACHE_DIR)",
    ))
}
