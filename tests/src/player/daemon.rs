//! virt-daemon's part: a scheduled machine whose pod runs is running, its power actions are heeded,
//! a machine that is off has succeeded, and one that is to be deleted is turned off first.

use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::State;
use super::scene::Scene;
use crate::host::virtink;

impl Scene {
    pub(super) async fn daemon(&mut self, machine: &DynamicObject) -> kube::Result<()> {
        let status = &machine.data["status"];
        let Some(pod) = status["vmPodUID"]
            .as_str()
            .filter(|pod| self.started.contains_key(*pod))
        else {
            return Ok(());
        };
        let phase = status["phase"].as_str();
        if machine.metadata.deletion_timestamp.is_some() {
            return match phase {
                Some("Scheduled" | "Running") => {
                    self.setting.guests.stop(pod);
                    self.patch_machine(machine, json!({"phase": "Succeeded"}))
                        .await
                }
                _ => Ok(()),
            };
        }
        match phase {
            Some("Scheduled") => {
                self.patch_machine(machine, json!({"phase": "Running"}))
                    .await
            }
            Some("Running") if self.setting.guests.state(pod) == State::Off => {
                self.patch_machine(machine, json!({"phase": "Succeeded"}))
                    .await
            }
            Some("Running") if machine.data["spec"]["runPolicy"] == "Halted" => {
                self.setting.guests.stop(pod);
                self.patch_machine(machine, json!({"phase": "Succeeded"}))
                    .await
            }
            Some("Running") => self.act(machine, pod, &status["powerAction"]).await,
            _ => Ok(()),
        }
    }

    /// An action is taken once, then struck out. Resetting and pausing show nothing outside.
    async fn act(
        &mut self,
        machine: &DynamicObject,
        pod: &str,
        action: &Value,
    ) -> kube::Result<()> {
        match action.as_str() {
            None | Some("") => return Ok(()),
            Some("PowerOff") => {
                self.setting.guests.stop(pod);
                let off = json!({"phase": "Succeeded", "powerAction": null});
                return self.patch_machine(machine, off).await;
            }
            Some("Shutdown") => self.setting.guests.press_power_button(pod),
            Some(_) => {}
        }
        self.patch_machine(machine, json!({"powerAction": null}))
            .await
    }

    /// Changes a machine's status, unless someone else has just changed the machine.
    pub(super) async fn patch_machine(
        &self,
        machine: &DynamicObject,
        status: Value,
    ) -> kube::Result<()> {
        let version = machine.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        let patched = self
            .machines_in(machine)
            .patch_status(
                &machine.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await;
        patched.map(drop)
    }

    pub(super) fn machines_in(&self, machine: &DynamicObject) -> Api<DynamicObject> {
        let namespace = machine.namespace().unwrap_or_default();
        Api::namespaced_with(self.client.clone(), &namespace, &virtink::virtual_machine())
    }
}
