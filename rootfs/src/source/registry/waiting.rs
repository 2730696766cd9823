//! How often a request that fails is tried again, and after which pauses.

use std::time::{Duration, Instant};

use super::options::Patience;
use super::problem::RegistryProblem as Problem;
use super::session::Session;

/// How long something has been tried without getting on.
pub(super) struct Waiting {
    /// Attempts that may end without a connection.
    connections: u32,
    patience: Patience,
    since: Instant,
    attempts: u32,
    pause: Duration,
}

impl Waiting {
    /// Begins now; so many attempts may end without a connection.
    pub(super) fn new(patience: Patience, connections: u32) -> Waiting {
        Waiting {
            connections,
            patience,
            since: Instant::now(),
            attempts: 0,
            pause: patience.pause,
        }
    }

    /// There was progress: patience starts anew.
    pub(super) fn progress(&mut self) {
        self.since = Instant::now();
        self.attempts = 0;
        self.pause = self.patience.pause;
    }

    /// Waits until the next attempt makes sense, or fails with what happened.
    pub(super) fn wait(&mut self, session: &Session, problem: Problem) -> Result<(), Problem> {
        self.attempts += 1;
        if !problem.may_pass() {
            return Err(problem);
        }
        let patience = &self.patience;
        let pause = problem.retry_after().unwrap_or(self.pause);
        self.pause = (self.pause * 2).min(patience.pause * 64);
        let unreachable =
            matches!(problem, Problem::Connection { .. }) && self.attempts >= self.connections;
        if unreachable || self.since.elapsed() + pause > patience.total {
            return Err(Problem::GivenUp {
                attempts: self.attempts,
                seconds: self.since.elapsed().as_secs(),
                last: Box::new(problem),
            });
        }
        session.block_on(session.transport().pause(pause))
    }
}
