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

    /// Entries that touch one of the keys; a key of text may also be a stimulus.
    pub fn story<'a>(&'a self, names: &'a [Key]) -> impl Iterator<Item = &'a Transition> {
        // Parsed once: the log is long, and formatting each entry's stimulus would take a while.
        let stimuli: Vec<(&str, f64)> = names.iter().filter_map(stimulus_of).collect();
        self.entries.iter().filter(move |t| {
            names.contains(&t.key)
                || stimuli
                    .iter()
                    .any(|(kind, time)| *kind == t.stimulus.kind && *time == t.stimulus.time)
                || t.recommendations.iter().any(|(k, _)| names.contains(k))
        })
    }
}

/// What a stimulus was made of, if the text looks like one: `task-finished-1700000000.5`.
fn stimulus_of(name: &Key) -> Option<(&str, f64)> {
    let (kind, time) = name.as_str()?.rsplit_once('-')?;
    Some((kind, time.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_are_found_by_key_and_by_stimulus() {
        let mut log = TransitionLog::new(10);
        let [a, b] = ["a", "b"].map(Key::new_str);
        let stimulus = |time| Stimulus {
            kind: "update-graph",
            time,
        };
        let (from, to) = (TaskStateName::Released, TaskStateName::Waiting);
        let recommended = SmallVec::from_iter([(b.clone(), to)]);
        log.push(a.clone(), from, to, recommended, stimulus(1.5), 1.5);
        log.push(b.clone(), from, to, SmallVec::new(), stimulus(2.5), 2.5);
        let count = |name: &Key| log.story(std::slice::from_ref(name)).count();
        assert_eq!((count(&a), count(&b)), (1, 2));
        let text = stimulus(2.5).to_string();
        assert_eq!(count(&Key::new_str(&text)), 1);
        assert_eq!(count(&Key::new_str("update-graph-7")), 0);
    }
}
