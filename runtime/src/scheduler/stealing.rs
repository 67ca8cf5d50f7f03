//! Work stealing.

use super::ids::{PrefixId, TaskId};
use super::state::State;

/// Books of work stealing.
#[derive(Debug, Default)]
pub struct Stealing {}

impl Stealing {
    /// No task is stealable yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl State {
    pub(super) fn stealing_on_processing(&mut self, _id: TaskId) {}
    pub(super) fn stealing_on_leave_processing(&mut self, _id: TaskId) {}
    pub(super) fn stealing_on_duration_learned(&mut self, _prefix: PrefixId) {}
    pub(super) fn stealing_on_remove_worker(&mut self, _w: super::ids::WorkerId) {}

    /// A worker answers a steal request.
    pub fn handle_steal_response(
        &mut self,
        _w: super::ids::WorkerId,
        _key: &[u8],
        _state: Option<&str>,
        _stimulus: &str,
    ) {
    }
}
