//! Checks of everything the scheduler believes: `distributed`'s own `validate_*` rules and this core's books.
//!
//! Far too slow for production; tests and the simulation call [`State::validate`] after every event.

mod groups;
mod stories;
mod tasks;
mod workers;

use super::state::State;

/// Gives up with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
use ensure;

/// What is wrong, in words.
pub type Violation = String;

impl State {
    /// Checks every invariant that must hold between two events.
    ///
    /// # Errors
    /// Says which invariant does not hold, for which object.
    pub fn validate(&self) -> Result<(), Violation> {
        ensure!(
            self.recs.is_empty(),
            "{} recommendations were left behind",
            self.recs.len()
        );
        self.validate_arena()?;
        for (id, task) in self.all_tasks() {
            self.validate_task(id, task)
                .map_err(|e| format!("task {} ({}): {e}", task.key, task.state.as_str()))?;
        }
        for (id, worker) in self.all_workers() {
            self.validate_worker(id, worker)
                .map_err(|e| format!("worker {} ({id:?}): {e}", worker.info.address))?;
        }
        self.validate_gone_workers()?;
        self.validate_cluster()?;
        self.validate_groups()?;
        self.validate_prefixes()?;
        self.validate_clients()?;
        self.validate_progress()
    }
}
