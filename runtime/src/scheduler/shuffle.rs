//! Peer-to-peer shuffles.

use super::ids::TaskId;
use super::out::Stimulus;
use super::state::State;
use super::task::TaskStateName;
use crate::protocol::Key;

/// Active shuffles.
#[derive(Debug, Default)]
pub struct Shuffles {}

impl State {
    pub(super) fn shuffle_before_transition(&mut self, _id: TaskId) {}
    pub(super) fn shuffle_after_transition(
        &mut self,
        _key: &Key,
        _finish: TaskStateName,
        _stimulus: Stimulus,
    ) {
    }
    pub(super) fn shuffle_on_remove_worker(&mut self, _address: &str, _stimulus: Stimulus) {}
}
