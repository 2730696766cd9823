//! What commands are made of: steps, in lists. A step is idempotent, says whether it is needed,
//! and can be taken back. Steps see the provider, the cluster's own API, the reporter and the
//! record; never a VMM.

mod finish;
mod kubeconfig;
mod leave;
mod machines;
mod plan;
mod prepare;
mod ready;
mod resize;
mod rest;
mod run;
mod teardown;
mod token;
mod upgrade;
mod waiting;

pub(crate) use plan::{create_plan, delete_plan, scale_plan, start_plan, stop_plan, upgrade_plan};
pub(crate) use prepare::add_nodes;
pub(crate) use resize::{mark_lost, resize};
pub(crate) use run::{Context, OnFailure, execute};

pub(crate) use upgrade::begin as begin_upgrade;

use crate::failure::Result;
use async_trait::async_trait;

/// One step of a list. Its futures need not be `Send`: one task runs a list from end to end.
#[async_trait(?Send)]
pub(crate) trait Step: Send + Sync {
    /// What it does, in the words of the progress line.
    fn title(&self) -> String;

    /// Whether there is anything to do: a run that goes on where another stopped asks first.
    async fn needed(&self, _cx: &Context<'_>) -> Result<bool> {
        Ok(true)
    }

    /// Does it. May be cancelled at any await.
    async fn run(&self, cx: &mut Context<'_>) -> Result<()>;

    /// Takes it back, whatever of it was done. Nothing by default.
    async fn undo(&self, _cx: &mut Context<'_>) -> Result<()> {
        Ok(())
    }
}
