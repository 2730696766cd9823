//! What a Job's pod runs, out of the pod: its container's arguments, with the paths that they have on
//! this machine. Pure.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::Task;

/// Where a pod's first container has a volume.
pub(super) fn mounts(pod: &Pod, volume: &str) -> impl Iterator<Item = String> {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let mounts = container
        .into_iter()
        .flat_map(|c| c.volume_mounts.iter().flatten());
    mounts
        .filter(move |mount| mount.name == volume)
        .map(|mount| mount.mount_path.clone())
}

/// What a Job's pod runs, with the paths that these places have on this machine.
pub(super) fn task(pod: &Pod, uid: String, places: &[(String, PathBuf)]) -> Task {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let arguments = container.and_then(|c| c.args.clone()).unwrap_or_default();
    let here = |argument: String| {
        let found = places.iter().find_map(|(path, place)| {
            let below = Path::new(&argument).strip_prefix(path).ok()?;
            Some(place.join(below).to_string_lossy().into_owned())
        });
        found.unwrap_or(argument)
    };
    Task {
        pod: uid,
        image: container.and_then(|c| c.image.clone()).unwrap_or_default(),
        arguments: arguments.into_iter().map(here).collect(),
    }
}
