//! One figure beside what it is measured against, and whether it is good enough.

use std::time::Duration;

/// What was measured, and what it may be at most.
pub(crate) enum Bar<'a> {
    /// This many times the median of something else, measured in turns with it.
    Times(f64, &'static str, &'a mut [Duration]),
    /// This long.
    Most(Duration),
}

/// Prints the row; whether it holds.
pub(crate) fn row(what: &str, driver: &mut [Duration], bar: Bar<'_>) -> bool {
    let driver = median(driver);
    let (beside, holds) = match bar {
        Bar::Times(most, what, other) => {
            let other = median(other);
            let ratio = driver.as_secs_f64() / other.as_secs_f64();
            let beside = format!("{what} {other:>10.3?}  {ratio:.3} x (at most {most} x)");
            (beside, ratio <= most)
        }
        Bar::Most(most) => (format!("(at most {most:?})"), driver <= most),
    };
    let verdict = if holds { "holds" } else { "MISSED" };
    println!("{what:36} {driver:>10.3?}  {beside}: {verdict}");
    holds
}

/// Prints why there is no figure, which is no miss.
pub(crate) fn skipped(what: &str, reason: &str) -> bool {
    println!("{what:36} skipped: {reason}");
    true
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
