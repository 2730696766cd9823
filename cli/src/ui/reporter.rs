//! Progress of long work: one line a step, with a spinner on a terminal, plain lines elsewhere,
//! one JSON object an event for programs. Everything goes to standard error, so that standard
//! output stays the answer.

use super::printer::Output;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

/// What steps and providers tell of their progress.
pub(crate) trait Reporter: Send + Sync {
    /// A step begins.
    fn started(&self, title: &str);
    /// The last thing seen while waiting: `1 of 2 nodes Ready`.
    fn detail(&self, text: &str);
    /// Bytes done of bytes to do.
    fn bytes(&self, done: u64, total: u64);
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
        Output::Json => Box::new(Json),
        Output::Table if std::io::stderr().is_terminal() => Box::new(Terminal::default()),
        Output::Table => Box::new(Plain::default()),
    }
}

struct Silent;

impl Reporter for Silent {
    fn started(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn bytes(&self, _: u64, _: u64) {}
    fn finished(&self, _: &str, _: Outcome, _: Duration) {}
}

/// A spinner that becomes a mark.
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
        if let Ok(style) = ProgressStyle::with_template(" {spinner} {wide_msg} {elapsed:>5}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        if let Ok(mut slot) = self.bar.lock() {
            *slot = Some((bar, title.to_owned()));
        }
    }
    fn detail(&self, text: &str) {
        self.with(|bar, title| bar.set_message(format!("{title}: {text}")));
    }
    fn bytes(&self, done: u64, total: u64) {
        self.with(|bar, title| bar.set_message(format!("{title}: {}", of(done, total))));
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
        // Tenths are enough where lines stay.
        let tenth = done.saturating_mul(10).checked_div(total).unwrap_or(10);
        self.detail(&format!("{} % of {} MiB", tenth * 10, total >> 20));
    }
    fn finished(&self, title: &str, outcome: Outcome, elapsed: Duration) {
        say(&line(title, outcome, elapsed));
    }
}

/// One object an event.
struct Json;

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
        self.event(&serde_json::json!({"event": "bytes", "done": done, "total": total}));
    }
    fn finished(&self, title: &str, outcome: Outcome, elapsed: Duration) {
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

fn of(done: u64, total: u64) -> String {
    format!("{} of {} MiB", done >> 20, total >> 20)
}

/// Progress that can't be written is no reason to stop the work.
fn say(line: &str) {
    drop(writeln!(anstream::stderr(), "{line}"));
}
