//! The bootstrap token with which nodes join: made before machines that need one, known to the
//! cluster, and worthless soon after.

use super::{Context, Step};
use crate::cluster::guest::Guest;
use crate::cluster::record::{BootstrapToken, NodeState, Phase, Record};
use crate::failure::Result;
use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

/// A token that ends sooner than this is replaced before new machines get it.
const LEAST_LIFE: Duration = Duration::minutes(30);

/// Makes a token while there are nodes to come, and the cluster's own API know it.
pub(super) struct Token;

impl Token {
    /// Whether there is no token that lasts until machines have joined.
    fn lacking(record: &Record) -> bool {
        let soon = OffsetDateTime::now_utc() + LEAST_LIFE;
        let token = record.bootstrap_token.as_ref();
        token.is_none_or(|t| t.expires < soon)
    }
}

#[async_trait(?Send)]
impl Step for Token {
    fn title(&self) -> String {
        "Making a bootstrap token".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        let wanted = cx.record.in_state(NodeState::Wanted).next().is_some();
        // Whether a cluster that is there was told of it too is not known: it is told again.
        Ok(wanted && (Self::lacking(&cx.record) || cx.record.phase != Phase::Creating))
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        if Self::lacking(&cx.record) {
            let token = BootstrapToken::generate(OffsetDateTime::now_utc())?;
            cx.record.bootstrap_token = Some(token);
            cx.save().await?;
        }
        match &cx.record.bootstrap_token {
            // While a cluster is being created its first control plane brings the token with it.
            Some(token) if cx.record.phase != Phase::Creating => {
                Guest::of(&cx.record).await?.admit(token).await
            }
            _ => Ok(()),
        }
    }
}
