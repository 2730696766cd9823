//! The volumes of a storage class that makes none itself: whether there are enough, and such as are
//! asked for. What a class that makes them can give is known to its provisioner alone.

use super::amount;
use crate::cluster::record::{NodeState, Record};
use crate::cluster::spec::PersistentSpec;
use crate::failure::{Failure, Result};
use crate::provider::virtink::disk::{claim_name, size};
use crate::provider::virtink::host::{Host, is};
use crate::provider::virtink::objects::selector;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

/// The provisioner of a class whose volumes are made by hand.
const NONE: &str = "kubernetes.io/no-provisioner";

/// Checks the disks that are yet to be had against what there is. A user who may not look at volumes
/// learns it from the claims.
pub(in crate::provider::virtink) async fn check(
    host: &Host,
    record: &Record,
    spec: &PersistentSpec,
    class: &StorageClass,
) -> Result<()> {
    if class.provisioner != NONE {
        return Ok(());
    }
    let api: Api<PersistentVolume> = Api::all(host.client.clone());
    let all = ListParams::default();
    let found = host
        .call("looking at volumes", || async {
            match api.list(&all).await {
                Err(error) if is(&error, 403) => Ok(None),
                found => found.map(|list| Some(list.items)),
            }
        })
        .await?;
    let Some(volumes) = found else {
        return Ok(());
    };
    let claims = host.api::<PersistentVolumeClaim>();
    let own = ListParams::default().labels(&selector(&record.spec.name));
    let claims = host
        .call("looking for the cluster's disks", || {
            claims.list_metadata(&own)
        })
        .await?;
    let had = |name: String| claims.items.iter().any(|c| c.name_any() == name);
    let wanted = record.in_state(NodeState::Wanted);
    let lacking = wanted.filter(|node| !had(claim_name(&node.name)));
    let sizes = lacking.map(|node| size(record, spec, node.role).bytes());
    fit(&class.name_any(), spec, sizes.collect(), &volumes)
}

/// Whether each size has a volume of its own, the largest first, each in the smallest that holds it.
fn fit(
    class: &str,
    spec: &PersistentSpec,
    mut sizes: Vec<u64>,
    volumes: &[PersistentVolume],
) -> Result<()> {
    let free: Vec<_> = volumes.iter().filter(|v| is_free(v, class)).collect();
    let mut fitting: Vec<u128> = free.iter().filter_map(|v| capacity(v, spec)).collect();
    fitting.sort_unstable();
    sizes.sort_unstable();
    let wanted = sizes.len();
    for size in sizes.into_iter().rev() {
        let size = u128::from(size) * 1000;
        let Some(place) = fitting.iter().position(|has| *has >= size) else {
            return Err(Failure::usage(format!(
                "storage class {class} makes no volumes by itself, and those that are free do not \
                 hold {wanted} new disks: there are {}, of which {} can be used {} as {}",
                free.len(),
                free.iter().filter(|v| capacity(v, spec).is_some()).count(),
                spec.access_mode,
                spec.volume_mode,
            ))
            .hint(format!(
                "one of {} MiB finds none",
                size.div_ceil(1000 << 20)
            ))
            .hint(
                "--storage-class, --access-mode and --volume-mode ask for another kind of disk",
            ));
        };
        fitting.remove(place);
    }
    Ok(())
}

/// Of this class, and nobody's.
fn is_free(volume: &PersistentVolume, class: &str) -> bool {
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    let of = volume
        .spec
        .as_ref()
        .and_then(|s| s.storage_class_name.as_deref());
    let claimed = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some());
    of == Some(class) && phase == Some("Available") && !claimed
}

/// What it holds, in thousandths of a byte; `None` where it can't be used as it is asked for.
fn capacity(volume: &PersistentVolume, wanted: &PersistentSpec) -> Option<u128> {
    let spec = volume.spec.as_ref()?;
    let mode = wanted.access_mode.to_string();
    let can = spec.access_modes.iter().flatten().any(|m| *m == mode);
    let kind = spec.volume_mode.as_deref().unwrap_or("Filesystem");
    let fits = can && kind == wanted.volume_mode.to_string();
    let capacity = fits.then_some(spec.capacity.as_ref())??.get("storage")?;
    amount::parse(&capacity.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spec::{AccessMode, HostCni, VolumeMode};
    use serde_json::json;

    fn volume(class: &str, size: &str, modes: &[&str], phase: &str) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "v"},
            "spec": {"storageClassName": class, "capacity": {"storage": size}, "accessModes": modes},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn every_disk_needs_a_volume_of_its_own() {
        let once = ["ReadWriteOnce"];
        let mut taken = volume("hand", "9Gi", &once, "Available");
        taken.spec.as_mut().unwrap().claim_ref = Some(Default::default());
        let volumes = [
            volume("hand", "3Gi", &once, "Available"),
            volume(
                "hand",
                "5Gi",
                &["ReadWriteOnce", "ReadWriteMany"],
                "Available",
            ),
            volume("hand", "9Gi", &once, "Released"),
            volume("other", "9Gi", &once, "Available"),
            taken,
        ];
        let say = |sizes: &[u64], access_mode, volume_mode| {
            let spec = PersistentSpec {
                host_cni: HostCni::Calico,
                addresses: "10.0.0.1-10.0.0.9".parse().unwrap(),
                storage_class: None,
                access_mode,
                volume_mode,
            };
            let sizes = sizes.iter().map(|gib| gib << 30).collect();
            match fit("hand", &spec, sizes, &volumes) {
                Ok(()) => "fits\n".to_owned(),
                Err(failure) => failure.render(),
            }
        };
        let (once, many) = (AccessMode::ReadWriteOnce, AccessMode::ReadWriteMany);
        let (file, block) = (VolumeMode::Filesystem, VolumeMode::Block);
        insta::assert_snapshot!([
            say(&[], many, block),
            say(&[2, 4], once, file),
            say(&[4, 4], once, file),
            say(&[6], once, file),
            say(&[4], many, file),
            say(&[2, 2], many, file),
            say(&[1], once, block),
        ].concat(), @"
        fits
        fits
        error: storage class hand makes no volumes by itself, and those that are free do not hold 2 new disks: there are 2, of which 2 can be used ReadWriteOnce as Filesystem
        hint: one of 4096 MiB finds none
        hint: --storage-class, --access-mode and --volume-mode ask for another kind of disk
        error: storage class hand makes no volumes by itself, and those that are free do not hold 1 new disks: there are 2, of which 2 can be used ReadWriteOnce as Filesystem
        hint: one of 6144 MiB finds none
        hint: --storage-class, --access-mode and --volume-mode ask for another kind of disk
        fits
        error: storage class hand makes no volumes by itself, and those that are free do not hold 2 new disks: there are 2, of which 1 can be used ReadWriteMany as Filesystem
        hint: one of 2048 MiB finds none
        hint: --storage-class, --access-mode and --volume-mode ask for another kind of disk
        error: storage class hand makes no volumes by itself, and those that are free do not hold 1 new disks: there are 2, of which 0 can be used ReadWriteOnce as Block
        hint: one of 1024 MiB finds none
        hint: --storage-class, --access-mode and --volume-mode ask for another kind of disk
        ");
    }
}
