//! The log of transitions, read by `Client.story`.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::out::Stimulus;
use super::task::TaskStateName;
use crate::protocol::Key;

/// One transition.
#[derive(Clone, Debug)]
pub struct Transition {
    /// The task.
    pub key: Key,
    /// State before.
    pub start: TaskStateName,
    /// State after.
    pub finish: TaskStateName,
    /// What it recommended, the first few.
    pub recommendations: SmallVec<[(Key, TaskStateName); 4]>,
    /// Cause.
    pub stimulus: Stimulus,
    /// When, s since the epoch.
    pub time: f64,
}

/// The last transitions.
#[derive(Debug)]
pub struct TransitionLog {
    entries: VecDeque<Transition>,
    length: usize,
}

impl TransitionLog {
    /// A log of `length` entries.
    pub fn new(length: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            length,
        }
    }

    pub(super) fn push(
        &mut self,
        key: Key,
        start: TaskStateName,
        finish: TaskStateName,
        recommendations: SmallVec<[(Key, TaskStateName); 4]>,
        stimulus: Stimulus,
        time: f64,
    ) {
        if self.length == 0 {
            return;
        }
        if self.entries.len() >= self.length {
            self.entries.pop_front();
        }
        self.entries.push_back(Transition {
            key,
            start,
            finish,
            recommendations,
            stimulus,
            time,
        });
    }

    /// All entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Transition> {
        self.entries.iter()
    }

    /// Entries that touch one of the keys (as text) or stimuli.
    pub fn story<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a Transition> {
        self.entries.iter().filter(move |t| {
            let stimulus = t.stimulus.to_string();
            names.contains(&t.key.to_string())
                || names.contains(&stimulus)
                || t.recommendations
                    .iter()
                    .any(|(k, _)| names.contains(&k.to_string()))
        })
    }
}
