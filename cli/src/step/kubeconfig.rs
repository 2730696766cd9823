//! The user's kubeconfig gets the cluster's context, and it is chosen.

use super::{Context, Step};
use crate::cluster::kubeconfig;
use crate::failure::Result;
use async_trait::async_trait;

/// Merges, and chooses. Which file was decided when the record was made.
pub(super) struct Kubeconfig;

#[async_trait(?Send)]
impl Step for Kubeconfig {
    fn title(&self) -> String {
        "Merging the kubeconfig".into()
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let Some(path) = cx.record.kubeconfig.clone() else {
            return Ok(());
        };
        let text = kubeconfig::for_record(&cx.record)?;
        kubeconfig::merge(&path, &text)
    }
    async fn undo(&self, cx: &mut Context<'_>) -> Result<()> {
        forget(cx)
    }
}

/// Takes the cluster's context out of the file that holds it; an absent one is no error.
pub(super) fn forget(cx: &Context<'_>) -> Result<()> {
    match &cx.record.kubeconfig {
        Some(path) => kubeconfig::remove(path, &cx.record.spec.name.context()),
        None => Ok(()),
    }
}
