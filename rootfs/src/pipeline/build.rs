//! The whole way in one function.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use super::disk::NewDisk;
use super::files::Files;
use super::layers::ImageLayers;
use super::merged::Merged;
use super::parts::{Parts, Stager, threads};
use crate::digest::Digest;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::ext4::{self, Geometry, Identity};
use crate::image::Image;
use crate::source::BlobSource;
use crate::watch::{Watch, Wishes};

/// How to build a disk.
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions<'a> {
    /// The disk's size in bytes; cut to whole blocks of 4 KiB.
    pub size: u64,
    /// Layers or files read at once; `None` is one per processor. It does not change the result.
    pub threads: Option<NonZero<usize>>,
    /// Whether to verify the unpacked layers too, which costs about an eighth of the time.
    pub verify_diff_ids: bool,
    /// Paths without which the image is of no use; they are looked for as soon as the names are
    /// known, before anything but file contents is written.
    pub required: &'a [&'a str],
    /// Permissions of the finished file; a base that clones read from is never written again.
    pub mode: u32,
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
            mode: 0o444,
            wishes: Wishes::default(),
        }
    }
}

/// A finished disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The raw file or block device.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// What is in it: the image, or the digest of a directory's names and attributes.
    pub image: Digest,
}

/// Builds the image's ext4 disk at `destination`, which appears complete and synced or not at all: of
/// the whole image, or of the directory that it says is its root ([`Image::root`]).
/// The same image and size give the same bytes, anywhere. A block device is written in place, and
/// holds no file system until it holds the whole one.
///
/// # Errors
/// [`Error::TooSmall`] with a size that would do; [`Error::NoSuchFile`] for a required path;
/// [`Error::NoRoot`]; [`Error::Layer`], [`Error::DigestMismatch`] and others for a bad image; [`Error::File`];
/// [`Error::Cancelled`].
pub fn build(
    source: &dyn BlobSource,
    image: &Image,
    destination: &Path,
    options: &BuildOptions<'_>,
) -> Result<Disk> {
    let sizes = image.layers.iter().map(|layer| layer.blob.size);
    let watch = Watch::new(options.wishes, sizes);
    let layers = ImageLayers {
        source,
        image,
        verify_diff_ids: options.verify_diff_ids,
        watch: &watch,
        limits: Default::default(),
    };
    assemble(
        &layers,
        (image.digest(), image.root()),
        destination,
        options,
        &watch,
    )
}

/// Builds an ext4 disk of everything below `directory`, as [`build`] does of an image: files, hard
/// links, symlinks, devices and fifos with owners, modes, times and attributes, but no sockets and
/// no SELinux labels, which belong to this machine. Nothing may change there meanwhile. Equal
/// directories give equal disks.
///
/// # Errors
/// As [`build`]; [`Error::File`] for what cannot be read; [`Error::Inode`] for what ext4 cannot
/// hold.
pub fn build_from_directory(
    directory: &Path,
    destination: &Path,
    options: &BuildOptions<'_>,
) -> Result<Disk> {
    let threads = threads(options.threads);
    let directory = Directory::walk(directory, threads, options.wishes.cancel)?;
    let watch = Watch::new(options.wishes, std::iter::once(directory.bytes()));
    let (files, digest) = (Files::new(&directory, &watch), directory.digest());
    assemble(&files, (digest, Some("/")), destination, options, &watch)
}

fn assemble(
    parts: &dyn Parts,
    (digest, root): (Digest, Option<&str>),
    destination: &Path,
    options: &BuildOptions<'_>,
    watch: &Watch<'_>,
) -> Result<Disk> {
    let geometry = Geometry::new(options.size)?;
    let identity = identity(digest);
    let disk = NewDisk::create(destination)?;
    let stager = Stager {
        parts,
        disk: &disk,
        geometry: &geometry,
        threads: threads(options.threads),
        watch,
    };
    let wanted: Vec<_> = (0..parts.count()).map(|part| parts.wanted(part)).collect();
    let mut staged = stager.stage(&wanted, None)?;
    let mut merged = Merged::of(staged.layers, root)?;
    merged.require(options.required)?;
    let mut plan = merged.plan(&geometry, &identity, staged.complete)?;
    if plan.is_none() {
        let survivors = merged.survivors(parts.count());
        staged = stager.stage(&survivors.blocks, Some(&survivors))?;
        merged = Merged::of(staged.layers, root)?;
        plan = merged.plan(&geometry, &identity, staged.complete)?;
    }
    let Some(plan) = plan else {
        return Err(merged.too_small(options.size, &identity));
    };
    let written = ext4::Written {
        filled: &staged.filled,
        blank: !disk.is_device(),
    };
    ext4::write(&disk.file, &plan, &merged.tree, &identity, written, watch).map_err(|failure| {
        watch.or_cancelled(match failure {
            ext4::Failure::Disk(error) => disk.error(error),
            ext4::Failure::Inode(id, source) => Error::Inode {
                path: merged.tree.path(id),
                source,
            },
        })
    })?;
    disk.finish(options.mode, watch.cancelled())?;
    Ok(Disk {
        path: destination.to_owned(),
        size: geometry.size,
        image: digest,
    })
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
