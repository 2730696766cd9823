//! The bootstrap token with which nodes join: made before machines that need one, known to the
//! cluster, and worthless soon after.

use super::{Context, Step};
use crate::cluster::guest::Guest;
use crate::cluster::record::{BootstrapToken, NodeState, Phase};
use crate::failure::Result;
use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

/// A token that ends sooner than this is replaced before new machines get it.
const LEAST_LIFE: Duration = Duration::minutes(30);

/// Makes a token while there are nodes to come.
pub(super) struct Token;

#[async_trait(?Send)]
impl Step for Token {
    fn title(&self) -> String {
        "Making a bootstrap token".into()
    }
    async fn needed(&self, cx: &Context<'_>) -> Result<bool> {
        let wanted = cx.record.in_state(NodeState::Wanted).next().is_some();
        let soon = OffsetDateTime::now_utc() + LEAST_LIFE;
        Ok(wanted
            && cx
                .record
                .bootstrap_token
                .as_ref()
                .is_none_or(|t| t.expires < soon))
    }
    async fn run(&self, cx: &mut Context<'_>) -> Result<()> {
        let token = BootstrapToken::generate(OffsetDateTime::now_utc())?;
        cx.record.bootstrap_token = Some(token.clone());
        cx.save().await?;
        // While a cluster is being created its first control plane brings the token with it.
        if cx.record.phase == Phase::Creating {
            Ok(())
        } else {
            Guest::of(&cx.record).await?.admit(&token).await
        }
    }
}
