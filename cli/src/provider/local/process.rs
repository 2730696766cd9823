//! Processes that outlive whoever started them: told apart by more than their number, ended for
//! sure, and found again without any record by the mark that all of a cluster's processes bear in
//! their environment.

use crate::failure::{Context, Failure, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// The environment variable by which a cluster's processes are found: its directory.
pub(crate) const MARK: &str = "KNEST_CLUSTER_DIRECTORY";

/// How long a process may take to go after SIGKILL (one in an uninterruptible wait takes longer).
const KILL: Duration = Duration::from_secs(10);

/// One process for all time: its number, when it began (ticks since boot) and during which boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    start: u64,
    boot: String,
}

impl Identity {
    /// The process that has this number now, `None` if it has ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start) = parse_stat(&stat)?;
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let ended = matches!(state, 'Z' | 'X' | 'x');
        (!ended).then(|| Self {
            pid,
            start,
            boot: boot.trim().to_owned(),
        })
    }

    /// The same, as the VMM crate's watchers take it.
    pub(crate) fn watched(&self) -> knest_vmm::process::Identity {
        knest_vmm::process::Identity {
            pid: self.pid,
            start_time: self.start,
        }
    }

    /// This process.
    pub(crate) fn own() -> Result<Self> {
        Self::of(std::process::id())
            .ok_or_else(|| Failure::host("/proc does not show this process: is it mounted?"))
    }

    /// Whether it runs still.
    pub(crate) fn alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// A handle that becomes readable when it ends; `None` if it has ended.
    pub(crate) fn pidfd(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        // Opened first, compared then: the number can't have been given away in between.
        self.alive().then_some(fd)
    }

    /// Whether it ends by itself within this time. Blocks.
    pub(crate) fn ends_within(&self, time: Duration) -> Result<bool> {
        self.pidfd().map_or(Ok(true), |fd| ended_within(&fd, time))
    }

    /// Ends it at once and waits until it is gone. One that has ended is no error.
    pub(crate) fn end(&self) -> Result<()> {
        let Some(fd) = self.pidfd() else {
            return Ok(());
        };
        match pidfd_send_signal(&fd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                return Err(error).host(format!("ending process {}", self.pid));
            }
        }
        if ended_within(&fd, KILL)? {
            return Ok(());
        }
        Err(Failure::timeout(format!(
            "process {} did not end within {} s after SIGKILL",
            self.pid,
            KILL.as_secs()
        )))
    }
}

/// Whether the process behind a handle ends in time.
fn ended_within(fd: &OwnedFd, time: Duration) -> Result<bool> {
    let deadline = std::time::Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec::try_from(left).host("waiting for a process")?;
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).host("waiting for a process"),
        }
    }
}

/// State letter and start time out of `/proc/PID/stat`, whose second field may hold anything.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

/// Every process that bears the mark of a directory or of one below it, but this one.
pub(crate) fn marked(directory: &Path) -> Vec<Identity> {
    let Ok(entries) = fs_err::read_dir("/proc") else {
        return vec![];
    };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        // Identity first: the environment that is read afterwards is of this process or of none.
        .filter_map(|pid| {
            let identity = Identity::of(pid)?;
            let environment = fs_err::read(format!("/proc/{pid}/environ")).ok()?;
            (bears_mark(&environment, directory) && identity.alive()).then_some(identity)
        })
        .collect()
}

/// Whether an environment, as `/proc` shows it, marks a process as of `directory` or below.
fn bears_mark(environment: &[u8], directory: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let mut variables = environment.split(|b| *b == 0);
    let mark = variables.find_map(|v| v.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="));
    mark.is_some_and(|m| Path::new(std::ffi::OsStr::from_bytes(m)).starts_with(directory))
}

/// The last lines of a log, at most `lines` of them and 64 KiB, with what a terminal would act on
/// taken out. Empty if there is no such file.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    use std::io::{Read, Seek, SeekFrom};
    const MAX: u64 = 64 << 10;
    let mut bytes = vec![];
    if let Ok(mut file) = fs_err::File::open(path) {
        let length = file.metadata().map_or(0, |m| m.len());
        drop(file.seek(SeekFrom::Start(length.saturating_sub(MAX))));
        drop(file.take(MAX).read_to_end(&mut bytes));
    }
    printable(&String::from_utf8_lossy(&bytes), lines)
}

pub(crate) fn printable(text: &str, lines: usize) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // A control sequence: parameters and intermediates, then one final byte.
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
                chars.next_if(|c| ('@'..='~').contains(c));
            }
            // A command to the terminal itself: text that a bell or another escape ends. One that
            // is cut short must not take the lines after it along.
            '\u{1b}' if chars.peek() == Some(&']') => {
                while chars
                    .next_if(|c| !matches!(c, '\u{7}' | '\u{1b}' | '\n'))
                    .is_some()
                {}
                if chars.next_if(|c| matches!(c, '\u{7}' | '\u{1b}')) == Some('\u{1b}') {
                    chars.next_if_eq(&'\\');
                }
            }
            '\n' => clean.push('\n'),
            '\t' => clean.push(' '),
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    let all: Vec<&str> = clean
        .lines()
        .map(str::trim_end)
        .filter(|l| !l.is_empty())
        .collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn stat_with_a_hostile_name() {
        let stat = "7 (a) S 1 (b)) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_stat(stat), Some(('R', 4242)));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_process_is_found_by_its_mark_and_ended() {
        let directory = tempfile::tempdir().unwrap();
        // It speaks once it runs: the kernel lets a spawn return a moment before the environment of
        // what was spawned can be read.
        let mut child = Command::new("sh")
            .args(["-c", "echo runs; read -r never"])
            .env(MARK, directory.path().join("machines/a"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.alive());
        assert!(!identity.ends_within(Duration::ZERO).unwrap());
        assert_eq!(marked(directory.path()), std::slice::from_ref(&identity));
        assert_eq!(marked(Path::new("/nowhere/else")), []);
        assert_eq!(marked(&directory.path().join("machines/b")), []);
        identity.end().unwrap();
        assert!(!identity.alive(), "a zombie is dead");
        assert!(identity.ends_within(Duration::ZERO).unwrap());
        assert!(identity.pidfd().is_none());
        identity.end().unwrap();
        child.wait().unwrap();

        let other = Identity {
            start: 1,
            ..Identity::own().unwrap()
        };
        assert!(!other.alive(), "the number was given to another");
        other.end().unwrap();
    }

    #[test]
    fn consoles_are_made_printable() {
        let text = "one\r\n\u{1b}[1;31mtwo\u{1b}[0m\n\n\u{7}three\n";
        assert_eq!(printable(text, 2), "two\nthree");
        assert_eq!(printable(text, 9), "one\ntwo\nthree");
        assert_eq!(tail(Path::new("/nonexistent"), 3), "");
        let title = "\u{1b}]104\u{1b}\\systemd\r\n\u{1b}]0;a\u{7}b\n\u{1b}]cut\nnext";
        assert_eq!(printable(title, 9), "systemd\nb\nnext");
    }
}
