//! knest-rootfs: from an OCI image to a bootable ext4 disk, without mkfs, mount or root.
//!
//! ```text
//! BlobSource ─▶ Image ─▶ layer, layer, layer ─▶ merge ─▶ ext4 plan ─▶ ext4 metadata ─▶ Disk
//! (layout,      (index,   (inflate, hash, parse)  (names)   (pure)      (last)
//!  archive,      manifest,      │
//!  memory)       config)        └─ bodies ─▶ straight to their place on the disk (first)
//! ```
//! A disk depends on the image and the size alone: the same bytes on any machine.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use knest_rootfs::{
//!     BuildOptions, Cache, CloneKind, Image, Platform, Seed, Store, Wishes, clone_disk, source,
//! };
//!
//! # fn main() -> Result<(), knest_rootfs::Error> {
//! // Into the store once …
//! let store = Store::open("images")?;
//! let archive = source::open("oci-archive:node.tar")?;
//! let (name, platform) = ("knest.dev/node:v1.37.2", Platform::host());
//! store.load(&*archive, name, &platform, Wishes::default())?;
//! // … a disk once per size …
//! let source = store.resolve(name)?;
//! let image = Image::resolve(&source, &platform)?;
//! let disk = Cache::open("disks")?.disk(&source, &image, &BuildOptions::new(8 << 30))?;
//! // … and for every machine a clone and a seed.
//! let kind = clone_disk(&disk.path, Path::new("node-1.disk"), &CloneKind::ALL)?;
//! println!("{kind}: attach it as {}", kind.format());
//! let seed = Seed { user_data: b"#!/bin/sh\n".to_vec(), ..Seed::default() };
//! seed.write(Path::new("node-1.seed"))?;
//! # Ok(())
//! # }
//! ```

mod cache;
mod digest;
mod directory;
mod document;
mod error;
mod ext4;
mod image;
mod incoming;
mod inspect;
mod intake;
mod layer;
mod lock;
mod merge;
mod overlay;
mod parallel;
mod pipeline;
mod qcow2;
mod ready;
mod seed;
pub mod source;
mod store;
mod walk;
mod watch;

pub use cache::{Cache, Cached};
pub use digest::Digest;
pub use document::{Config, Descriptor, DescriptorPlatform, REF_NAME, RunConfig};
pub use error::{Error, Problem, Result};
pub use image::{Compression, DOCUMENT_LIMIT, Image, Layer, Platform, ROOT_LABEL};
pub use inspect::{Contents, read_file};
pub use intake::Intake;
pub use overlay::{CloneKind, DiskFormat, clone_disk};
pub use pipeline::{BuildOptions, Disk, build, build_from_directory};
pub use qcow2::to_qcow2;
pub use ready::check_ready;
pub use seed::{LABEL, Seed};
pub use source::BlobSource;
pub use store::{Named, Pruned, Store};
pub use watch::{Progress, Wishes};
