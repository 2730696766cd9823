//! Which process: its number and the moment it started, so that a reused number isn't mistaken.

use std::fmt;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// A process's number and start time: what a driver writes down to find it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The process's number, in the pid namespace of whoever wrote it down.
    pub pid: u32,
    /// Its start, in clock ticks since the host booted (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
}

impl Identity {
    pub(super) fn rustix_pid(self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (started at tick {})", self.pid, self.start_time)
    }
}

pub(super) fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// A process's number in the innermost pid namespace it is in: the last one of `NSpid`.
pub(super) fn number_of_its_own(pid: u32) -> Option<i64> {
    let status = fs_err::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

/// The part of `/proc/PID/stat` that matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) start_time: u64,
    pub(super) zombie: bool,
    /// The status word of wait(2), readable once the process is a zombie.
    pub(super) exit_status: Option<i32>,
}

impl Stat {
    pub(super) fn of(pid: u32) -> Option<Self> {
        parse(&fs_err::read(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// The second field is the program's name in parentheses and may hold anything, so counting starts at
/// the last closing one.
fn parse(stat: &[u8]) -> Option<Stat> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    Some(Stat {
        start_time: field(22)?.parse().ok()?,
        zombie: matches!(*field(3)?, "Z" | "X"),
        exit_status: field(52).and_then(|status| status.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_name_full_of_traps() {
        let mut line = b"7 (a) Z (b\n) Z".to_vec();
        for field in 4..=52 {
            line.extend(format!(" {field}").bytes());
        }
        assert_eq!(
            parse(&line),
            Some(Stat {
                start_time: 22,
                zombie: true,
                exit_status: Some(52)
            })
        );
        assert_eq!(parse(b"7 (x"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn finds_itself() {
        let stat = Stat::of(std::process::id()).unwrap();
        assert!(!stat.zombie && stat.start_time > 0);
        let pid = std::process::id();
        assert_eq!(number_of_its_own(pid), Some(pid.into()));
    }
}
