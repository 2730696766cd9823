//! Waiting for something, with a deadline, never without.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{Error, Result};
use crate::sys;

/// What a probe saw.
#[derive(Debug)]
pub enum Seen<T, O> {
    /// What was waited for.
    Done(T),
    /// Something else, which is reported if nothing better comes.
    NotYet(O),
}

/// Asks `probe` every `interval` until it is done.
///
/// # Errors
/// [`Error::Deadline`] with the last observation after `limit`, even when a probe never returns;
/// what `probe` itself fails with, at once.
pub async fn wait_until<T, O, F, Fut>(
    what: &'static str,
    limit: Duration,
    interval: Duration,
    mut probe: F,
) -> Result<T>
where
    O: fmt::Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Seen<T, O>>>,
{
    let deadline = Instant::now() + limit;
    let mut last: Option<O> = None;
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(Seen::Done(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(seen))) => last = Some(seen),
            Ok(Err(error)) => return Err(error),
            Err(_) => break,
        }
        if Instant::now() + interval >= deadline {
            break;
        }
        sleep(interval).await;
    }
    let last = last.map_or_else(|| "nothing".to_owned(), |seen| seen.to_string());
    Err(Error::Deadline {
        what,
        waited: limit,
        last,
    })
}

/// Pauses finer than the runtime's, whose timer counts milliseconds and rounds up.
#[derive(Debug)]
pub(crate) struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    /// One that ticks every `interval`, which is not zero. Must be called in a tokio runtime.
    pub(crate) fn every(interval: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interval = Timespec::try_from(interval)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let times = Itimerspec {
            it_interval: interval,
            it_value: interval,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        sys::watch(timer, Interest::READABLE).map(Self)
    }

    /// Waits for the next tick; ticks that nobody waited for count as one.
    pub(crate) async fn tick(&self) -> io::Result<()> {
        let mut count = [0; 8];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?));
            // Otherwise it was not ready after all.
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reports_the_last_observation() {
        let mut count = 0;
        let error = wait_until(
            "the end",
            Duration::from_millis(20),
            Duration::from_millis(1),
            || {
                count += 1;
                let seen = count;
                async move { Ok(Seen::<(), _>::NotYet(format!("look {}", seen.min(1)))) }
            },
        )
        .await
        .unwrap_err();
        assert!(matches!(error, Error::Deadline { last, .. } if last == "look 1"));
    }

    #[tokio::test]
    async fn ends_though_the_probe_hangs() {
        let error = wait_until(
            "the end",
            Duration::from_millis(5),
            Duration::from_millis(1),
            std::future::pending::<Result<Seen<(), String>>>,
        )
        .await
        .unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }));
    }

    #[tokio::test]
    async fn ticks_are_finer_than_the_runtimes() {
        let begun = Instant::now();
        let ticker = Ticker::every(Duration::from_micros(100)).unwrap();
        for _ in 0..5 {
            ticker.tick().await.unwrap();
        }
        assert!(begun.elapsed() >= Duration::from_micros(500));
        assert!(Ticker::every(Duration::MAX).is_err());
    }

    #[tokio::test]
    async fn stops_at_the_first_success() {
        let mut left = 3;
        let value = wait_until(
            "three",
            Duration::from_secs(5),
            Duration::from_millis(1),
            || {
                left -= 1;
                let seen = left;
                async move {
                    Ok(if seen == 0 {
                        Seen::Done(7)
                    } else {
                        Seen::NotYet(seen)
                    })
                }
            },
        )
        .await
        .unwrap();
        assert_eq!(value, 7);
    }
}
