//! Waiting, in one place: always with a deadline, and what was seen last is what the error says.

use crate::failure::{Failure, Result};
use crate::ui::Reporter;
use std::time::Duration;
use tokio::time::Instant;

/// What a look at the world found.
#[derive(Debug)]
pub(crate) enum Seen<T> {
    /// What was waited for.
    There(T),
    /// Not yet; the observation, for the reporter and for the error at the deadline.
    NotYet(String),
}

/// Looks every `interval` until `probe` finds what is waited for, fails, or `deadline` passes.
/// A look that is under way at the deadline is given up.
pub(crate) async fn wait_until<T>(
    what: &str,
    deadline: Instant,
    interval: Duration,
    reporter: &dyn Reporter,
    mut probe: impl AsyncFnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = String::from("nothing was seen");
    loop {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(Seen::There(found))) => return Ok(found),
            Ok(Ok(Seen::NotYet(observation))) => {
                reporter.detail(&observation);
                last = observation;
            }
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {}
        }
        if Instant::now() + interval > deadline {
            let waited = began.elapsed().as_secs();
            return Err(Failure::timeout(format!(
                "{what} not so after {waited} s; last seen: {last}"
            ))
            .hint("give it more time with --timeout"));
        }
        tokio::time::sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::{Output, reporter};

    #[tokio::test(start_paused = true)]
    async fn the_deadline_reports_what_was_seen_last() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let quiet = reporter(Output::Table, true);
        let mut looks = 0;
        let result: Result<()> = wait_until(
            "the moon",
            deadline,
            Duration::from_secs(1),
            quiet.as_ref(),
            async || {
                looks += 1;
                Ok(Seen::NotYet(format!("look {looks}")))
            },
        )
        .await;
        let text = result.map_err(|e| e.to_string());
        assert_eq!(
            text,
            Err("the moon not so after 5 s; last seen: look 6".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_does_not_outlast_the_deadline() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let quiet = reporter(Output::Table, true);
        let result: Result<()> = wait_until(
            "an answer",
            deadline,
            Duration::from_secs(1),
            quiet.as_ref(),
            async || std::future::pending().await,
        )
        .await;
        assert!(result.is_err());
    }
}
