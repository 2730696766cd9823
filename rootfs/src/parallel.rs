//! The same work on many things, on several threads. Knows nothing of what is done.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Does `work` for every number of `order`, which has each of `0..order.len()` once and says which are
/// begun first, on at most `threads` threads, the caller's among them. What came of each, by number.
///
/// # Errors
/// After a failure nothing more is begun. That of the lowest number counts, but for
/// [`Error::Cancelled`]: those stopped because of another's.
pub(crate) fn each<T: Send>(
    threads: usize,
    order: &[usize],
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let slots: Vec<_> = order.iter().map(|_| Mutex::new(None)).collect();
    let turns = || {
        while !failed.load(Ordering::Relaxed) {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let Some(&number) = order.get(turn) else {
                break;
            };
            let done = work(number);
            if done.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            if let Ok(mut slot) = slots[number].lock() {
                *slot = Some(done);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(order.len()) {
            scope.spawn(turns);
        }
        turns();
    });
    let outcomes = slots
        .into_iter()
        .map(|slot| slot.into_inner().ok().flatten());
    all(outcomes.map(|outcome| outcome.unwrap_or(Err(Error::Cancelled))))
}

/// All that was done, or the first real failure.
fn all<T>(outcomes: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut done = Vec::new();
    let mut failure = None;
    for outcome in outcomes {
        match outcome {
            Ok(outcome) => done.push(outcome),
            Err(Error::Cancelled) => {
                failure.get_or_insert(Error::Cancelled);
            }
            Err(error) if matches!(failure, None | Some(Error::Cancelled)) => failure = Some(error),
            Err(_) => {}
        }
    }
    failure.map_or(Ok(done), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_each_is_by_number_whatever_the_order() {
        for threads in [1, 2, 8] {
            let squares = each(threads, &[2, 0, 1], |number| Ok(number * number)).unwrap();
            assert_eq!(squares, [0, 1, 4]);
        }
        assert_eq!(each(4, &[], |_| Ok(())).unwrap(), []);
    }

    #[test]
    fn a_failure_is_told_and_those_that_stopped_for_it_are_not() {
        let outcome = |number| match number {
            0 => Err(Error::Cancelled),
            1 => Err(Error::NoSuchFile("first".into())),
            _ => Err(Error::NoSuchFile("second".into())),
        };
        let told = |result: Result<Vec<()>>| result.unwrap_err().to_string();
        assert_eq!(
            told(all((0..3).map(outcome))),
            "the image has no file \"first\""
        );
        assert_eq!(told(all((0..1).map(outcome))), "cancelled");
        // On one thread nothing is begun after a failure.
        let begun = AtomicUsize::new(0);
        let result = each(1, &[1, 2, 0], |number| {
            begun.fetch_add(1, Ordering::Relaxed);
            outcome(number)
        });
        assert_eq!(told(result), "the image has no file \"first\"");
        assert_eq!(begun.into_inner(), 1);
    }
}
