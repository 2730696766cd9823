//! The steps before anything runs: checks, the record, the API's address, the keys.

use super::{Context, Step};
use crate::cluster::pki::Pki;
use crate::cluster::record::{NodeRecord, NodeState, Record};
use crate::cluster::spec::Role;
use crate::failure::{Context as _, Result};
use crate::provider::Provider;
use async_trait::async_trait;
use time::OffsetDateTime;

/// Everything that can be known to fail is found here, while nothing has been made.
pub(super) struct Preflight;

#[async_trait(?Send)]
impl Step for Preflight {
    fn title(&self) -> String {
        "Checking this host".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.in_state(NodeState::Wanted).next().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.provider.preflight(&cx.record).await
    }
}

/// From here on `delete` finds the cluster, and `create` can go on with it.
pub(super) struct WriteRecord;

#[async_trait(?Send)]
impl Step for WriteRecord {
    fn title(&self) -> String {
        "Writing the cluster's record".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.provider.load(&cx.record.spec.name).await?.is_none())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.save().await
    }
    async fn undo(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.provider
            .teardown(&cx.record.spec.name, cx.reporter)
            .await?;
        cx.provider.forget(&cx.record.spec.name).await
    }
}

/// Adds `count` nodes of a role to the record, with names and addresses of their own. In memory
/// only.
pub(crate) fn add_nodes(
    provider: &dyn Provider,
    record: &mut Record,
    role: Role,
    count: u32,
) -> Result<()> {
    for _ in 0..count {
        let place = provider.reserve_address(record, role)?;
        let name = record.next_name(role).host("naming a node")?;
        record.nodes.push(NodeRecord {
            name,
            role,
            state: NodeState::Wanted,
            version: record.spec.kubernetes_version,
            address: place.address,
            mac: place.mac,
        });
    }
    Ok(())
}

/// Where nodes are in a network that others use too, an address is asked for, not just counted.
pub(super) struct Addresses;

#[async_trait(?Send)]
impl Step for Addresses {
    fn title(&self) -> String {
        "Claiming the nodes' addresses".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        let wanted = cx.record.in_state(NodeState::Wanted).next().is_some();
        Ok(wanted && cx.record.spec.provider.persistent().is_some())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.record = cx.provider.claim_addresses(&cx.record).await?;
        Ok(())
    }
}

/// Fixed before the first machine exists, so that it is in the certificates.
pub(super) struct Endpoint;

#[async_trait(?Send)]
impl Step for Endpoint {
    fn title(&self) -> String {
        "Fixing the API's address".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.endpoint.is_none())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.record.endpoint = Some(cx.provider.reserve_endpoint(&cx.record).await?);
        cx.save().await
    }
}

/// The cluster's authorities are made here, not on a node.
pub(super) struct Keys;

#[async_trait(?Send)]
impl Step for Keys {
    fn title(&self) -> String {
        "Making the cluster's keys".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        Ok(cx.record.pki.is_none())
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        cx.record.pki = Some(Pki::generate(OffsetDateTime::now_utc())?);
        cx.save().await
    }
}
