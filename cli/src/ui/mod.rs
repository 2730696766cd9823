//! The terminal: what is printed, how, and by whom. Steps and providers see `Reporter` alone.

mod printer;
mod reporter;
mod table;

pub(crate) use printer::{Output, Printer};
pub(crate) use reporter::{Outcome, Reporter, reporter, step};
pub(crate) use table::Table;
