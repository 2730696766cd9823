//! The event file, read from its beginning, and what it says of a VM so far.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Event, EventKind, Parser};
use crate::error::{Error, Result};

/// Reads an event file piece by piece.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    offset: u64,
    parser: Parser,
    history: History,
}

/// What the events so far say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Whether the VM has booted since it was created; it is off again if it now counts as created.
    pub has_booted: bool,
    /// Reboots since Cloud Hypervisor started, the guest's own and `vm.reboot`.
    pub reboots: u64,
    /// When the last few reboots happened, oldest first, since Cloud Hypervisor started.
    pub recent_reboots: Vec<Duration>,
    /// Panics that the guest reported through pvpanic.
    pub panics: u64,
}

/// Reboots whose times are kept.
const RECENT: usize = 32;
/// What is read at a time.
const PIECE: u64 = 64 * 1024;

impl History {
    fn add(&mut self, event: &Event) {
        match event.kind {
            EventKind::Booted | EventKind::Restored | EventKind::MigrationReceiveFinished => {
                self.has_booted = true;
            }
            EventKind::Deleted => self.has_booted = false,
            EventKind::Rebooted => {
                self.reboots += 1;
                if self.recent_reboots.len() == RECENT {
                    self.recent_reboots.remove(0);
                }
                self.recent_reboots.push(event.at);
            }
            EventKind::GuestPanic { .. } => self.panics += 1,
            _ => {}
        }
    }

    /// Whether the last `count` reboots (32 at most) happened within `span`.
    #[must_use]
    pub fn reboots_in_a_loop(&self, count: usize, span: Duration) -> bool {
        let count = count.clamp(1, RECENT);
        let first = self.recent_reboots.len().checked_sub(count);
        let first = first.and_then(|index| self.recent_reboots.get(index));
        match (first, self.recent_reboots.last()) {
            (Some(first), Some(last)) => last.saturating_sub(*first) <= span,
            _ => false,
        }
    }
}

impl EventLog {
    /// The file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            offset: 0,
            parser: Parser::default(),
            history: History::default(),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The events that came since the last call.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        let fail = |source| Error::io(format!("read events of {}", self.path.display()), source);
        let mut file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fail(error)),
        };
        if file.metadata().map_err(fail)?.len() < self.offset {
            // A new Cloud Hypervisor began the file anew.
            *self = Self::new(std::mem::take(&mut self.path));
        }
        let fail = |source| Error::io("read events", source);
        file.seek(SeekFrom::Start(self.offset)).map_err(fail)?;
        let mut events = Vec::new();
        loop {
            let mut piece = Vec::new();
            let size = (&mut file)
                .take(PIECE)
                .read_to_end(&mut piece)
                .map_err(fail)?;
            if size == 0 {
                break;
            }
            self.offset += size as u64;
            events.extend(self.parser.push(&piece));
        }
        events.iter().for_each(|event| self.history.add(event));
        Ok(events)
    }

    /// What the events read so far say.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(event: &str, secs: u64) -> String {
        format!(
            "{{\"timestamp\":{{\"secs\":{secs},\"nanos\":0}},\"source\":\"vm\",\"event\":\"{event}\"}}\n\n"
        )
    }

    #[test]
    fn follows_a_file_that_grows_and_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut log = EventLog::new(&path);
        assert!(log.read().unwrap().is_empty());
        let mut file = std::fs::File::create(&path).unwrap();
        write!(file, "{}{}", line("booted", 1), line("rebooted", 2)).unwrap();
        assert_eq!(log.read().unwrap().len(), 2);
        write!(file, "{}", line("rebooted", 3)).unwrap();
        assert_eq!(log.read().unwrap().len(), 1);
        assert_eq!(log.history().reboots, 2);
        assert!(log.history().has_booted);
        std::fs::write(&path, line("booting", 0)).unwrap();
        assert_eq!(log.read().unwrap().len(), 1);
        assert_eq!(log.history(), &History::default());
    }

    #[test]
    fn tells_a_loop_from_two_reboots_a_day() {
        let mut history = History::default();
        let reboot = |secs| Event {
            at: Duration::from_secs(secs),
            kind: EventKind::Rebooted,
        };
        for secs in [10, 86_000] {
            history.add(&reboot(secs));
        }
        assert!(!history.reboots_in_a_loop(3, Duration::from_secs(60)));
        for secs in [86_010, 86_020] {
            history.add(&reboot(secs));
        }
        assert!(history.reboots_in_a_loop(3, Duration::from_secs(60)));
        assert!(!history.reboots_in_a_loop(4, Duration::from_secs(60)));
    }
}
