//! What a program uses of the machine, as the kernel counts it.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use fs_err as fs;

/// How often it is looked at: what it does in the last moment may be missed.
const INTERVAL: Duration = Duration::from_millis(20);

/// What the kernel counts a program's time in, whatever its own clock does: USER_HZ, 100 a second.
const TICK: Duration = Duration::from_millis(10);

/// From a program's start to its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// By the clock.
    pub time: Duration,
    /// Of all processors, in user and system mode.
    pub processor: Duration,
    /// Bytes of memory at its peak.
    pub memory: u64,
}

impl Usage {
    /// Waits for a program's end. Blocks.
    ///
    /// # Panics
    ///
    /// When it still runs after `limit`; it is killed then.
    pub fn of(child: &mut Child, limit: Duration) -> (ExitStatus, Self) {
        let start = Instant::now();
        let mut usage = Self::default();
        loop {
            usage.look(child.id());
            if let Some(status) = child.try_wait().expect("a child's status") {
                usage.time = start.elapsed();
                return (status, usage);
            }
            if start.elapsed() > limit {
                drop(child.kill());
                drop(child.wait());
                panic!("still running after {limit:?}; used {usage:?}");
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// One that has ended has nothing more to show.
    fn look(&mut self, process: u32) {
        let read = |name| fs::read_to_string(format!("/proc/{process}/{name}"));
        if let Some(processor) = read("stat").ok().and_then(|text| processor(&text)) {
            self.processor = processor;
        }
        if let Some(memory) = read("status").ok().and_then(|text| memory(&text)) {
            self.memory = memory;
        }
    }
}

/// `utime` and `stime` of proc_pid_stat(5), the 14th and 15th field; the second may hold blanks.
fn processor(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * (ticks()? + ticks()?))
}

fn memory(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes = line.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(processor(stat), Some(Duration::from_secs(2)));
        assert_eq!(memory("Name:\tx\nVmHWM:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!((processor(""), memory("")), (None, None));
    }

    #[test]
    fn a_program_is_seen_to_its_end() {
        let mut child = std::process::Command::new("sleep")
            .arg("0.1")
            .spawn()
            .unwrap();
        let (status, usage) = Usage::of(&mut child, Duration::from_secs(30));
        assert!(status.success());
        assert!(usage.time >= Duration::from_millis(100), "{usage:?}");
        assert!(usage.memory > 0, "{usage:?}");
    }
}
