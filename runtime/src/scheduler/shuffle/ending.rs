//! How shuffles end: with their barrier, with one of their workers, or to start again.

use std::sync::Arc;

use super::{State, barrier_key, name, shuffle_of};
use crate::protocol::{Key, Value};
use crate::scheduler::ids::TaskId;
use crate::scheduler::out::{Stimulus, ToWorker};
use crate::scheduler::task::TaskStateName;

use TaskStateName::{Erred, Forgotten, Released};

impl State {
    /// A task changed its state.
    #[inline]
    pub(in crate::scheduler) fn shuffle_after_transition(
        &mut self,
        key: &Key,
        finish: TaskStateName,
        stimulus: Stimulus,
    ) {
        if matches!(finish, Released | Erred | Forgotten) && !self.shuffles.is_idle() {
            self.shuffle_after_release(key, finish, stimulus);
        }
    }

    fn shuffle_after_release(&mut self, key: &Key, finish: TaskStateName, stimulus: Stimulus) {
        if finish == Erred && self.log_shuffle_failure(key, stimulus) {
            return;
        }
        if finish == Forgotten {
            self.shuffles.original.remove(key);
        }
        let Some(id) = shuffle_of(key) else {
            return;
        };
        if self.shuffles.active.contains_key(id) {
            self.end_shuffle(id, "forgotten", stimulus);
        }
        if finish == Forgotten {
            self.shuffles.archived.remove(id);
        }
    }

    /// Logs once per run that one of its own tasks has failed.
    fn log_shuffle_failure(&mut self, key: &Key, stimulus: Stimulus) -> bool {
        let Some(task) = self.task_id(key) else {
            return false;
        };
        if self.task(task).exception_blame() != Some(task) {
            return false;
        }
        let concerned = self.shuffles.active.iter().find(|(id, run)| {
            !run.failure_logged
                && self.task_id(&barrier_key(id)).is_some_and(|barrier| {
                    let b = self.task(barrier);
                    barrier == task || b.dependents.contains(task) || b.dependencies.contains(task)
                })
        });
        let Some(id) = concerned.map(|(id, _)| id.clone()) else {
            return false;
        };
        if let Some(run) = self.shuffles.active.get_mut(&id) {
            run.failure_logged = true;
        }
        let fields = [
            ("shuffle", Value::from(&*id)),
            ("stimulus", stimulus.to_string().into()),
        ];
        self.log_action(&["p2p"], "p2p-failed", &fields);
        true
    }

    /// Ends the active run of a shuffle, here and on its workers.
    fn end_shuffle(&mut self, id: &str, why: &str, stimulus: Stimulus) {
        let Some((id, run)) = self.shuffles.active.remove_entry(id) else {
            return;
        };
        let subject = name(&id, run.run_id);
        let message = match why {
            "forgotten" => format!("{subject} forgotten"),
            left => format!("{left} {subject}"),
        };
        let msg = Arc::new(Value::map([
            ("op", "shuffle-fail".into()),
            ("shuffle_id", Value::from(&*id)),
            ("run_id", run.run_id.into()),
            ("message", message.into()),
        ]));
        for address in &run.participants {
            if let Some(w) = self.worker_id(address) {
                self.send_worker(w, ToWorker::Raw(msg.clone()));
            }
        }
        tracing::info!("Shuffle {id} deactivated due to stimulus '{stimulus}'");
        if let Some(barrier) = self.task_id(&barrier_key(&id)) {
            for i in 0..self.task(barrier).dependents.len() {
                let output = self.task(barrier).dependents.as_slice()[i];
                self.unpin(output);
            }
            self.shuffles.archived.insert(id, stimulus);
        }
    }

    /// Gives an output task the restrictions back that it had.
    fn unpin(&mut self, output: TaskId) {
        if self.shuffles.original.is_empty() {
            return;
        }
        let original = self
            .shuffles
            .original
            .remove(&self.task(output).key.clone());
        if let Some(workers) = original {
            self.task_mut(output).rare_mut().restrictions.workers = workers;
        }
    }

    /// A worker is gone: every shuffle it took part in starts again.
    pub(in crate::scheduler) fn shuffle_on_remove_worker(
        &mut self,
        address: &str,
        stimulus: Stimulus,
    ) {
        if self.shuffles.is_idle() {
            return;
        }
        let runs = self.shuffles.active.iter();
        let concerned = runs.filter(|(_, run)| run.participants.contains(address));
        let mut ids: Vec<Arc<str>> = concerned.map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        for id in ids {
            self.end_shuffle(
                &id,
                &format!("Worker {address} left during active"),
                stimulus,
            );
        }
        // Tasks lost with the worker may have ended a run before this was called: the stimulus tells.
        let archived = self.shuffles.archived.iter();
        let mut ids: Vec<Arc<str>> = archived
            .filter(|(_, s)| **s == stimulus)
            .map(|(id, _)| id.clone())
            .collect();
        ids.sort_unstable();
        for id in ids {
            self.restart_shuffle(&id, stimulus);
        }
    }

    /// Runs a shuffle's tasks again: transfers, barrier and outputs.
    pub(super) fn restart_shuffle(&mut self, id: &str, stimulus: Stimulus) {
        let Some(barrier) = self.task_id(&barrier_key(id)) else {
            return;
        };
        let outputs = self.task(barrier).dependents.as_slice().to_vec();
        let transfers = self.task(barrier).dependencies.as_slice().to_vec();
        let erred = |list: &[TaskId]| list.iter().any(|t| self.task(*t).state == Erred);
        if erred(&outputs) || erred(&[barrier]) || erred(&transfers) {
            // It has failed for good; its failure has gone on to the outputs.
            return;
        }
        // Recommendations are taken from the end: transfers first, as stock does.
        for task in outputs.into_iter().chain([barrier]).chain(transfers) {
            self.recommend(task, Released);
        }
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
        tracing::warn!("Shuffle {id} restarted due to stimulus '{stimulus}'");
    }
}
