//! What happens by time alone.

use super::state::State;

/// Next times of the periodic jobs, on the monotonic clock, s.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    pub(super) shutdown: Option<String>,
}

impl State {
    /// Sets the timers going.
    pub fn start_timers(&mut self) {}

    /// Runs what is due; the monotonic time of the next job.
    pub fn run_timers(&mut self) -> f64 {
        self.clock.mono + 1.0
    }

    /// Why the scheduler should end, if it should.
    pub fn take_shutdown_request(&mut self) -> Option<String> {
        self.timers.shutdown.take()
    }
}
