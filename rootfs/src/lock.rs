//! Advisory locks between processes: `flock` on a file that stays. The kernel drops a dead
//! process's locks, so none is ever stale.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Between two attempts where waiting can be cancelled.
const POLL: Duration = Duration::from_millis(50);

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub(crate) struct Lock {
    file: Option<fs::File>,
}

impl Lock {
    /// Waits for the lock, however long its holders work: they are builders that end, or die.
    pub(crate) fn exclusive(path: &Path) -> Result<Lock> {
        Lock::take(path, FlockOperation::LockExclusive)
    }

    /// Waits for the lock until the flag is set.
    pub(crate) fn exclusive_unless(path: &Path, cancel: Option<&AtomicBool>) -> Result<Lock> {
        loop {
            if let Some(lock) = Lock::try_exclusive(path)? {
                return Ok(lock);
            }
            if cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                return Err(Error::Cancelled);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for the lock, which other shared holders may have too. Whoever may only read the
    /// directory gets by without the file: nothing there changes in place.
    pub(crate) fn shared(path: &Path) -> Result<Lock> {
        match fs::File::open(path) {
            Ok(file) => Lock::flock(file, FlockOperation::LockShared),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match Lock::take(path, FlockOperation::LockShared) {
                    Err(Error::File { source, .. }) if unwritable(&source) => {
                        Ok(Lock { file: None })
                    }
                    other => other,
                }
            }
            Err(error) => Err(Error::file("open", path)(error)),
        }
    }

    /// Takes the lock when nobody holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Lock>> {
        match Lock::take(path, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(Error::File { source, .. })
                if source.raw_os_error() == Some(Errno::WOULDBLOCK.raw_os_error()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The locked file.
    pub(crate) fn file(&self) -> io::Result<&std::fs::File> {
        let file = self.file.as_ref().map(fs::File::file);
        file.ok_or_else(|| io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Whether the file is still what is found at that path.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        let same = || -> io::Result<bool> {
            let (held, found) = (self.file()?.metadata()?, fs::metadata(path)?);
            Ok((held.dev(), held.ino()) == (found.dev(), found.ino()))
        };
        same().unwrap_or(false)
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Lock> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(Error::file("open", path))?;
        Lock::flock(file, operation)
    }

    fn flock(file: fs::File, operation: FlockOperation) -> Result<Lock> {
        loop {
            match flock(file.file(), operation) {
                Ok(()) => return Ok(Lock { file: Some(file) }),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::file("lock", file.path())(errno.into())),
            }
        }
    }
}

fn unwritable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}
