//! Progress of long work: one line a step, with a spinner on a terminal, plain lines elsewhere,
//! one JSON object an event for programs. Everything goes to standard error, so that standard
//! output stays the answer.

use super::printer::Output;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What steps and providers tell of their progress.
pub(crate) trait Reporter: Send + Sync {
    /// A step begins.
    fn started(&self, title: &str);
    /// The last thing seen while waiting: `1 of 2 nodes Ready`.
    fn detail(&self, text: &str);
    /// Bytes done of bytes to do.
    fn bytes(&self, done: u64, total: u64);
    /// A line of what another program says of the step.
    fn log(&self, line: &str);
    /// The step ended.
    fn finished(&self, title: &str, outcome: Outcome, elapsed: Duration);
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// It had been done before.
    Skipped,
    Failed,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
    fn mark(self) -> &'static str {
        match self {
            Self::Done => "✓",
            Self::Skipped => "-",
            Self::Failed => "✗",
        }
    }
}

/// The reporter for an output format and the terminal at hand.
pub(crate) fn reporter(output: Output, quiet: bool) -> Box<dyn Reporter> {
    match output {
        _ if quiet => Box::new(Silent),
        Output::Json => Box::new(Json::default()),
        Output::Table if std::io::stderr().is_terminal() => Box::new(Terminal::default()),
        Output::Table => Box::new(Plain::default()),
    }
}

/// Reports what is done as a step of its own: when it begins, and how it ended.
pub(crate) async fn step<T, E>(
    reporter: &dyn Reporter,
    title: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let began = Instant::now();
    reporter.started(title);
    let done = work.await;
    let outcome = match &done {
        Ok(_) => Outcome::Done,
        Err(_) => Outcome::Failed,
    };
    reporter.finished(title, outcome, began.elapsed());
    done
}

struct Silent;

impl Reporter for Silent {
    fn started(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn bytes(&self, _: u64, _: u64) {}
    fn log(&self, _: &str) {}
    fn finished(&self, _: &str, _: Outcome, _: Duration) {}
}

/// A step that waits, and one that knows how much there is to do.
const SPINNER: &str = " {spinner} {wide_msg} {elapsed:>5}";
const BAR: &str =
    " {spinner} {msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

fn restyle(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// A spinner, or a bar, that becomes a mark.
#[derive(Default)]
struct Terminal {
    bar: Mutex<Option<(ProgressBar, String)>>,
}

impl Terminal {
    fn with(&self, act: impl FnOnce(&ProgressBar, &str)) {
        if let Ok(guard) = self.bar.lock()
            && let Some((bar, title)) = guard.as_ref()
        {
            act(bar, title);
        }
    }
}

impl Reporter for Terminal {
    fn started(&self, title: &str) {
        let bar = ProgressBar::new_spinner().with_message(title.to_owned());
        restyle(&bar, SPINNER);
        bar.enable_steady_tick(Duration::from_millis(100));
        if let Ok(mut slot) = self.bar.lock() {
            *slot = Some((bar, title.to_owned()));
        }
    }
    fn detail(&self, text: &str) {
        self.with(|bar, title| {
            if bar.length().is_some() {
                bar.unset_length();
                restyle(bar, SPINNER);
            }
            bar.set_message(format!("{title}: {text}"));
        });
    }
    fn bytes(&self, done: u64, total: u64) {
        self.with(|bar, title| {
            if bar.length().is_none() {
                // The rate is that of the bytes, not of what came before.
                bar.reset_eta();
                restyle(bar, BAR);
                bar.set_message(title.to_owned());
            }
            bar.set_length(total);
            bar.set_position(done);
        });
    }
    fn log(&self, line: &str) {
        self.with(|bar, _| bar.suspend(|| say(&format!("   {line}"))));
    }
    fn finished(&self, title: &str, outcome: Outcome, elapsed: Duration) {
        let bar = self.bar.lock().ok().and_then(|mut slot| slot.take());
        let line = line(title, outcome, elapsed);
        match bar {
            Some((bar, _)) => {
                bar.finish_and_clear();
                say(&line);
            }
            None => say(&line),
        }
    }
}

/// Lines only, and a new one for a detail only when it says something new.
#[derive(Default)]
struct Plain {
    last: Mutex<String>,
    pace: Mutex<Option<Pace>>,
}

impl Reporter for Plain {
    fn started(&self, title: &str) {
        say(&format!(" • {title} …"));
    }
    fn detail(&self, text: &str) {
        if let Ok(mut last) = self.last.lock()
            && *last != text
        {
            text.clone_into(&mut last);
            say(&format!("   {text}"));
        }
    }
    fn bytes(&self, done: u64, total: u64) {
        if let Ok(mut pace) = self.pace.lock()
            && let Some(line) = pace.get_or_insert_with(Pace::new).line(done, total)
        {
            say(&format!("   {line}"));
        }
    }
    fn log(&self, line: &str) {
        say(&format!("   {line}"));
    }
    fn finished(&self, title: &str, outcome: Outcome, elapsed: Duration) {
        if let Ok(mut pace) = self.pace.lock() {
            *pace = None;
        }
        say(&line(title, outcome, elapsed));
    }
}

/// How fast bytes come, told a tenth at a time: that is enough where lines stay.
struct Pace {
    began: Instant,
    tenth: Option<u64>,
}

impl Pace {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            tenth: None,
        }
    }

    /// `30 % of 680 MiB, 45.0 MiB/s, 10 s left`, when that is another tenth than the last.
    fn line(&mut self, done: u64, total: u64) -> Option<String> {
        let tenth = done
            .saturating_mul(10)
            .checked_div(total)
            .unwrap_or(10)
            .min(10);
        if self.tenth == Some(tenth) {
            return None;
        }
        self.tenth = Some(tenth);
        let so_far = format!("{} % of {} MiB", tenth * 10, total >> 20);
        let (rate, left) = pace(done, total, self.began.elapsed());
        Some(match left {
            // The first bytes say nothing about the rest.
            Some(left) if tenth > 0 => {
                format!(
                    "{so_far}, {:.1} MiB/s, {left:.0} s left",
                    rate / f64::from(1 << 20)
                )
            }
            _ => so_far,
        })
    }
}

/// Bytes a second, and the seconds that are left at that rate.
fn pace(done: u64, total: u64, elapsed: Duration) -> (f64, Option<f64>) {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let (done, left) = (done as f64, total.saturating_sub(done) as f64);
    let rate = done / elapsed.as_secs_f64().max(0.001);
    (rate, (rate > 0.0).then(|| left / rate))
}

/// One object an event.
#[derive(Default)]
struct Json {
    began: Mutex<Option<Instant>>,
}

impl Json {
    fn event(&self, event: &serde_json::Value) {
        say(&event.to_string());
    }
}

impl Reporter for Json {
    fn started(&self, title: &str) {
        self.event(&serde_json::json!({"event": "started", "step": title}));
    }
    fn detail(&self, text: &str) {
        self.event(&serde_json::json!({"event": "detail", "text": text}));
    }
    fn bytes(&self, done: u64, total: u64) {
        let elapsed = self
            .began
            .lock()
            .ok()
            .map(|mut began| began.get_or_insert_with(Instant::now).elapsed());
        let (rate, left) = pace(done, total, elapsed.unwrap_or_default());
        self.event(&serde_json::json!({
            "event": "bytes", "done": done, "total": total,
            "bytesPerSecond": rate.round(), "secondsLeft": left,
        }));
    }
    fn log(&self, line: &str) {
        self.event(&serde_json::json!({"event": "log", "text": line}));
    }
    fn finished(&self, title: &str, outcome: Outcome, elapsed: Duration) {
        if let Ok(mut began) = self.began.lock() {
            *began = None;
        }
        self.event(&serde_json::json!({
            "event": "finished", "step": title, "outcome": outcome.word(),
            "seconds": elapsed.as_secs_f64(),
        }));
    }
}

fn line(title: &str, outcome: Outcome, elapsed: Duration) -> String {
    let suffix = match outcome {
        Outcome::Done => format!(" ({:.1} s)", elapsed.as_secs_f64()),
        Outcome::Skipped => " (was done)".into(),
        Outcome::Failed => format!(" (failed after {:.1} s)", elapsed.as_secs_f64()),
    };
    format!(" {} {title}{suffix}", outcome.mark())
}

/// Progress that can't be written is no reason to stop the work.
fn say(line: &str) {
    drop(writeln!(anstream::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_a_tenth_at_a_time() {
        let mut pace = Pace::new();
        let mebibyte = 1 << 20;
        let first = pace.line(mebibyte, 100 * mebibyte).unwrap();
        assert_eq!(first, "0 % of 100 MiB");
        assert_eq!(pace.line(9 * mebibyte, 100 * mebibyte), None);
        let second = pace.line(10 * mebibyte, 100 * mebibyte).unwrap();
        assert!(second.starts_with("10 % of 100 MiB, "), "{second}");
        assert!(second.ends_with(" s left"), "{second}");
        // More than was promised is no more than all.
        assert!(pace.line(u64::MAX, 1).unwrap().starts_with("100 %"));
    }

    #[test]
    fn the_rate_says_how_long() {
        let (rate, left) = super::pace(50, 150, Duration::from_secs(5));
        assert_eq!((rate, left), (10.0, Some(10.0)));
        assert_eq!(super::pace(0, 150, Duration::from_secs(5)).1, None);
    }
}
