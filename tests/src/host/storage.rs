//! A host's storage: a class, and volumes made by hand, which the host's own controllers bind.
//! Nothing is mounted; what a machine keeps on its claim is in a directory of the
//! [`player`](crate::player)'s.

use serde_json::json;

use super::Host;
use super::virtink::apply;

impl Host {
    /// The class, the default one, whose volumes are bound once a pod needs them; with so many
    /// volumes of 16 GiB that one node at a time can use.
    pub async fn add_storage(&self, class: &str, volumes: usize) {
        let client = self.client().await;
        let object = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {
                "name": class,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        });
        apply(&client, object).await;
        for number in 1..=volumes {
            let volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": format!("{class}-{number}")},
                "spec": {
                    "capacity": {"storage": "16Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": class,
                    "hostPath": {"path": format!("/var/lib/{class}/{number}")},
                },
            });
            apply(&client, volume).await;
        }
    }
}
