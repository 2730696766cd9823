//! The one bounded wait of the tests: it polls, gives up at a deadline and then says what it saw
//! last.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Calls `probe` every `interval` until it answers `Ok`, and returns that answer; panics after
/// `limit` with the last `Err`. The probe runs at least once, and once more at the very end.
pub fn until<T, E: Debug>(
    what: &str,
    limit: Duration,
    interval: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        let last_round = start.elapsed() >= limit;
        match probe() {
            Ok(found) => return found,
            Err(seen) if last_round => {
                panic!("{what}: not within {limit:?}; last seen: {seen:?}")
            }
            Err(_) => {
                std::thread::sleep(interval.min(limit.saturating_sub(start.elapsed())));
            }
        }
    }
}

/// Whether `probe` comes true within `limit`, for one who goes on in either case.
pub fn within(limit: Duration, interval: Duration, mut probe: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        if probe() {
            return true;
        }
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(interval.min(left));
    }
}

/// The same as [`until`] for a probe that is asynchronous.
pub async fn until_async<T, E: Debug>(
    what: &str,
    limit: Duration,
    interval: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        let last_round = start.elapsed() >= limit;
        match probe().await {
            Ok(found) => return found,
            Err(seen) if last_round => {
                panic!("{what}: not within {limit:?}; last seen: {seen:?}")
            }
            Err(_) => {
                tokio::time::sleep(interval.min(limit.saturating_sub(start.elapsed()))).await;
            }
        }
    }
}
