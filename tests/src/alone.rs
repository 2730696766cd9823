//! One at a time: an emulated cluster wants every core, and two side by side starve each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// The turn of whoever has it, who may wait meanwhile for as long as it takes.
#[derive(Debug)]
pub struct Turn {
    _held: MutexGuard<'static, ()>,
}

/// Waits until no other test of this process holds its turn; a failed one lets go of it.
pub fn alone() -> Turn {
    Turn {
        _held: TURN.lock().unwrap_or_else(PoisonError::into_inner),
    }
}
