//! Runs a list of steps in order and, when one fails or the user stops it, takes back in reverse
//! what was reached, unless asked not to.

use super::Step;
use crate::cluster::record::Record;
use crate::failure::{Failure, Kind, Result};
use crate::provider::Provider;
use crate::ui::{self, Outcome, Reporter};
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
        let Err(failure) = run_one(step.as_ref(), cx, cancel).await else {
            continue;
        };
        if on_failure == OnFailure::Keep {
            return Err(failure.hint("go on where it stopped: run the same command again"));
        }
        return Err(match undo(&steps[..=reached], cx).await {
            Ok(()) => failure,
            Err(second) => failure
                .evidence(format!("taking back what was made failed too: {second}"))
                .hint(format!(
                    "remove what is left: knest delete {}",
                    cx.record.spec.name
                )),
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
    let reporter = cx.reporter;
    let all = async {
        for step in reached.iter().rev() {
            step.undo(cx).await?;
        }
        Ok(())
    };
    let bounded = async {
        match tokio::time::timeout(UNDO, all).await {
            Ok(result) => result,
            Err(_) => Err(Failure::timeout(format!(
                "not done after {} s",
                UNDO.as_secs()
            ))),
        }
    };
    ui::step(reporter, title, bounded).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::fake::Fake;
    use crate::ui::{Output, reporter};
    use async_trait::async_trait;
    use std::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<String>>>;

    /// Writes what is asked of it into a log.
    struct Spy {
        name: &'static str,
        log: Log,
        run: fn() -> Behaviour,
        needed: bool,
    }

    enum Behaviour {
        Succeed,
        Fail,
        Hang,
    }

    #[async_trait(?Send)]
    impl Step for Spy {
        fn title(&self) -> String {
            self.name.into()
        }
        async fn needed(&self, _: &Context<'_>) -> Result<bool> {
            Ok(self.needed)
        }
        async fn run(&self, _: &mut Context<'_>) -> Result<()> {
            self.log.lock().unwrap().push(format!("run {}", self.name));
            match (self.run)() {
                Behaviour::Succeed => Ok(()),
                Behaviour::Fail => Err(Failure::guest("it broke")),
                Behaviour::Hang => std::future::pending().await,
            }
        }
        async fn undo(&self, _: &mut Context<'_>) -> Result<()> {
            self.log.lock().unwrap().push(format!("undo {}", self.name));
            Ok(())
        }
    }

    /// Three steps, the middle one `second`, of which the first is not needed.
    fn list(log: &Log, second: fn() -> Behaviour) -> Vec<Box<dyn Step>> {
        let good: fn() -> Behaviour = || Behaviour::Succeed;
        let steps = [("a", good, false), ("b", second, true), ("c", good, true)];
        let spy = |(name, run, needed)| {
            Box::new(Spy {
                name,
                log: Arc::clone(log),
                run,
                needed,
            }) as Box<dyn Step>
        };
        steps.into_iter().map(spy).collect()
    }

    async fn run(
        second: fn() -> Behaviour,
        cancel: &CancellationToken,
        on_failure: OnFailure,
    ) -> (Result<()>, Vec<String>) {
        let (log, provider) = (Log::default(), Fake::default());
        let quiet = reporter(Output::Table, true);
        let mut cx = Context {
            provider: &provider,
            reporter: quiet.as_ref(),
            record: crate::cluster::fixture::record(1, 1),
            deadline: Instant::now() + Duration::from_secs(60),
        };
        let result = execute(&list(&log, second), &mut cx, cancel, on_failure).await;
        let seen = log.lock().unwrap().clone();
        (result, seen)
    }

    #[tokio::test]
    async fn a_step_that_is_not_needed_does_not_run() {
        let (result, log) = run(
            || Behaviour::Succeed,
            &CancellationToken::new(),
            OnFailure::Undo,
        )
        .await;
        assert!(result.is_ok());
        assert_eq!(log, ["run b", "run c"]);
    }

    #[tokio::test]
    async fn a_failure_takes_back_in_reverse_all_that_was_reached() {
        let (result, log) = run(
            || Behaviour::Fail,
            &CancellationToken::new(),
            OnFailure::Undo,
        )
        .await;
        assert_eq!(result.map_err(|e| e.to_string()), Err("b: it broke".into()));
        assert_eq!(log, ["run b", "undo b", "undo a"]);
    }

    #[tokio::test]
    async fn retaining_takes_nothing_back() {
        let (result, log) = run(
            || Behaviour::Fail,
            &CancellationToken::new(),
            OnFailure::Keep,
        )
        .await;
        assert!(result.is_err());
        assert_eq!(log, ["run b"]);
    }

    #[tokio::test]
    async fn a_cancellation_stops_the_step_that_runs() {
        let cancel = CancellationToken::new();
        let later = cancel.clone();
        tokio::spawn(async move { later.cancel() });
        let (result, log) = run(|| Behaviour::Hang, &cancel, OnFailure::Undo).await;
        assert_eq!(result.map_err(|e| e.kind), Err(Kind::Interrupted));
        assert_eq!(log, ["run b", "undo b", "undo a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_hangs_ends_at_the_deadline() {
        let (result, _) = run(
            || Behaviour::Hang,
            &CancellationToken::new(),
            OnFailure::Undo,
        )
        .await;
        assert_eq!(result.map_err(|e| e.kind), Err(Kind::Timeout));
    }
}
