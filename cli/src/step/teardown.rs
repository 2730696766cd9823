//! The steps of a deletion. Each works from whatever an interruption left.

use super::{Context, Step, kubeconfig};
use crate::cluster::record::Phase;
use crate::failure::Result;
use async_trait::async_trait;

/// What the user wants to keep is no part of the cluster when the cluster goes.
pub(super) struct KeepDisks;

#[async_trait(?Send)]
impl Step for KeepDisks {
    fn title(&self) -> String {
        "Keeping the disks".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let kept = cx.provider.keep_disks(&cx.record).await?;
        cx.reporter.detail(&kept.join(", "));
        Ok(())
    }
}

/// From here on nothing but `delete` takes this cluster.
pub(super) struct MarkDeleting;

#[async_trait(?Send)]
impl Step for MarkDeleting {
    fn title(&self) -> String {
        "Marking the cluster for deletion".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.phase != Phase::Deleting)
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.record.phase = Phase::Deleting;
        cx.save().await
    }
}

/// The user's kubeconfig loses the cluster's context.
pub(super) struct ForgetKubeconfig;

#[async_trait(?Send)]
impl Step for ForgetKubeconfig {
    fn title(&self) -> String {
        "Cleaning the kubeconfig".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        kubeconfig::forget(cx)
    }
}

/// Machines, and all that they shared.
pub(super) struct Teardown;

#[async_trait(?Send)]
impl Step for Teardown {
    fn title(&self) -> String {
        "Removing the machines".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.provider
            .teardown(&cx.record.spec.name, cx.reporter)
            .await
    }
}

/// The record goes last.
pub(super) struct Forget;

#[async_trait(?Send)]
impl Step for Forget {
    fn title(&self) -> String {
        "Removing the cluster's record".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.provider.forget(&cx.record.spec.name).await
    }
}
