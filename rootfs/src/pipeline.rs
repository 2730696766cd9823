//! From an image to its disk: the whole way in one function.
//!
//! ```text
//! estimate ─▶ share the disk ─▶ stage the layers ─▶ merge ─▶ plan ─┬─▶ write ─▶ sync, rename
//!                  ▲             (one a thread)                    │
//!                  └── exact sizes, only what survived ◀── no room ┘   (once, else TooSmall)
//! ```
//! A block's place depends on the image and the disk's size alone. Where the first attempt finds
//! no room, because a layer was larger than it seemed or hidden files took it, the second knows
//! every size and places only the files of the finished image.

use std::collections::HashSet;
use std::fs::File;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FlockOperation, flock};

use crate::digest::Digest;
use crate::error::{Error, Problem, Result};
use crate::ext4::{self, BLOCK, Geometry, Identity, Plan, Stage, size_that_fits};
use crate::image::Image;
use crate::layer::{self, Entry, Limits};
use crate::merge::{Layers, Node, NodeId, Origin, Tree};
use crate::source::BlobSource;
use crate::watch::{Watch, Wishes};

/// How the names of unfinished disks begin. Their builders hold them locked.
pub(crate) const TEMPORARY: &str = ".new-disk-";

/// How to build a disk.
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions<'a> {
    /// The disk's size in bytes; cut to whole blocks of 4 KiB.
    pub size: u64,
    /// Layers read at once; `None` is one per processor. It does not change the result.
    pub threads: Option<NonZero<usize>>,
    /// Whether to verify the unpacked layers too, which costs about an eighth of the time.
    pub verify_diff_ids: bool,
    /// Paths without which the image is of no use; they are looked for as soon as the names are
    /// known, before anything but file contents is written.
    pub required: &'a [&'a str],
    /// How to follow and stop the work.
    pub wishes: Wishes<'a>,
}

impl BuildOptions<'_> {
    /// A verified disk of so many bytes.
    #[must_use]
    pub fn new(size: u64) -> BuildOptions<'static> {
        BuildOptions {
            size,
            threads: None,
            verify_diff_ids: true,
            required: &[],
            wishes: Wishes::default(),
        }
    }
}

/// A finished disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The raw file, of mode 0444.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The image in it.
    pub image: Digest,
}

/// Builds the image's ext4 disk at `destination`, which appears complete and synced or not at all.
/// The same image and size give the same bytes, anywhere.
///
/// # Errors
/// [`Error::TooSmall`] with a size that would do; [`Error::NoSuchFile`] for a required path; [`Error::Layer`], [`Error::DigestMismatch`] and
/// others for a bad image; [`Error::File`]; [`Error::Cancelled`].
pub fn build(
    source: &dyn BlobSource,
    image: &Image,
    destination: &Path,
    options: &BuildOptions<'_>,
) -> Result<Disk> {
    let geometry = Geometry::new(options.size)?;
    let identity = identity(image.digest());
    let watch = Watch::new(
        options.wishes,
        image.layers.iter().map(|layer| layer.blob.size),
    );
    let disk = NewDisk::create(destination)?;
    let job = Job {
        source,
        image,
        options,
        watch: &watch,
        disk: &disk,
        geometry: &geometry,
    };
    let wanted: Vec<_> = image
        .layers
        .iter()
        .map(|layer| blocks(layer::estimate(source, layer)))
        .collect();
    let mut staged = job.stage(&wanted, None)?;
    let mut merged = Merged::of(staged.layers)?;
    merged.require(options.required)?;
    let mut plan = merged.plan(&geometry, &identity, staged.complete)?;
    if plan.is_none() {
        let survivors = merged.survivors(image.layers.len());
        staged = job.stage(&survivors.blocks, Some(&survivors))?;
        merged = Merged::of(staged.layers)?;
        plan = merged.plan(&geometry, &identity, staged.complete)?;
    }
    let Some(plan) = plan else {
        return Err(merged.too_small(options.size, &identity));
    };
    ext4::write(
        &disk.file,
        &plan,
        &merged.tree,
        &identity,
        &staged.filled,
        &watch,
    )
    .map_err(|problem| watch.or_cancelled(disk.failed(problem)))?;
    disk.finish(geometry.size, watch.cancelled())?;
    Ok(Disk {
        path: destination.to_owned(),
        size: geometry.size,
        image: image.digest(),
    })
}

/// A tar's size as blocks of a disk, with room for the tails of its files.
fn blocks(tar: u64) -> u64 {
    let blocks = tar.div_ceil(BLOCK);
    blocks + blocks / 32 + 64
}

/// UUID (of version 8: custom) and hash seed are the image's, so its disks are reproducible.
fn identity(image: Digest) -> Identity {
    let derive = |what: &str| *Digest::of(format!("{what} of {image}").as_bytes()).as_bytes();
    let (uuid_source, seed_source) = (derive("uuid"), derive("hash seed"));
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&uuid_source[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let mut hash_seed = [0; 4];
    for (word, bytes) in hash_seed.iter_mut().zip(seed_source.chunks_exact(4)) {
        *word = bytes
            .iter()
            .fold(0, |word, &byte| word << 8 | u32::from(byte));
    }
    Identity { uuid, hash_seed }
}

/// The file that becomes the disk; removed unless it is finished.
struct NewDisk {
    file: File,
    temporary: tempfile::TempPath,
    destination: PathBuf,
}

impl NewDisk {
    fn create(destination: &Path) -> Result<NewDisk> {
        let directory = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(directory)
            .map_err(Error::file("make a file in", directory))?;
        let (file, temporary) = file.into_parts();
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| Error::file("lock", &*temporary)(errno.into()))?;
        Ok(NewDisk {
            file,
            temporary,
            destination: destination.to_owned(),
        })
    }

    fn failed(&self, problem: Problem) -> Error {
        match problem {
            Problem::Damaged(source) => Error::File {
                doing: "write",
                path: self.destination.clone(),
                source,
            },
            source => Error::Inode {
                path: String::new(),
                source,
            },
        }
    }

    fn finish(self, size: u64, cancelled: bool) -> Result<()> {
        if cancelled {
            return Err(Error::Cancelled);
        }
        let write = || {
            self.file.set_len(size)?;
            self.file
                .set_permissions(std::fs::Permissions::from_mode(0o444))?;
            self.file.sync_all()
        };
        write().map_err(Error::file("write", &self.destination))?;
        self.temporary
            .persist(&self.destination)
            .map_err(|error| Error::file("write", &self.destination)(error.error))
    }
}

/// The files of the finished image, by layer.
struct Survivors {
    blocks: Vec<u64>,
    entries: Vec<HashSet<usize>>,
}

struct Merged {
    tree: Tree,
    lost_found: NodeId,
}

impl Merged {
    fn of(layers: Layers) -> Result<Merged> {
        let mut tree = layers.merge()?;
        let lost_found = tree
            .ensure_directory(b"lost+found", 0o700)
            .map_err(|source| Error::Inode {
                path: "/lost+found".into(),
                source,
            })?;
        Ok(Merged { tree, lost_found })
    }

    fn require(&self, paths: &[&str]) -> Result<()> {
        let missing = paths
            .iter()
            .find(|path| self.tree.find(path.as_bytes()).is_none());
        missing.map_or(Ok(()), |path| Err(Error::NoSuchFile((*path).to_owned())))
    }

    /// `None` when there is no room, or when not all bodies have their places.
    fn plan(
        &self,
        geometry: &Geometry,
        identity: &Identity,
        complete: bool,
    ) -> Result<Option<Plan>> {
        if !complete {
            return Ok(None);
        }
        Plan::new(geometry, &self.tree, self.lost_found, &identity.hash_seed)
    }

    fn survivors(&self, layers: usize) -> Survivors {
        let mut survivors = Survivors {
            blocks: vec![0; layers],
            entries: vec![HashSet::new(); layers],
        };
        for inode in self.tree.live() {
            if let Node::File {
                origin: Some(Origin { layer, entry }),
                body,
            } = &inode.node
            {
                survivors.blocks[*layer] += body.blocks();
                survivors.entries[*layer].insert(*entry);
            }
        }
        survivors
    }

    fn too_small(&self, size: u64, identity: &Identity) -> Error {
        let least = size + (1 << 20);
        match size_that_fits(&self.tree, self.lost_found, &identity.hash_seed, least) {
            Ok(needed) => Error::TooSmall { size, needed },
            Err(error) => error,
        }
    }
}

struct Staged {
    layers: Layers,
    /// Whether every body has its place.
    complete: bool,
    filled: Vec<Range<u32>>,
}

/// One layer's outcome; the ranges are missing when its region was too small.
type LayerResult = Result<(Vec<Entry>, Option<Vec<Range<u32>>>)>;

struct Job<'a> {
    source: &'a dyn BlobSource,
    image: &'a Image,
    options: &'a BuildOptions<'a>,
    watch: &'a Watch<'a>,
    disk: &'a NewDisk,
    geometry: &'a Geometry,
}

impl Job<'_> {
    /// Reads all layers, the largest first, and writes their bodies.
    fn stage(&self, wanted: &[u64], survivors: Option<&Survivors>) -> Result<Staged> {
        let file = &self.disk.file;
        if survivors.is_some() {
            self.watch.again();
            file.set_len(0)
                .map_err(Error::file("write", &self.disk.destination))?;
        }
        file.set_len(self.geometry.size)
            .map_err(Error::file("write", &self.disk.destination))?;
        let regions = self.geometry.share(wanted);
        let results: Vec<_> = regions.iter().map(|_| Mutex::new(None)).collect();
        let mut queue: Vec<usize> = (0..regions.len()).collect();
        queue.sort_by_key(|&index| std::cmp::Reverse(self.image.layers[index].blob.size));
        let (next, limits) = (AtomicUsize::new(0), Limits::default());
        let work = || {
            while let Some(&index) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                let only = survivors.map(|survivors| &survivors.entries[index]);
                let result = self.layer(index, regions[index].clone(), only, &limits);
                if result.is_err() {
                    self.watch.abort();
                }
                if let Ok(mut slot) = results[index].lock() {
                    *slot = Some(result);
                }
            }
        };
        let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = self.options.threads.map_or_else(processors, NonZero::get);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(regions.len()) {
                scope.spawn(work);
            }
            work();
        });
        self.collect(
            results
                .into_iter()
                .map(|slot| slot.into_inner().ok().flatten()),
        )
    }

    fn layer(
        &self,
        index: usize,
        region: Vec<Range<u32>>,
        only: Option<&HashSet<usize>>,
        limits: &Limits,
    ) -> LayerResult {
        let layer = &self.image.layers[index];
        let keep = |entry: usize| only.is_none_or(|only| only.contains(&entry));
        let mut stage = Stage::new(&self.disk.file, region, Some(&keep));
        let verify = self.options.verify_diff_ids && only.is_none();
        let entries = layer::read(self.source, layer, verify, self.watch, limits, &mut stage)?;
        let filled = stage
            .close()
            .map_err(Error::file("write", &self.disk.destination))?;
        Ok((entries, filled))
    }

    /// The first real failure counts; the others stopped because of it.
    fn collect(&self, results: impl Iterator<Item = Option<LayerResult>>) -> Result<Staged> {
        let mut staged = Staged {
            layers: Layers::default(),
            complete: true,
            filled: Vec::new(),
        };
        let mut failure = None;
        for (result, layer) in results.zip(&self.image.layers) {
            match result.unwrap_or(Err(Error::Cancelled)) {
                Ok((entries, filled)) => {
                    staged.layers.push(layer.blob.digest, entries);
                    staged.complete &= filled.is_some();
                    staged.filled.extend(filled.into_iter().flatten());
                }
                Err(Error::Cancelled) => {
                    failure.get_or_insert(Error::Cancelled);
                }
                Err(error) => {
                    if !matches!(failure, Some(ref first) if !matches!(first, Error::Cancelled)) {
                        failure = Some(error);
                    }
                }
            }
        }
        failure.map_or(Ok(staged), Err)
    }
}
