//! Ctrl-C: the first one asks the work to stop and be taken back, the second one ends the process
//! where it stands.

use crate::failure::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGINT or SIGTERM cancels.
pub(crate) fn token() -> Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).host("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).host("listening for SIGTERM")?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        cancel.cancel();
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        leave();
    });
    Ok(token)
}

/// At once, whatever else runs: the record says how far things got.
#[expect(clippy::exit, reason = "the user asked twice")]
fn leave() {
    std::process::exit(130);
}
