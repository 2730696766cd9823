//! How a caller follows and stops long work: a flag that is looked at often, and a count of bytes.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;

/// Bytes between two calls of the progress function.
const STEP: u64 = 1 << 20;

/// How far long work is, in packed bytes of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read.
    pub done: u64,
    /// Bytes to read. A build that has to start over doubles it.
    pub total: u64,
}

/// A caller's wishes: whether to stop, and whom to tell how far it is. The default is neither.
#[derive(Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// Set to true, from any thread, it makes the work end with [`Error::Cancelled`] in
    /// milliseconds; nothing is left behind.
    pub cancel: Option<&'a AtomicBool>,
    /// Called from worker threads about once a MiB.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
}

impl std::fmt::Debug for Wishes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wishes")
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}

/// The running count behind [`Wishes`], shared by the threads of one piece of work.
pub(crate) struct Watch<'a> {
    wishes: Wishes<'a>,
    done: AtomicU64,
    total: AtomicU64,
    aborted: AtomicBool,
}

impl<'a> Watch<'a> {
    /// `sizes` are those of the blobs to read, by their descriptors: anything may stand there.
    pub(crate) fn new(wishes: Wishes<'a>, sizes: impl Iterator<Item = u64>) -> Watch<'a> {
        let total = sizes.fold(0, u64::saturating_add);
        Watch {
            wishes,
            done: AtomicU64::new(0),
            total: AtomicU64::new(total),
            aborted: AtomicBool::new(false),
        }
    }

    /// The work starts over: as much again is to be read.
    pub(crate) fn again(&self) {
        let total = self.total.load(Ordering::Relaxed);
        self.total.store(total.saturating_mul(2), Ordering::Relaxed);
    }

    /// So many bytes more are to be read than it seemed.
    pub(crate) fn again_for(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the caller wants to stop, or another thread failed.
    pub(crate) fn cancelled(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
            || self
                .wishes
                .cancel
                .is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Stops the other threads after a failure of this one.
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }

    /// Fails when the caller wants to stop.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.cancelled() {
            Err(io::Error::other("cancelled"))
        } else {
            Ok(())
        }
    }

    /// Names a failure what it is when it came from [`check`](Self::check).
    pub(crate) fn or_cancelled(&self, error: Error) -> Error {
        if self.cancelled() {
            Error::Cancelled
        } else {
            error
        }
    }

    /// Counts what is read through it, and ends early when the caller wants to stop.
    pub(crate) fn count<R>(&'a self, inner: R) -> Counted<'a, R> {
        Counted {
            inner,
            watch: self,
            pending: 0,
        }
    }

    /// So much of what was counted has to be read again.
    #[cfg(feature = "registry")]
    pub(crate) fn take_back(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts what need not be read, or was.
    pub(crate) fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(tell) = self.wishes.progress {
            tell(Progress {
                done,
                total: self.total.load(Ordering::Relaxed),
            });
        }
    }
}

/// A reader that reports to a [`Watch`].
pub(crate) struct Counted<'a, R> {
    inner: R,
    watch: &'a Watch<'a>,
    pending: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch.check()?;
        let count = self.inner.read(buffer)?;
        self.pending += count as u64;
        if self.pending >= STEP || (count == 0 && self.pending > 0) {
            self.watch.add(std::mem::take(&mut self.pending));
        }
        Ok(count)
    }
}
