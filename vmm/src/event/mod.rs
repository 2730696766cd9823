//! What Cloud Hypervisor reports by itself: `--event-monitor path=FILE`, a stream of JSON objects.
//!
//! Events are hints, and the truth is `vm.info` and the process's exit: `booting` and its like come
//! before a call is checked, failures are not reported, and a killed process reports nothing. Into a
//! regular file nothing is dropped, and the file outlives every driver. Cloud Hypervisor truncates it
//! when it starts.

mod kind;
mod log;
mod parser;

pub use kind::{Event, EventKind};
pub use log::{EventLog, History};
pub use parser::Parser;
