//! An ext4 file system, written data first and metadata last.
//!
//! ```text
//! │ superblock, descriptors, room, journal │ layer 0 │ layer 1 │ … │ inode tables, bitmaps, dirs │
//!   fixed by the disk's size [geometry]      bodies, while the      placed once the merged tree
//!                                            layers are read        is known [plan], then
//!                                            [stage]                written [write]
//! ```
//! Features as mke2fs's defaults, without `64bit` (disks stay below 16 TiB), `resize_inode` and
//! `orphan_file`: `has_journal ext_attr dir_index filetype extents flex_bg sparse_super large_file
//! huge_file dir_nlink extra_isize metadata_csum`. Nothing written depends on the clock, on chance
//! or on the order in which threads ran.

mod bitmap;
mod blank;
mod directory;
mod extent;
mod geometry;
mod hash;
mod inode;
mod plan;
mod stage;
mod superblock;
mod types;
mod write;
mod xattr;

pub(crate) use geometry::Geometry;
pub(crate) use plan::{Plan, size_that_fits};
pub(crate) use stage::Stage;
pub(crate) use types::{BLOCK, BLOCK_SIZE};
pub(crate) use write::{Failure, Identity, Written, write};
