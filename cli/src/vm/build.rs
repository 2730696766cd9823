//! Making a VM's directory: kernel, root disk, seed, and last its description, which makes it a VM.

use super::spec::{DiskSpec, NetSpec, VmSpec};
use super::state::VmDir;
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use crate::provider::local::network::find_pasta;
use crate::provider::local::{DiskFormat, disk, image, seed};
use crate::ui::Reporter;
use crate::work;
use knest_rootfs::Seed;
use std::path::Path;

const SEED: &str = "seed.img";
/// What a guest of ours is told when its user has nothing to tell.
const NOTHING: &str = "#cloud-config\n";

/// A VM that is to be made: all that could be checked beforehand has been.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Without the disks that are made for it; its kernel's path is empty for the store's.
    pub(crate) spec: VmSpec,
    /// The store's image that its kernel is taken from, if it names no file.
    pub(crate) kernel_image: String,
    /// An image that its root disk is made of, and that disk's size.
    pub(crate) image: Option<(String, u64)>,
    /// What cloud-init is to do.
    pub(crate) user_data: Option<Vec<u8>>,
}

impl Plan {
    /// The images that it is made of.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        let kernel = needs_kernel(&self.spec).then_some(&*self.kernel_image);
        let root = self.image.as_ref().map(|(name, _)| &**name);
        kernel.into_iter().chain(root)
    }
}

/// Whether it is to boot the store's kernel.
pub(super) fn needs_kernel(spec: &VmSpec) -> bool {
    spec.kernel.as_os_str().is_empty()
}

/// Makes it, locked by the caller. Whatever fails leaves a directory without a VM in it.
pub(crate) async fn make(
    paths: &Paths,
    dir: &VmDir,
    plan: Plan,
    reporter: &dyn Reporter,
) -> Result<()> {
    let (paths, dir) = (paths.clone(), dir.clone());
    work::blocking(Some(reporter), move |task| {
        let mut spec = plan.spec;
        if needs_kernel(&spec) {
            spec.kernel = image::find(&paths, &plan.kernel_image)?.kernel(&paths, task)?;
        }
        if let Some((reference, size)) = &plan.image {
            let more = "give it more with --root-size";
            let base = image::find(&paths, reference)?.disk(&paths, *size, more, task)?;
            let format = disk::clone(&base, dir.path())?;
            let root = DiskSpec {
                path: disk::file_name(format).into(),
                format,
                read_only: false,
                backing: true,
            };
            spec.disks.insert(0, root);
        }
        if let Some(seed) = seed_of(&spec, plan.user_data) {
            seed.write(&dir.path().join(SEED))
                .host("writing the seed")?;
            spec.disks.push(DiskSpec {
                path: SEED.into(),
                format: DiskFormat::Raw,
                read_only: true,
                backing: false,
            });
        }
        dir.save(&spec)
    })
    .await
}

/// What a guest is told at its first boot; nothing if there is nothing to tell.
fn seed_of(spec: &VmSpec, user_data: Option<Vec<u8>>) -> Option<Seed> {
    let network_config = match &spec.net {
        Some(NetSpec::User {
            range,
            address,
            mac,
        }) => {
            let resolv = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let servers = seed::nameservers(&resolv, find_pasta().is_some());
            Some(seed::network_config(mac, *address, *range, &servers))
        }
        _ => None,
    };
    if user_data.is_none() && network_config.is_none() {
        return None;
    }
    let (name, since) = (&spec.name, spec.created.unix_timestamp());
    Some(Seed {
        user_data: user_data.unwrap_or_else(|| NOTHING.into()),
        meta_data: format!("instance-id: {name}-{since}\nlocal-hostname: {name}\n").into_bytes(),
        network_config: network_config.map(String::into_bytes),
    })
}

/// Clears what an interrupted making or removal left under a name, locked by the caller. Blocks.
pub(crate) fn reclaim(dir: &VmDir) -> Result<()> {
    if dir.vm().exists() {
        let name = &dir.name;
        return Err(Failure::usage(format!("there is a VM {name} already"))
            .hint(format!("to start it again: knest vm start {name}"))
            .hint(format!("to remove it: knest vm remove {name}")));
    }
    dir.end_processes()?;
    dir.clear()
}

/// User-data for cloud-init, in a size that a seed holds.
pub(crate) fn user_data(path: &Path) -> Result<Vec<u8>> {
    const MOST: u64 = 1 << 20;
    let found = super::spec::readable("the user-data for cloud-init", path)?;
    let bytes = fs_err::read(found).host("reading the user-data")?;
    match bytes.len() as u64 {
        0..=MOST => Ok(bytes),
        size => Err(Failure::usage(format!(
            "{} has {size} bytes, and user-data at most {MOST}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::spec::testing::spec;

    #[test]
    fn a_seed_where_there_is_something_to_tell() {
        let mut vm = spec();
        let seed = seed_of(&vm, None).unwrap();
        assert_eq!(seed.user_data, NOTHING.as_bytes());
        let text = String::from_utf8(seed.network_config.unwrap()).unwrap();
        assert!(text.contains("10.64.0.10/24"), "{text}");
        vm.net = None;
        assert!(seed_of(&vm, None).is_none());
        let seed = seed_of(&vm, Some(b"#!/bin/sh\n".to_vec())).unwrap();
        assert_eq!(seed.network_config, None);
        let meta = String::from_utf8(seed.meta_data).unwrap();
        assert!(meta.contains("local-hostname: demo\n"), "{meta}");
    }
}
