//! knest-rootfs: from an OCI image to a bootable ext4 disk, without mkfs, mount or root.
//!
//! ```text
//! BlobSource ─▶ Image ─▶ layer, layer, layer ─▶ merge ─▶ ext4 plan ─▶ ext4 metadata ─▶ Disk
//! (layout,      (index,   (inflate, hash, parse)  (names)   (pure)      (last)
//!  archive,      manifest,      │
//!  memory)       config)        └─ bodies ─▶ straight to their place on the disk (first)
//! ```

mod cache;
mod digest;
mod error;
mod ext4;
mod image;
mod inspect;
mod layer;
mod lock;
mod merge;
mod overlay;
mod pipeline;
mod seed;
pub mod source;
mod store;
mod watch;

pub use cache::{Cache, Cached};
pub use digest::Digest;
pub use error::{Error, Problem, Result};
pub use image::{
    Compression, Config, DOCUMENT_LIMIT, Descriptor, DescriptorPlatform, Image, Layer, Platform,
    REF_NAME, RunConfig,
};
pub use inspect::{Contents, read_file};
pub use overlay::{CloneKind, DiskFormat, clone_disk};
pub use pipeline::{BuildOptions, Disk, build};
pub use seed::{LABEL, Seed};
pub use source::BlobSource;
pub use store::{Named, Store};
pub use watch::{Progress, Wishes};
