//! How long the steps of a long test took: said at once, past the test harness's capture, and
//! kept in the file that `KNEST_TIMINGS` names for the end of `make test`.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

/// The steps of one test.
#[derive(Debug)]
pub struct Steps {
    test: &'static str,
}

impl Steps {
    /// For the test of this name.
    #[must_use]
    pub fn of(test: &'static str) -> Self {
        Self { test }
    }

    /// Does one step and says how long it took.
    pub fn step<T>(&self, title: &str, run: impl FnOnce() -> T) -> T {
        let start = self.begin(title);
        let result = run();
        self.end(title, start);
        result
    }

    /// The same for a step that is asynchronous.
    pub async fn during<T>(&self, title: &str, run: impl Future<Output = T>) -> T {
        let start = self.begin(title);
        let result = run.await;
        self.end(title, start);
        result
    }

    fn begin(&self, title: &str) -> Instant {
        self.say(&format!("{} ...", self.line(title)));
        Instant::now()
    }

    fn end(&self, title: &str, start: Instant) {
        let line = format!(
            "{} {:6.1} s",
            self.line(title),
            start.elapsed().as_secs_f64()
        );
        self.say(&line);
        record(&format!("{line}\n"));
    }

    fn line(&self, title: &str) -> String {
        format!("{}: {title:<44}", self.test)
    }

    /// A person who waits for minutes wants to see this now, not when the test has failed.
    #[expect(clippy::unused_self, reason = "reads as what it is: the steps speak")]
    fn say(&self, line: &str) {
        let written = writeln!(std::io::stderr(), "{line}");
        drop(written);
    }
}

/// Adds lines to the file that `KNEST_TIMINGS` names, if it names one.
pub fn record(lines: &str) {
    let Some(path) = std::env::var_os("KNEST_TIMINGS") else {
        return;
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(lines.as_bytes())) {
        println!("KNEST_TIMINGS: {error}");
    }
}
