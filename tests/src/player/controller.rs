//! virt-controller's part, where the real one is absent: a machine that is to run gets a pod, its
//! phase follows the pod's, its pods go with it, and its finalizer holds it until then.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::pod::pod_of;
use super::scene::Scene;

const FINALIZER: &str = "virtink.io/vm-protection";

impl Scene {
    pub(super) async fn control(&mut self, machine: &DynamicObject) -> kube::Result<()> {
        let status = &machine.data["status"];
        let phase = status["phase"].as_str().unwrap_or_default();
        let deleting = machine.metadata.deletion_timestamp.is_some();
        let held = machine
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == FINALIZER);
        if !deleting && !held {
            return self.set_finalizers(machine, &[FINALIZER]).await;
        }
        if deleting && !matches!(phase, "Scheduled" | "Running") {
            return match self.delete_pods(machine).await? {
                true if held => self.set_finalizers(machine, &[]).await,
                _ => Ok(()),
            };
        }
        match phase {
            "" | "Succeeded" | "Failed" => self.rest(machine, phase).await,
            "Pending" => {
                let name = format!("vm-{}-{}", machine.name_any(), suffix(machine));
                let status = json!({"phase": "Scheduling", "vmPodName": name});
                self.patch_machine(machine, status).await
            }
            "Scheduling" | "Scheduled" | "Running" => self.follow(machine, phase).await,
            _ => Ok(()),
        }
    }

    /// A machine that is off: without pods first, then run anew if its policy wants it.
    async fn rest(&mut self, machine: &DynamicObject, phase: &str) -> kube::Result<()> {
        if !self.delete_pods(machine).await? {
            return Ok(());
        }
        let power_on = machine.data["status"]["powerAction"] == "PowerOn";
        let run = match machine.data["spec"]["runPolicy"].as_str() {
            Some("Always") => true,
            Some("RerunOnFailure") => phase != "Succeeded" || power_on,
            None | Some("" | "Once") => phase.is_empty() || power_on,
            Some("Manual") => power_on,
            Some(_) => false,
        };
        let status = &machine.data["status"];
        if run {
            let fresh = json!({
                "phase": "Pending", "powerAction": null, "nodeName": null, "vmPodName": null,
                "vmPodUID": null, "conditions": null,
            });
            return self.patch_machine(machine, fresh).await;
        }
        let used = ["powerAction", "nodeName", "vmPodName", "vmPodUID"];
        if used.iter().any(|field| !status[*field].is_null()) {
            let empty = json!({
                "powerAction": null, "nodeName": null, "vmPodName": null, "vmPodUID": null,
                "conditions": null,
            });
            return self.patch_machine(machine, empty).await;
        }
        Ok(())
    }

    /// A machine that has, or is to have, a pod.
    async fn follow(&mut self, machine: &DynamicObject, phase: &str) -> kube::Result<()> {
        let status = &machine.data["status"];
        let name = status["vmPodName"].as_str().unwrap_or_default();
        let pods = self.pods_of(machine);
        let Some(pod) = pods.iter().find(|pod| pod.name_any() == name) else {
            if phase == "Scheduling" {
                return self.create_pod(machine, name).await;
            }
            return self
                .patch_machine(machine, json!({"phase": "Failed"}))
                .await;
        };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let next = match pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
        {
            Some("Running") if phase == "Scheduling" => "Scheduled",
            Some("Succeeded") => "Succeeded",
            Some("Failed") => "Failed",
            _ => phase,
        };
        let uid = pod.uid();
        let same = next == phase
            && status["vmPodUID"].as_str() == uid.as_deref()
            && status["nodeName"].as_str() == node.as_deref();
        if same {
            return Ok(());
        }
        let status = json!({"phase": next, "vmPodUID": uid, "nodeName": node});
        self.patch_machine(machine, status).await
    }

    async fn create_pod(&mut self, machine: &DynamicObject, name: &str) -> kube::Result<()> {
        let api: Api<Pod> = Api::namespaced(
            self.client.clone(),
            &machine.namespace().unwrap_or_default(),
        );
        let pod = pod_of(machine, name);
        match api.create(&PostParams::default(), &pod).await {
            // It is not in the store yet.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(kube::Error::Api(status)) => self.complain_of(machine, &status.message).await,
            created => created.map(drop),
        }
    }

    /// An event on a machine that gets no pod, once for each reason.
    async fn complain_of(&mut self, machine: &DynamicObject, why: &str) -> kube::Result<()> {
        let uid = machine.uid().unwrap_or_default();
        if !self.said.insert(format!("{uid} {why}")) {
            return Ok(());
        }
        let about = json!({
            "apiVersion": "virt.virtink.smartx.com/v1alpha1", "kind": "VirtualMachine",
            "name": machine.name_any(), "namespace": machine.namespace(), "uid": uid,
        });
        let message = format!("Failed to reconcile VM: create VM Pod: {why}");
        self.warn(about, "FailedReconcile", &message).await
    }

    /// Whether there is none left.
    async fn delete_pods(&self, machine: &DynamicObject) -> kube::Result<bool> {
        let pods = self.pods_of(machine);
        for pod in &pods {
            if pod.metadata.deletion_timestamp.is_none() {
                let namespace = pod.namespace().unwrap_or_default();
                let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
                api.delete(&pod.name_any(), &DeleteParams::default())
                    .await?;
            }
        }
        Ok(pods.is_empty())
    }

    async fn set_finalizers(&self, machine: &DynamicObject, list: &[&str]) -> kube::Result<()> {
        let patch = json!({"metadata": {
            "resourceVersion": machine.resource_version(), "finalizers": list,
        }});
        let patched = self
            .machines_in(machine)
            .patch(
                &machine.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await;
        patched.map(drop)
    }
}

/// Five letters, new at every change of the machine.
fn suffix(machine: &DynamicObject) -> String {
    let version = machine.resource_version().unwrap_or_default();
    let number: u64 = version.parse().unwrap_or_default();
    format!("{:05x}", number % 0x10_0000)
}
