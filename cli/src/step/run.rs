//! Runs a list of steps in order and, when one fails or the user stops it, takes back in reverse
//! what was reached, unless asked not to.

use super::Step;
use crate::cluster::record::Record;
use crate::failure::{Failure, Kind, Result};
use crate::provider::Provider;
use crate::ui::{Outcome, Reporter};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long taking back may take.
const UNDO: Duration = Duration::from_secs(120);

/// What steps work with.
pub(crate) struct Context<'a> {
    pub(crate) provider: &'a dyn Provider,
    pub(crate) reporter: &'a dyn Reporter,
    /// What is known of the cluster; saved through the provider before each change that it tells of.
    pub(crate) record: Record,
    /// When the whole list must be done.
    pub(crate) deadline: Instant,
}

impl Context<'_> {
    /// Writes the record where the provider keeps it.
    pub(crate) async fn save(&self) -> Result<()> {
        self.provider.save(&self.record).await
    }
}

/// What becomes of the steps that were reached when a later one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Undo,
    Keep,
}

/// Runs `steps`. A cancellation stops the step that runs at its next await.
pub(crate) async fn execute(
    steps: &[Box<dyn Step>],
    cx: &mut Context<'_>,
    cancel: &CancellationToken,
    on_failure: OnFailure,
) -> Result<()> {
    for (reached, step) in steps.iter().enumerate() {
        let Err(failure) = run_one(step.as_ref(), cx, cancel).await else { continue };
        if on_failure == OnFailure::Keep {
            return Err(failure);
        }
        return Err(match undo(&steps[..=reached], cx).await {
            Ok(()) => failure,
            Err(second) => failure
                .evidence(format!("taking back what was made failed too: {second}"))
                .hint(format!("remove what is left: knest delete {}", cx.record.spec.name)),
        });
    }
    Ok(())
}

async fn run_one(step: &dyn Step, cx: &mut Context<'_>, cancel: &CancellationToken) -> Result<()> {
    let title = step.title();
    let reporter = cx.reporter;
    let deadline = cx.deadline;
    let began = Instant::now();
    reporter.started(&title);
    let work = async {
        if !step.needed(cx).await? {
            return Ok(Outcome::Skipped);
        }
        step.run(cx).await.map(|()| Outcome::Done)
    };
    let late = || {
        Failure::timeout(format!("{title}: not done when the time was up"))
            .hint("give it more time with --timeout")
    };
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Failure::interrupted()),
        // Steps that wait report what they saw last; this is for those that don't wait by looking.
        () = tokio::time::sleep_until(deadline + Duration::from_secs(1)) => Err(late()),
        result = work => result,
    };
    let outcome = *result.as_ref().unwrap_or(&Outcome::Failed);
    reporter.finished(&title, outcome, began.elapsed());
    result.map(drop).map_err(|failure| match failure.kind {
        Kind::Interrupted => failure,
        _ => failure.while_doing(title),
    })
}

async fn undo(reached: &[Box<dyn Step>], cx: &mut Context<'_>) -> Result<()> {
    let title = "Taking back what was made";
    let began = Instant::now();
    cx.reporter.started(title);
    let all = async {
        for step in reached.iter().rev() {
            step.undo(cx).await?;
        }
        Ok(())
    };
    let result = match tokio::time::timeout(UNDO, all).await {
        Ok(result) => result,
        Err(_) => Err(Failure::timeout(format!("not done after {} s", UNDO.as_secs()))),
    };
    let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
    cx.reporter.finished(title, outcome, began.elapsed());
    result
}
