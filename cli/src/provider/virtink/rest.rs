//! Persistent machines at rest. An ephemeral one has none: off, it loses its disk.
//!
//! ```text
//! Always ──► Manual, and its power button ──► off ──► Halted     stop
//!                      └── not off in time ──► Halted: power cut, then off
//! Halted ──► Always ──► runs, in a new pod                       start
//! ```
//!
//! `Always` would run a guest that shut itself down at once again, and `Halted` cuts the power.

use super::api::{Phase, VirtualMachine};
use super::provider::Virtink;
use super::watch::{Machines, waits};
use crate::cluster::name::ClusterName;
use crate::cluster::record::{NodeState, Record};
use crate::failure::{Failure, Result};
use crate::ui::Reporter;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long guests may take to shut down by themselves.
const POWER_OFF: Duration = Duration::from_secs(120);
/// How long they may take without their will.
const HALT: Duration = Duration::from_secs(120);
/// How long machines may take to run again: their disks move with them.
const RUN: Duration = Duration::from_secs(600);

impl Virtink {
    /// Shuts every machine down, and keeps it so.
    pub(super) async fn halt(&self, record: &Record, reporter: &dyn Reporter) -> Result<()> {
        let name = &record.spec.name;
        self.held(name)?;
        let watch = self.watch(name).await?;
        let machines = watch.all();
        for vm in &machines {
            self.policy(vm, "Manual").await?;
            if !off(vm) {
                self.press(vm).await?;
            }
        }
        let by_itself = self
            .all_off(name, Instant::now() + POWER_OFF, reporter)
            .await;
        for vm in &machines {
            self.policy(vm, "Halted").await?;
        }
        match by_itself {
            Ok(()) => Ok(()),
            Err(failure) => {
                tracing::debug!(%failure, "cutting the power");
                self.all_off(name, Instant::now() + HALT, reporter).await
            }
        }
    }

    /// Runs machines that are at rest; returns once those of nodes that were Ready run.
    pub(super) async fn wake(&self, record: &Record) -> Result<()> {
        let name = &record.spec.name;
        self.held(name)?;
        let watch = self.watch(name).await?;
        for vm in &watch.all() {
            self.policy(vm, "Always").await?;
        }
        let nodes: Vec<_> = record.in_state(NodeState::Ready).map(|n| &n.name).collect();
        watch
            .until(Instant::now() + RUN, |watch| {
                let all = watch.all();
                for node in &nodes {
                    let vm = all.iter().find(|vm| vm.name_any() == node.as_str());
                    let Some(vm) = vm else {
                        return Err(Failure::host(format!(
                            "the VirtualMachine of {node} is gone from the host"
                        )));
                    };
                    if let Some(why) = waits(vm, watch.pod(vm).as_deref(), None) {
                        return Ok(Some(format!("machine {node}: {why}")));
                    }
                }
                Ok(None)
            })
            .await
    }

    async fn all_off(
        &self,
        name: &ClusterName,
        deadline: Instant,
        reporter: &dyn Reporter,
    ) -> Result<()> {
        let watch = self.watch(name).await?;
        let on = |watch: &Machines, vm: &Arc<VirtualMachine>| !off(vm) || watch.pod(vm).is_some();
        watch
            .until(deadline, |watch| {
                let all = watch.all();
                let left: Vec<_> = all.iter().filter(|vm| on(watch, vm)).collect();
                let Some(first) = left.first() else {
                    return Ok(None);
                };
                let seen = format!("{} machines still on: {}", left.len(), first.name_any());
                reporter.detail(&seen);
                Ok(Some(seen))
            })
            .await
    }

    async fn policy(&self, vm: &VirtualMachine, policy: &str) -> Result<()> {
        let (api, name) = (self.host.api::<VirtualMachine>(), vm.name_any());
        let patch = patch(json!({"spec": {"runPolicy": policy}}));
        let what = format!("changing when machine {name} runs");
        let (merge, call) = (PatchParams::default(), &patch);
        self.host
            .call(what, || api.patch(&name, &merge, call))
            .await
            .map(drop)
    }

    async fn press(&self, vm: &VirtualMachine) -> Result<()> {
        let (api, name): (Api<VirtualMachine>, _) = (self.host.api(), vm.name_any());
        let patch = patch(json!({"status": {"powerAction": "Shutdown"}}));
        let what = format!("shutting machine {name} down");
        let merge = PatchParams::default();
        self.host
            .call(what, || api.patch_status(&name, &merge, &patch))
            .await
            .map(drop)
    }
}

fn patch(value: Value) -> Patch<Value> {
    Patch::Merge(value)
}

fn off(vm: &VirtualMachine) -> bool {
    let phase = vm.status.as_ref().and_then(|s| s.phase);
    matches!(phase, None | Some(Phase::Succeeded | Phase::Failed))
}
