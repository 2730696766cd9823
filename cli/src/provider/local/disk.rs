//! A machine's root disk: a clone of a base disk in the cache.

use super::machine::DiskFormat;
use super::state::remove;
use crate::failure::{Context, Result};
use knest_rootfs::{Cache, CloneKind};
use std::path::Path;

const FORMATS: [DiskFormat; 2] = [DiskFormat::Raw, DiskFormat::Qcow2];

/// The file in the machine's directory.
pub(crate) fn file_name(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "disk.raw",
        DiskFormat::Qcow2 => "disk.qcow2",
    }
}

/// Clones `base` into a directory, as cheaply as the file system lets it. Blocks.
pub(crate) fn clone(base: &Path, dir: &Path) -> Result<DiskFormat> {
    for format in FORMATS {
        remove(&dir.join(file_name(format)))?;
    }
    let what = "cloning the root disk";
    // The way is known only afterwards, and the name says what is inside.
    let new = dir.join("disk.new");
    let cache = Cache::open(base.parent().unwrap_or_else(|| Path::new("/"))).host(what)?;
    let kind = cache.clone_disk(base, &new, &CloneKind::ALL).host(what)?;
    let format = kind.format().into();
    fs_err::rename(&new, dir.join(file_name(format))).host(what)?;
    Ok(format)
}
