//! The engine of task transitions: recommendations processed last in, first out until none is left.

use super::ids::TaskId;
use super::out::{Out, Stimulus, ToClient, ToWorker};
use super::state::State;
use super::task::{Failure, TaskStateName};
use crate::protocol::Key;
use std::sync::Arc;

use TaskStateName::{Erred, Forgotten, Memory, NoWorker, Processing, Queued, Released, Waiting};

/// Why and how a task goes to `erred`.
#[derive(Clone, Debug, Default)]
pub(super) struct ErredArgs {
    /// The worker it failed on.
    pub worker: Option<Arc<str>>,
    /// The task that failed, if known by this event.
    pub cause: Option<TaskId>,
    /// The failure, if known by this event.
    pub failure: Option<Arc<Failure>>,
}

impl State {
    /// Recommends a transition. A task that has a recommendation keeps its place and gets the new target, unless it is
    /// to be forgotten: nothing in the same event can make it needed again.
    #[inline]
    pub(super) fn recommend(&mut self, id: TaskId, target: TaskStateName) {
        let at = self.task(id).rec_at;
        if at == u32::MAX {
            let at = self.recs.len() as u32;
            self.recs.push((id, target));
            self.task_mut(id).rec_at = at;
        } else if self.recs[at as usize].1 != Forgotten {
            self.recs[at as usize].1 = target;
        }
    }

    /// Recommends to release a dependency that nobody needs any more. One that failed, or is about to, stays failed:
    /// releasing it would run it and its dependents again.
    pub(super) fn release_if_unneeded(&mut self, dep: TaskId) {
        let task = self.task(dep);
        if task.unneeded() && task.state != Erred && self.recommended(dep) != Some(Erred) {
            self.recommend(dep, Released);
        }
    }

    /// The target recommended for a task.
    pub(super) fn recommended(&self, id: TaskId) -> Option<TaskStateName> {
        let at = self.task(id).rec_at;
        (at != u32::MAX).then(|| self.recs[at as usize].1)
    }

    /// Withdraws a recommendation (rare: scans).
    pub(super) fn unrecommend(&mut self, id: TaskId) {
        let at = self.task(id).rec_at;
        if at != u32::MAX {
            self.recs.remove(at as usize);
            self.task_mut(id).rec_at = u32::MAX;
            for i in at as usize..self.recs.len() {
                let moved = self.recs[i].0;
                self.task_mut(moved).rec_at = i as u32;
            }
        }
    }

    /// Processes recommendations until none is left.
    pub(super) fn run_transitions(&mut self, stimulus: Stimulus) {
        while let Some((id, target)) = self.recs.pop() {
            self.task_mut(id).rec_at = u32::MAX;
            self.transition(id, target, stimulus, &ErredArgs::default());
        }
    }

    /// Moves one task, as far as the rules let it go now; what follows for others is recommended.
    pub(super) fn transition(
        &mut self,
        id: TaskId,
        target: TaskStateName,
        stimulus: Stimulus,
        args: &ErredArgs,
    ) {
        let start = self.task(id).state;
        if start == target {
            if start == Erred {
                self.pass_blame_on(id);
            }
            return;
        }
        self.transition_counter += 1;
        let recs_before = self.recs.len();
        let key = self.task(id).key.clone();
        let logged_start = match (start, target) {
            (Released, Waiting) => self.released_waiting(id, start),
            (Waiting, Released) => {
                self.clear_blame(id);
                self.waiting_released(id, start)
            }
            (Waiting, Erred) => {
                // Its blame is set: it does not go back to waiting.
                self.waiting_released(id, start);
                match self.recommended(id) {
                    Some(Forgotten) => Released,
                    _ => self.released_erred(id, Released),
                }
            }
            (Waiting, Processing) => self.waiting_processing(id, start, stimulus),
            (Waiting, NoWorker) => self.waiting_no_worker(id, start),
            (Waiting, Queued) => self.waiting_queued(id, start),
            // The only copy was believed lost, yet a result arrives: it will be freed and computed again.
            (Waiting, Memory) => start,
            (Queued, Released) => {
                self.queue_remove(id);
                self.propagate_released(id);
                start
            }
            (Queued, Processing) => {
                if let Some(w) = self.take_worker_for_queued(id) {
                    self.queue_remove(id);
                    self.add_to_processing(id, w, stimulus);
                }
                start
            }
            (Queued, Erred) => {
                self.queue_remove(id);
                self.propagate_erred(id, args);
                start
            }
            (NoWorker, Released) => {
                self.unrunnable.remove(id);
                self.propagate_released(id);
                start
            }
            (NoWorker, Processing) => {
                if let Some(w) = self.decide_worker_non_rootish(id) {
                    self.unrunnable.remove(id);
                    self.add_to_processing(id, w, stimulus);
                }
                start
            }
            (NoWorker, Erred) => {
                self.unrunnable.remove(id);
                self.propagate_erred(id, args);
                start
            }
            (Processing, Released) => self.processing_released(id, start, stimulus),
            (Processing, Erred) => self.processing_erred(id, start, stimulus, args),
            (Memory, Released) => self.memory_released(id, start, stimulus),
            (Memory, Erred) => self.memory_erred(id, start, stimulus),
            (Memory, Forgotten) | (Released, Forgotten) => self.forget(id, start, stimulus),
            (Released, Erred) => self.released_erred(id, start),
            (Erred, Released) => self.erred_released(id, start, stimulus),
            (s, t) if s != Released && t != Released => {
                // Any other pair goes through released; what released recommends for the task itself wins.
                self.transition(id, Released, stimulus, &ErredArgs::default());
                if self.tasks[id.0 as usize]
                    .as_ref()
                    .is_none_or(|task| task.key != key)
                {
                    return;
                }
                let then = self.recommended(id).unwrap_or(target);
                if self.task(id).state == Released {
                    match then {
                        Waiting => self.released_waiting(id, Released),
                        Erred => self.released_erred(id, Released),
                        Forgotten => self.forget(id, Released, stimulus),
                        _ => Released,
                    }
                } else {
                    Released
                }
            }
            (s, t) => {
                tracing::error!(key = %key, from = s.as_str(), to = t.as_str(), "impossible transition ignored");
                s
            }
        };
        let finish = match self.tasks[id.0 as usize].as_ref() {
            Some(task) => task.state,
            None => Forgotten,
        };
        self.shuffle_after_transition(&key, finish, stimulus);
        self.metadata_transition(&key, finish);
        self.tap_transition(&key, logged_start, finish, stimulus, None);
        let recs = self.recs.get(recs_before..).unwrap_or(&[]);
        let recs = recs
            .iter()
            .take(4)
            .map(|(t, s)| (self.task(*t).key.clone(), *s))
            .collect();
        self.transition_log
            .push(key, logged_start, finish, recs, stimulus, self.clock.wall);
    }

    // ---- messages

    pub(super) fn send_worker(&mut self, w: super::ids::WorkerId, msg: ToWorker) {
        self.out.push(Out::Worker(w, msg));
    }

    pub(super) fn send_client(&mut self, c: super::ids::ClientId, msg: ToClient) {
        self.out.push(Out::Client(c, msg));
    }

    pub(super) fn send_free_key(&mut self, w: super::ids::WorkerId, key: Key, stimulus: Stimulus) {
        // Neighbouring messages with one cause are joined: releasing a graph frees thousands of keys at once.
        if let Some(Out::Worker(last, ToWorker::FreeKeys { keys, stimulus: s })) =
            self.out.last_mut()
            && *last == w
            && *s == stimulus
        {
            keys.push(key);
            return;
        }
        self.send_worker(
            w,
            ToWorker::FreeKeys {
                keys: vec![key],
                stimulus,
            },
        );
    }

    /// A stimulus of now.
    pub(super) fn stimulus(&self, kind: &'static str) -> Stimulus {
        Stimulus {
            kind,
            time: self.clock.wall,
        }
    }
}
