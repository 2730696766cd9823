//! Clocks, medians and the table of figures and bars.

use std::fmt;
use std::time::Instant;

use crate::Result;

/// How often everything short is measured.
pub(crate) const RUNS: usize = 7;

/// Something to time; it prepares before the clock runs and cleans up behind it.
pub(crate) type Subject<'a> = &'a mut dyn FnMut() -> Result<f64>;

/// The medians of all subjects, in seconds. They take turns, so that what else the machine does
/// meets them alike; a first round, in which caches and pages are cold, does not count.
pub(crate) fn medians<const N: usize>(
    runs: usize,
    mut subjects: [Subject<'_>; N],
) -> Result<[f64; N]> {
    let mut times = [const { Vec::new() }; N];
    for run in 0..=runs {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let time = subject()?;
            if run > 0 {
                times.push(time);
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}

/// Seconds that a function takes.
pub(crate) fn timed<T, E: Into<Box<dyn std::error::Error>>>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<f64> {
    let start = Instant::now();
    work().map_err(Into::into)?;
    Ok(start.elapsed().as_secs_f64())
}

/// The figures.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

struct Row {
    figure: String,
    found: String,
    bar: String,
    missed: bool,
}

impl Table {
    /// A number that must not be larger than the bar.
    pub(crate) fn at_most(&mut self, figure: &str, value: f64, bar: f64, unit: &str, how: &str) {
        let row = Row {
            figure: figure.into(),
            found: format!("{value:.2} {unit}  ({how})"),
            bar: format!("<= {bar} {unit}"),
            missed: value > bar,
        };
        self.push(row);
    }

    /// A number that must not be smaller than the bar.
    pub(crate) fn at_least(&mut self, figure: &str, value: f64, bar: f64, unit: &str, how: &str) {
        let row = Row {
            figure: figure.into(),
            found: format!("{value:.1} {unit}  ({how})"),
            bar: format!(">= {bar} {unit}"),
            missed: value < bar,
        };
        self.push(row);
    }

    pub(crate) fn skip(&mut self, figure: &str, reason: &str) {
        let row = Row {
            figure: figure.into(),
            found: format!("SKIP: {reason}"),
            bar: String::new(),
            missed: false,
        };
        self.push(row);
    }

    pub(crate) fn missed(&self) -> bool {
        self.0.iter().any(|row| row.missed)
    }

    /// Said at once too: the next row may take minutes.
    fn push(&mut self, row: Row) {
        println!("{row}");
        self.0.push(row);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.bar.is_empty(), self.missed) {
            (true, _) => "",
            (false, true) => "MISSED ",
            (false, false) => "met ",
        };
        write!(
            f,
            "{:<52} {:<58} {verdict}{}",
            self.figure, self.found, self.bar
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        self.0.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
