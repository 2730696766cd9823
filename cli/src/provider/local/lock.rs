//! The cluster's lock: `flock` on a file that says who holds it. The kernel frees it when its
//! holder dies, however that happens.

use super::state::ClusterDir;
use crate::failure::{Context, Failure, Result};
use crate::provider;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::{FlockOperation, flock};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How often a file that vanishes under us is tried again.
const ATTEMPTS: usize = 16;

/// A held lock.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: fs_err::File,
}

impl FileLock {
    /// Empties the file, so that nobody reads a holder that is about to be gone.
    pub(crate) fn disown(&self) {
        drop(self.file.set_len(0));
    }
}

/// Takes the lock or says, as the error's second half, who has it.
pub(crate) fn acquire(path: &Path) -> Result<FileLock> {
    let what = || format!("locking {}", path.display());
    for _ in 0..ATTEMPTS {
        let mut options = fs_err::OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(path).host(what())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                drop(
                    std::io::Read::by_ref(&mut file)
                        .take(4096)
                        .read_to_string(&mut holder),
                );
                return Err(Failure::host(format!("held by {}", holder.trim())));
            }
            Err(error) => return Err(Failure::host(what()).because(error)),
        }
        // The last holder may have removed the file between our opening and our locking it.
        let ours = file.metadata().host(what())?;
        if fs_err::metadata(path).is_ok_and(|now| now.ino() == ours.ino()) {
            let command: Vec<_> = std::env::args().collect();
            file.set_len(0).host(what())?;
            let line = format!("process {}: {}\n", std::process::id(), command.join(" "));
            // It says who holds it; that it is held is the kernel's to know, on a full disk too.
            drop(file.write_all(line.as_bytes()));
            return Ok(FileLock { file });
        }
    }
    Err(Failure::host(format!(
        "{}: the file keeps vanishing",
        what()
    )))
}

/// The lock on a cluster for a command's run; it takes the directory with it if no cluster is left
/// in there.
#[derive(Debug)]
pub(crate) struct ClusterLock {
    dir: ClusterDir,
    held: FileLock,
}

impl ClusterLock {
    pub(crate) fn acquire(dir: &ClusterDir) -> Result<Self> {
        dir.create()?;
        let held = acquire(&dir.lock()).map_err(|failure| {
            failure
                .while_doing(format!("cluster {} is being worked on", dir.name))
                .hint("wait for that command, or stop it with Ctrl-C")
        })?;
        Ok(Self {
            dir: dir.clone(),
            held,
        })
    }
}

impl provider::Lock for ClusterLock {}

impl Drop for ClusterLock {
    fn drop(&mut self) {
        self.held.disown();
        if !self.dir.record().exists() {
            drop(fs_err::remove_file(self.dir.lock()));
            // Refused while anything is in it, and rightly so.
            drop(fs_err::remove_dir(self.dir.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;

    #[test]
    fn one_holder_who_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |name| root.path().join(name);
        let paths = Paths {
            state: at("s"),
            data: at("d"),
            cache: at("c"),
            ..Paths::default()
        };
        let dir = ClusterDir::of(&paths, &"demo".parse().unwrap());
        let lock = ClusterLock::acquire(&dir).unwrap();
        let refused = ClusterLock::acquire(&dir).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(lock);
        assert!(!dir.path().exists(), "no cluster, no directory");

        let lock = ClusterLock::acquire(&dir).unwrap();
        fs_err::write(dir.record(), "{}").unwrap();
        drop(lock);
        assert!(dir.record().exists());
        drop(ClusterLock::acquire(&dir).unwrap());
    }
}
