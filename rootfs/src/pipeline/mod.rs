//! From an image, or a directory, to its disk.
//!
//! ```text
//! parts ─▶ share the disk ─▶ stage the parts ─▶ merge ─▶ plan ─┬─▶ write ─▶ sync, rename
//!               ▲            (several at once)                 │
//!               └── exact sizes, only what survived ◀─ no room ┘   (once, else TooSmall)
//! ```
//! The parts are an image's layers [`layers`], or runs of a directory's files [`files`]. A
//! block's place depends on them and the disk's size alone, not on which thread is faster. Where
//! the first attempt finds no room, because a layer was larger than it seemed or hidden files took
//! it, the second knows every size and places only the files of the finished disk.

mod build;
mod disk;
mod files;
mod layers;
mod merged;
mod parts;

pub use build::{BuildOptions, Disk, build, build_from_directory};
pub(crate) use disk::{NewDisk, TEMPORARY};
