//! A process of this very binary that outlives whoever started it, one a directory: how it is begun,
//! how it begins, and how others see whether it lives. What it does is its own affair.
//!
//! ```text
//! DIR/supervisor.lock   flock: held by it for as long as it lives
//! DIR/supervisor.json   its identity
//! DIR/supervisor.log    its standard output and error
//! ```

use super::lock::{self, FileLock};
use super::process::{Identity, MARK, tail};
use super::state::{read_json, write_json};
use crate::failure::{Context, Failure, Result};
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::process::{setsid, umask};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

pub(crate) const LOCK: &str = "supervisor.lock";
pub(crate) const WHO: &str = "supervisor.json";
pub(crate) const LOG: &str = "supervisor.log";

const POLL: Duration = Duration::from_millis(10);
/// After one ended that was begun here, another one may be about to answer; and before one begins, the
/// last one may be about to end.
const RIVAL: Duration = Duration::from_secs(3);

/// Whether the one of a directory lives, as far as it wrote down who it is.
pub(crate) fn living(directory: &Path) -> Option<Identity> {
    let who = read_json::<Identity>(&directory.join(WHO));
    // What is damaged names nobody.
    who.ok().flatten().filter(Identity::alive)
}

/// Starts `knest supervise ARGUMENTS…` for a directory and waits until `answer` finds one that is
/// ready: this one, or another that was quicker.
pub(crate) async fn launch<T, F: Future<Output = Result<T>>>(
    what: &str,
    directory: &Path,
    arguments: &[&str],
    limit: Duration,
    mut answer: impl FnMut() -> F,
) -> Result<T> {
    let mut child = spawn(directory, arguments).host(what)?;
    let mut deadline = Instant::now() + limit;
    let mut ended = None;
    loop {
        let failure = match answer().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        if ended.is_none() {
            ended = child.try_wait().host(what)?;
            if ended.is_some() {
                deadline = deadline.min(Instant::now() + RIVAL);
            }
        }
        if Instant::now() > deadline {
            return Err(match ended {
                Some(status) => Failure::host(format!("{what}: it ended with {status}")),
                None => Failure::timeout(format!(
                    "{what}: no answer within {} s ({failure})",
                    limit.as_secs()
                )),
            }
            .evidence(tail(&directory.join(LOG), 15)));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn spawn(directory: &Path, arguments: &[&str]) -> std::io::Result<Child> {
    let mut options = fs_err::OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    let log = options.open(directory.join(LOG))?.into_file();
    let errors = log.try_clone()?;
    // The very file that runs now, wherever its name may lead by then.
    Command::new("/proc/self/exe")
        .arg0("knest")
        .arg("supervise")
        .args(arguments)
        .env(MARK, directory)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
}

/// The lock, also after one that has written down its end and is not gone yet.
fn alone(directory: &Path) -> Result<FileLock> {
    let deadline = std::time::Instant::now() + RIVAL;
    loop {
        match lock::acquire(&directory.join(LOCK)) {
            Ok(lock) => return Ok(lock),
            Err(_) if std::time::Instant::now() < deadline => std::thread::sleep(POLL),
            Err(failure) => return Err(failure.while_doing("there is a supervisor already")),
        }
    }
}

/// Makes this process the one of a directory: a session of its own, in that directory, its log its
/// standard error, and the lock held for as long as the answer lives. To be called while the process
/// has one thread.
pub(crate) fn begin(directory: &Path) -> Result<FileLock> {
    // Fails only for the leader of a group, who has a session to lead already.
    setsid().ok();
    // It was started by a path that does not tell its name.
    rustix::thread::set_name(c"knest").ok();
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    std::env::set_current_dir(directory).host(format!("entering {}", directory.display()))?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let lock = alone(directory)?;
    write_json(&directory.join(WHO), &Identity::own()?)?;
    Ok(lock)
}
