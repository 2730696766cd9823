//! Whether a machine that ended is started again. Pure.

use std::time::Duration;
use tokio::time::Instant;

/// So many starts after crashes are allowed …
const STARTS: usize = 3;
/// … within this time.
const WINDOW: Duration = Duration::from_secs(600);
/// The first pause before a start; it doubles.
const PAUSE: Duration = Duration::from_secs(2);

/// When to start a machine again that ended, given when that was done before (this forgets what is
/// long ago); `None` to leave it off.
///
/// One that powered itself off was told to. One that is not sealed has never been a Ready node: what
/// it did half-way can't be taken up again, and whoever creates the cluster wants to hear of it.
pub(super) fn restart(
    clean: bool,
    sealed: bool,
    before: &mut Vec<Instant>,
    now: Instant,
) -> Option<Duration> {
    before.retain(|at| now - *at < WINDOW);
    if clean || !sealed || before.len() >= STARTS {
        return None;
    }
    let doublings = u32::try_from(before.len()).unwrap_or(u32::MAX);
    before.push(now);
    Some(PAUSE.saturating_mul(2_u32.saturating_pow(doublings)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_of_ready_nodes_only_and_not_for_ever() {
        let mut before = vec![];
        let now = Instant::now();
        assert_eq!(restart(true, true, &mut before, now), None);
        assert_eq!(restart(false, false, &mut before, now), None);
        let pauses: Vec<_> = (0..4)
            .map(|_| restart(false, true, &mut before, now))
            .collect();
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(pauses, [seconds(2), seconds(4), seconds(8), None]);
        assert_eq!(restart(false, true, &mut before, now + WINDOW), seconds(2));
    }
}
