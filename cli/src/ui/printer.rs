//! Answers: standard output for what was asked, standard error for all else. The only place that
//! writes to either, progress apart.

use crate::failure::{Context, Failure, Result};
use std::io::Write;

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Writes answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    pub(crate) output: Output,
    /// Errors and answers only.
    pub(crate) quiet: bool,
}

impl Printer {
    /// An answer, to standard output as it is.
    pub(crate) fn answer(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // Whoever read us has read enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.host("writing the answer"),
        }
    }

    /// An answer for a program.
    pub(crate) fn json(&self, value: &serde_json::Value) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Failure::internal("rendering JSON").because(e))?;
        self.answer(&format!("{text}\n"))
    }

    /// Something that a person may like to know.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && self.output == Output::Table {
            drop(writeln!(anstream::stderr(), "{text}"));
        }
    }

    /// The words before an answer that is read from the terminal.
    pub(crate) fn prompt(&self, text: &str) {
        let mut terminal = anstream::stderr();
        drop(
            terminal
                .write_all(text.as_bytes())
                .and_then(|()| terminal.flush()),
        );
    }

    /// A failure, with its evidence and hints.
    pub(crate) fn failure(&self, failure: &Failure) {
        let text = match self.output {
            Output::Table => failure.render(),
            Output::Json => format!("{}\n", serde_json::json!({"error": failure.json()})),
        };
        drop(anstream::stderr().write_all(text.as_bytes()));
    }
}
