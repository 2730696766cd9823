//! Images as machines need them: a node's root, which must be able to become a node, and a kernel,
//! which must be one that VMMs boot directly. All functions block.

use super::state::remove;
use super::vmlinux;
use crate::cluster::references;
use crate::cluster::root::Root;
use crate::cluster::spec::MachineSpec;
use crate::cluster::version::Version;
use crate::failure::{Context, Failure, Result};
use crate::image::{missing, stored};
use crate::paths::Paths;
use crate::work::Task;
use knest_rootfs::source::Layout;
use knest_rootfs::{
    BuildOptions, Cache, Contents, Error, Image, Platform, Store, check_ready, read_file,
};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where an image of a kernel has it.
const KERNEL: &str = "vmlinux";
const KERNEL_MAX: u64 = 512 << 20;

/// What a node's root must have: how its first process, its container engine and its Kubernetes are
/// found.
const NODE_FILES: [&str; 4] = [
    "sbin/init",
    "usr/bin/kubelet",
    "usr/bin/kubeadm",
    "usr/bin/containerd",
];
/// Where else they may be.
const ELSEWHERE: [&str; 3] = ["usr/local/bin/", "usr/sbin/", "bin/"];
/// Where a node image says which Kubernetes is in it.
const VERSION_LABEL: &str = "dev.knest.kubernetes-version";

/// An image in the store, for this platform.
#[derive(Debug)]
pub(crate) struct Found {
    layout: Layout,
    pub(super) image: Image,
    reference: String,
}

/// The disk that a machine's root begins as, found in the cache or made; `more` says how to ask for more.
pub(super) fn root(paths: &Paths, spec: &MachineSpec, more: &str, task: &Task) -> Result<PathBuf> {
    let size = spec.rootfs_size.bytes();
    let (path, digest) = match Root::parse(&spec.rootfs_image)? {
        Root::Image(reference) => return find(paths, &reference)?.disk(paths, size, more, task),
        Root::File { path, digest } => (path, digest),
    };
    let made = Cache::open(paths.disks())
        .and_then(|cache| cache.ready(&path, digest, size, task.wishes()));
    made.map_err(|error| unfit(error, more))
}

/// Checks a file that is to be a disk as it is, without reading all of it.
pub(super) fn check_file(path: &Path, size: u64, more: &str) -> Result<()> {
    check_ready(path, size).map_err(|error| unfit(error, more))
}

/// Why a file can't be a disk.
fn unfit(error: Error, more: &str) -> Failure {
    let what = "taking over a disk";
    match &error {
        Error::NotReady { .. } => Failure::usage(what).because(error).hint(
            "it has to be a raw disk without partitions: knest image export makes one of an image",
        ),
        Error::TooSmall { .. } => Failure::usage(what).because(error).hint(more),
        Error::DigestMismatch { .. } => Failure::usage(what).because(error),
        _ => Failure::host(what).because(error),
    }
}

/// Looks an image up.
pub(crate) fn find(paths: &Paths, reference: &str) -> Result<Found> {
    let what = format!("image {reference}");
    let store = Store::open(paths.images()).host(&what)?;
    let Some(layout) = stored(&store, reference)? else {
        return Err(missing(&store, reference)
            .while_doing(&what)
            .hint(references::how_to_get(reference))
            .hint("or take it from elsewhere: knest image pull, knest image load"));
    };
    let image = Image::resolve(&layout, &Platform::host()).host(&what)?;
    Ok(Found {
        layout,
        image,
        reference: reference.into(),
    })
}

impl Found {
    /// Bytes of its packed layers.
    pub(super) fn packed(&self) -> u64 {
        self.image.layers.iter().map(|l| l.blob.size).sum()
    }

    /// Checks that it is of the cluster's Kubernetes version, where it says of which it is.
    pub(super) fn check_version(&self, wanted: Version) -> Result<()> {
        let labels = &self.image.config.config.labels;
        match labels.get(VERSION_LABEL) {
            Some(has) if *has != wanted.to_string() => Err(Failure::usage(format!(
                "image {} has Kubernetes {has}, and the cluster is to have {wanted}",
                self.reference
            ))
            .hint(format!("--kubernetes-version {has}"))
            .hint(format!(
                "or take an image of {wanted}: {}",
                references::how(wanted)
            ))),
            _ => Ok(()),
        }
    }

    /// Checks that it has what makes a node. An image that passed is not read again.
    pub(super) fn check_node(&self, paths: &Paths, task: &Task) -> Result<()> {
        let directory = paths.checked();
        let passed = directory.join(format!("{}.node", self.image.digest().hex()));
        if passed.exists() {
            return Ok(());
        }
        let contents = Contents::read(&self.layout, &self.image, task.wishes())
            .host(format!("reading image {}", self.reference))?;
        let missing: Vec<&str> = NODE_FILES
            .into_iter()
            .filter(|path| {
                let name = path.rsplit('/').next().unwrap_or(path);
                !contents.has(path)
                    && !ELSEWHERE
                        .iter()
                        .any(|place| contents.has(&format!("{place}{name}")))
            })
            .collect();
        if !missing.is_empty() {
            return Err(Failure::host(format!(
                "image {} can't be a node: it lacks {}",
                self.reference,
                missing.join(", ")
            ))
            .hint("a node image has systemd, containerd, kubelet and kubeadm"));
        }
        let what = "remembering a checked image";
        fs_err::create_dir_all(&directory).host(what)?;
        fs_err::write(passed, "").host(what)
    }

    /// The kernel in it, as a file in the cache.
    pub(crate) fn kernel(&self, paths: &Paths, task: &Task) -> Result<PathBuf> {
        let what = format!("taking the kernel out of image {}", self.reference);
        let directory = paths.kernels().join(self.image.digest().hex());
        let path = directory.join(KERNEL);
        if path.exists() {
            return Ok(path);
        }
        let bytes =
            read_file(&self.layout, &self.image, KERNEL, KERNEL_MAX, task.wishes()).host(&what)?;
        vmlinux::check(&bytes).map_err(|unfit| {
            let remedy = unfit.remedy();
            Failure::host(format!(
                "image {}: /{KERNEL} is no kernel that a VMM boots directly, but {unfit}",
                self.reference
            ))
            .hint(remedy)
        })?;
        fs_err::create_dir_all(&directory).host(&what)?;
        let temporary = directory.join(format!(".{KERNEL}.{}", std::process::id()));
        let written = fs_err::File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            })
            .and_then(|()| fs_err::rename(&temporary, &path));
        if written.is_err() {
            drop(remove(&temporary));
        }
        written.host(&what)?;
        Ok(path)
    }

    /// Its root disk of so many bytes, found in the cache or built; `more` says how to ask for more.
    pub(crate) fn disk(
        &self,
        paths: &Paths,
        size: u64,
        more: &str,
        task: &Task,
    ) -> Result<PathBuf> {
        let what = format!("making a disk of image {}", self.reference);
        let cache = Cache::open(paths.disks()).host(&what)?;
        let options = BuildOptions {
            wishes: task.wishes(),
            ..BuildOptions::new(size)
        };
        let disk = cache.disk(&self.layout, &self.image, &options);
        let disk = disk.map_err(|error| {
            let small = matches!(error, Error::TooSmall { .. });
            let failure = Failure::host(&what).because(error);
            if small { failure.hint(more) } else { failure }
        })?;
        Ok(disk.path)
    }
}
