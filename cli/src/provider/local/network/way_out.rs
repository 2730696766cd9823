//! Watching the way out: whether pasta made its interface, and whether it lives.

use super::entry::PASTA_LOG;
use super::pasta::OUTSIDE;
use super::{Entry, Links};
use crate::provider::local::machine::with_log;
use crate::provider::local::process::tail;
use knest_vmm::process::Process;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long pasta may take to make its interface.
const WAY_OUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Says what is wrong with the way out of the namespace that `directory` tells of, and reaps it.
pub(crate) async fn watch(
    entry: Entry,
    links: Links,
    directory: PathBuf,
    tell: watch::Sender<Option<String>>,
) {
    let say = |text: String| {
        tracing::warn!("{text}");
        tell.send_replace(Some(text));
    };
    let log = directory.join(PASTA_LOG);
    let Some(pasta) = entry.network.pasta else {
        return say("pasta is not installed: machines reach nothing outside".into());
    };
    let Ok(process) = Process::attach(pasta.watched()) else {
        return say(last_words("pasta ended at once", &log));
    };
    let deadline = Instant::now() + WAY_OUT;
    while !links
        .names()
        .await
        .is_ok_and(|names| names.iter().any(|n| n == OUTSIDE))
    {
        if !process.alive() || Instant::now() > deadline {
            say(last_words("pasta made no interface", &log));
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    process.wait().await;
    if let Some(mut child) = entry.pasta {
        drop(child.wait());
    }
    say(last_words("pasta ended", &log));
}

fn last_words(what: &str, log: &Path) -> String {
    with_log(what, &tail(log, 5))
}
