//! The image store: what is there, and what is not yet. All functions block.

use super::{DIRECTORY, Registries, failure};
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::work::Task;
use knest_rootfs::source::registry::Registry;
use knest_rootfs::source::{self, Layout, PlainDirectory, Reference};
use knest_rootfs::{BlobSource, Error, Image, Named, Platform, Store};
use std::path::Path;

/// Opens this user's store.
pub(crate) fn store(paths: &Paths) -> Result<Store> {
    Store::open(paths.images()).map_err(failure)
}

/// A name as it was typed, and in full if it can be one of a registry's.
pub(crate) fn names(name: &str) -> impl Iterator<Item = String> {
    let full = name
        .parse::<Reference>()
        .map(|reference| reference.to_string());
    let full = full.ok().filter(|full| full != name);
    [Some(name.to_owned()), full].into_iter().flatten()
}

/// For which platform the store has the image; this machine's if it has none.
pub(crate) fn platform(store: &Store, name: &str) -> Result<Platform> {
    let all = store.list().map_err(failure)?;
    let named = names(name).find_map(|name| all.iter().find(|named| named.name == name));
    Ok(named.map_or_else(Platform::host, Named::platform))
}

/// That the store has no such image.
pub(crate) fn missing(store: &Store, name: &str) -> Failure {
    match store.resolve(name) {
        Err(error) => failure(error),
        Ok(_) => Failure::usage(format!("there is no image {name}")),
    }
}

/// The image that the store has under this name, as it was typed or in full; `None` if there is
/// none.
pub(crate) fn stored(store: &Store, name: &str) -> Result<Option<Layout>> {
    for name in names(name) {
        match store.resolve(&name) {
            Ok(layout) => return Ok(Some(layout)),
            Err(Error::NoImage { .. }) => {}
            Err(error) => return Err(failure(error)),
        }
    }
    Ok(None)
}

/// The image that lies on this machine, as it was typed; a plain directory is packed into one, in
/// this directory meanwhile.
pub(crate) fn local(
    place: &str,
    platform: &Platform,
    scratch: &Path,
    task: &Task,
) -> Result<Box<dyn BlobSource>> {
    let Some(directory) = place.strip_prefix(DIRECTORY) else {
        return source::open(place).map_err(failure);
    };
    fs_err::create_dir_all(scratch).host("making knest's cache")?;
    let packed = PlainDirectory::pack(directory.as_ref(), scratch, platform, task.wishes());
    Ok(Box::new(packed.map_err(failure)?))
}

/// Copies a registry's image into the store, under its full name.
pub(crate) fn pull(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    registries: &Registries,
    task: &Task,
) -> Result<Image> {
    let registry = Registry::open(reference, &registries.options(&task.cancel)).map_err(failure)?;
    let name = reference.to_string();
    store
        .load(&registry, &name, platform, task.wishes())
        .map_err(failure)
}
