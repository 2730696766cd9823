//! Blocking work on behalf of a future: it is told to stop when the future is dropped, and its
//! progress comes back to where the reporter is.

use crate::failure::{Failure, Result};
use crate::ui::Reporter;
use knest_rootfs::{Progress, Wishes};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// Tells blocking work to stop when nobody waits for it any more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What blocking work is given: when to stop, and whom to tell how far it is.
pub(crate) struct Task {
    pub(crate) cancel: Arc<AtomicBool>,
    tell: Box<dyn Fn(Progress) + Send + Sync>,
}

impl Task {
    /// Both, as the image crate takes them.
    pub(crate) fn wishes(&self) -> Wishes<'_> {
        Wishes {
            cancel: Some(&self.cancel),
            progress: Some(&*self.tell),
        }
    }
}

/// Runs `work` where it may block. Dropped, it tells the work to stop and does not wait for it; the
/// runtime's end does.
pub(crate) async fn blocking<T: Send + 'static>(
    reporter: Option<&dyn Reporter>,
    work: impl FnOnce(&Task) -> Result<T> + Send + 'static,
) -> Result<T> {
    let cancel = Arc::new(AtomicBool::new(false));
    let _stop = Stop(Arc::clone(&cancel));
    let (progress, mut seen) = watch::channel(None);
    let tell = Box::new(move |at| {
        progress.send_replace(Some(at));
    });
    let task = Task { cancel, tell };
    let mut handle = tokio::task::spawn_blocking(move || work(&task));
    loop {
        tokio::select! {
            done = &mut handle => {
                return done.map_err(|e| Failure::internal("a worker thread").because(e))?;
            }
            Ok(()) = seen.changed() => {
                let at = *seen.borrow_and_update();
                if let (Some(reporter), Some(at)) = (reporter, at) {
                    reporter.bytes(at.done, at.total);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn dropping_the_future_stops_the_work() {
        let (tell, told) = std::sync::mpsc::channel();
        let work = blocking(None, move |task| {
            let began = Instant::now();
            while !task.cancel.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(30)
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            tell.send(task.cancel.load(Ordering::Relaxed)).unwrap();
            Ok(())
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(20), work)
                .await
                .is_err()
        );
        let stopped =
            tokio::task::spawn_blocking(move || told.recv_timeout(Duration::from_secs(9)));
        assert!(stopped.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn its_result_comes_back() {
        assert_eq!(blocking(None, |_| Ok(7)).await.unwrap(), 7);
        assert!(
            blocking::<()>(None, |_| Err(Failure::host("no")))
                .await
                .is_err()
        );
    }
}
