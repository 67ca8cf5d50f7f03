//! What workers report about tasks and data.

use bytes::Bytes;

use super::ids::{TaskId, WorkerId};
use super::out::ToWorker;
use super::state::State;
use super::task::{Failure, TaskStateName};
use super::transitions::ErredArgs;
use crate::protocol::{Key, Value};
use std::sync::Arc;

use TaskStateName::{Erred, Memory, Processing, Released, Waiting};

/// One activity of a task on a worker.
#[derive(Clone, Copy, Debug)]
pub struct StartStop<'a> {
    /// "compute", "transfer", "disk-read", "disk-write" or "deserialize".
    pub action: &'a str,
    /// s since the epoch, scheduler's clock.
    pub start: f64,
    /// s since the epoch, scheduler's clock.
    pub stop: f64,
}

/// The fields of `task-finished` that the scheduler uses.
#[derive(Clone, Debug)]
pub struct TaskFinished<'a> {
    /// Canonical bytes of the key.
    pub key: &'a [u8],
    /// Number of the attempt.
    pub run_id: u64,
    /// Size of the result, bytes.
    pub nbytes: i64,
    /// Pickle of the result's class, for the client.
    pub type_pickle: Bytes,
    /// Name of the result's class.
    pub typename: &'a str,
    /// Metadata set by the task.
    pub metadata: Option<Vec<(Value, Value)>>,
    /// Activities.
    pub startstops: &'a [StartStop<'a>],
}

impl State {
    /// A worker finished a task.
    pub fn handle_task_finished(&mut self, w: WorkerId, msg: TaskFinished<'_>, raw: &[u8]) {
        if !self.is_registered(w) {
            return;
        }
        let stimulus = self.stimulus("task-finished");
        let id = self.task_id_by_bytes(msg.key);
        let state = id.map(|id| self.task(id).state);
        match (id, state) {
            (Some(id), Some(Processing | Memory | Waiting)) => {
                let task = self.task(id);
                if task.run_id != msg.run_id {
                    if task.processing_on == Some(w) {
                        self.recommend(id, Released);
                    } else {
                        self.send_free_key(w, Key::from_canonical(msg.key), stimulus);
                    }
                } else if task.state == Memory {
                    self.handle_add_keys(w, &[Key::from_canonical(msg.key)]);
                } else if task.state == Processing {
                    self.processing_memory(id, w, msg, raw);
                }
            }
            _ => self.send_free_key(w, Key::from_canonical(msg.key), stimulus),
        }
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
    }

    fn processing_memory(&mut self, id: TaskId, w: WorkerId, msg: TaskFinished<'_>, raw: &[u8]) {
        if self.task(id).processing_on != Some(w) {
            // Stock raises here; run ids make it impossible. Should it happen, run the task again.
            tracing::error!(key = %self.task(id).key, "result from a worker the task was not sent to; running it again");
            self.recommend(id, Released);
            return;
        }
        self.transition_counter += 1;
        if let Some(metadata) = msg.metadata {
            let known = &mut self.task_mut(id).rare_mut().metadata;
            for (k, v) in metadata {
                known.retain(|(have, _)| *have != k);
                known.push((k, v));
            }
        }
        self.learn_durations(id, msg.startstops);
        self.set_nbytes(id, msg.nbytes);
        self.note_result_size(self.task(id).prefix, msg.nbytes);
        let typename = self.intern_typename(msg.typename);
        self.exit_processing(id);
        self.task_mut(id).typename = Some(typename);
        let before = self.recs.len();
        self.add_to_memory(id, w, Some(msg.type_pickle));
        let key = self.task(id).key.clone();
        let address = self.worker(w).info.address.clone();
        self.task_stream.push_finished(&address, raw);
        let recs = self.recs[before..]
            .iter()
            .take(4)
            .map(|(t, s)| (self.task(*t).key.clone(), *s))
            .collect();
        let stimulus = self.stimulus("task-finished");
        self.shuffle_after_transition(&key, Memory, stimulus);
        let message = Some((&*address, raw));
        self.metadata_transition(&key, Memory);
        self.tap_transition(&key, Processing, Memory, stimulus, message);
        self.transition_log
            .push(key, Processing, Memory, recs, stimulus, self.clock.wall);
    }

    fn learn_durations(&mut self, id: TaskId, startstops: &[StartStop<'_>]) {
        let task = self.task(id);
        let (group, prefix) = (task.group, task.prefix);
        for s in startstops {
            let seconds = (s.stop - s.start).max(0.0);
            let g = self.group_mut(group);
            g.durations.add(s.action, seconds);
            if g.stop < s.stop {
                g.stop = s.stop;
            }
            if g.start == 0.0 || g.start > s.start {
                g.start = s.start;
            }
            let p = &mut self.prefixes[prefix.0 as usize];
            p.durations.add(s.action, seconds);
            if s.action == "compute" {
                let old = p.duration_average;
                p.duration_average = if old < 0.0 {
                    seconds
                } else {
                    0.5 * seconds + 0.5 * old
                };
                if old < 0.0 {
                    self.stealing_on_duration_learned(prefix);
                }
            }
        }
    }

    /// A task failed on a worker.
    pub fn handle_task_erred(
        &mut self,
        w: WorkerId,
        key: &[u8],
        run_id: u64,
        failure: Failure,
        raw: &[u8],
    ) {
        let stimulus = self.stimulus("task-erred");
        if let Some(id) = self.task_id_by_bytes(key)
            && self.task(id).state == Processing
        {
            let task = self.task(id);
            if task.run_id != run_id {
                if task.processing_on == Some(w) {
                    self.transition(id, Released, stimulus, &ErredArgs::default());
                }
            } else if task.rare.as_ref().is_some_and(|r| r.retries > 0) {
                self.task_mut(id).rare_mut().retries -= 1;
                self.transition(id, Waiting, stimulus, &ErredArgs::default());
            } else {
                let address = self.worker(w).info.address.clone();
                self.task_stream.push_erred(&address, raw);
                if self.tap.transitions.is_some() {
                    self.tap.message = Some((address.clone(), raw.into()));
                }
                let args = ErredArgs {
                    worker: Some(address),
                    cause: Some(id),
                    failure: Some(Arc::new(failure)),
                };
                self.transition(id, Erred, stimulus, &args);
            }
        }
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
    }

    /// A worker dropped a result.
    pub fn handle_release_worker_data(&mut self, w: WorkerId, key: &[u8]) {
        let Some(id) = self.task_id_by_bytes(key) else {
            return;
        };
        if !self.is_registered(w) || !self.task(id).who_has.contains(&w) {
            return;
        }
        self.remove_replica(id, w);
        if self.task(id).who_has.is_empty() {
            let stimulus = self.stimulus("release-worker-data");
            self.recommend(id, Released);
            self.run_transitions(stimulus);
        }
    }

    /// A worker holds these keys (it fetched them as dependencies, or was told to). False if the worker is unknown.
    pub fn handle_add_keys(&mut self, w: WorkerId, keys: &[Key]) -> bool {
        if !self.is_registered(w) {
            return false;
        }
        let mut redundant = Vec::new();
        for key in keys {
            match self.task_id(key) {
                Some(id) if self.task(id).state == Memory => self.add_replica(id, w),
                _ => redundant.push(key.clone()),
            }
        }
        if !redundant.is_empty() {
            let stimulus = self.stimulus("redundant-replicas");
            self.send_worker(
                w,
                ToWorker::RemoveReplicas {
                    keys: redundant,
                    stimulus,
                },
            );
        }
        true
    }

    /// A task left its worker's thread pool.
    pub fn handle_long_running(
        &mut self,
        w: WorkerId,
        key: &[u8],
        run_id: u64,
        compute_duration: Option<f64>,
    ) {
        let Some(id) = self.task_id_by_bytes(key) else {
            return;
        };
        if !self.is_registered(w)
            || self.task(id).processing_on != Some(w)
            || self.task(id).run_id != run_id
        {
            return;
        }
        self.stealing_on_leave_processing(id);
        if let Some(seconds) = compute_duration {
            let prefix = self.task(id).prefix;
            let p = &mut self.prefixes[prefix.0 as usize];
            let old = p.duration_average;
            p.duration_average = if old < 0.0 {
                seconds
            } else {
                (old + seconds) / 2.0
            };
        }
        self.worker_add_long_running(id, w);
        self.check_idle_saturated(w);
        self.queue_slots_maybe_opened();
    }

    /// A task asks to be run elsewhere.
    pub fn handle_reschedule(&mut self, w: Option<WorkerId>, key: &[u8]) {
        let Some(id) = self.task_id_by_bytes(key) else {
            return;
        };
        let task = self.task(id);
        if task.state != Processing || (w.is_some() && task.processing_on != w) {
            return;
        }
        let stimulus = self.stimulus("reschedule");
        self.recommend(id, Released);
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
    }

    /// A worker does not find the holders of these keys.
    pub fn handle_request_refresh_who_has(&mut self, w: WorkerId, keys: &[Key]) {
        if !self.is_registered(w) {
            return;
        }
        let stimulus = self.stimulus("request-refresh-who-has");
        let mut who_has = Vec::new();
        let mut unknown = Vec::new();
        for key in keys {
            match self.task_id(key) {
                // Stock Dask answers without holders for ever if no result is to be expected any more.
                Some(id) if !matches!(self.task(id).state, Released | Erred) => {
                    who_has.push((key.clone(), self.holders(id)));
                }
                _ => unknown.push(key.clone()),
            }
        }
        if !who_has.is_empty() {
            self.send_worker(w, ToWorker::RefreshWhoHas { who_has, stimulus });
        }
        if !unknown.is_empty() {
            self.send_worker(
                w,
                ToWorker::FreeKeys {
                    keys: unknown,
                    stimulus,
                },
            );
        }
    }

    /// Addresses of the workers that hold a result.
    pub fn holders(&self, id: TaskId) -> Vec<Arc<str>> {
        self.task(id)
            .who_has
            .iter()
            .map(|w| self.worker(*w).info.address.clone())
            .collect()
    }
}
