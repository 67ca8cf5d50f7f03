//! Active memory manager: surplus copies of results are dropped, and those of leaving workers copied elsewhere.
//!
//! Policies ask for one copy more or less of a result; the manager chooses the worker, knowing what it has decided
//! before in the same run, and tells the workers at the end. A worker may refuse to drop what it needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::config::CoreConfig;
use super::ids::{TaskId, WorkerId};
use super::memory::Measure;
use super::out::ToWorker;
use super::retire::Retirements;
use super::state::State;
use super::task::TaskStateName;
use crate::protocol::Key;

/// Interval while the manager runs for retirements alone, s.
const RETIRE_INTERVAL: f64 = 2.0;

/// Up to this many waiting tasks (exclusive) their workers are counted instead of them.
const COUNT_WORKERS_BELOW: usize = 20;

/// Books of the active memory manager.
#[derive(Debug)]
pub struct Amm {
    /// Runs periodically.
    pub running: bool,
    pub(super) retirements: Retirements,
}

impl Amm {
    /// As configured.
    pub fn new(config: &CoreConfig) -> Self {
        Self {
            running: config.amm_start,
            retirements: Retirements::default(),
        }
    }
}

/// A key to fetch, who has it, and its size in bytes.
type Copied = (Key, Vec<Arc<str>>, i64);

/// What has been decided for one result.
#[derive(Debug, Default)]
struct Pending {
    copy_to: SmallVec<[WorkerId; 2]>,
    drop_from: SmallVec<[WorkerId; 2]>,
}

/// One run.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Memory of each worker after what has been decided, bytes.
    memory: FxHashMap<WorkerId, i64>,
    /// The same of those that take work, least first.
    recipients: BTreeSet<(i64, WorkerId)>,
    pending: FxHashMap<TaskId, Pending>,
    /// Keys of `pending` in the order of the decisions.
    order: Vec<TaskId>,
}

impl Run {
    fn pending(&mut self, id: TaskId) -> &mut Pending {
        self.pending.entry(id).or_insert_with(|| {
            self.order.push(id);
            Pending::default()
        })
    }

    fn change_memory(&mut self, w: WorkerId, by: i64) {
        let Some(memory) = self.memory.get_mut(&w) else {
            return;
        };
        let before = *memory;
        *memory = (before + by).max(0);
        if self.recipients.remove(&(before, w)) {
            self.recipients.insert((*memory, w));
        }
    }

    /// Whether a copy has been ordered.
    pub fn is_copied(&self, id: TaskId) -> bool {
        self.pending.get(&id).is_some_and(|p| !p.copy_to.is_empty())
    }
}

impl State {
    /// Starts the periodic runs.
    pub fn amm_start(&mut self) {
        self.amm.running = true;
    }

    /// Stops the periodic runs; workers being retired are still taken care of.
    pub fn amm_stop(&mut self) {
        self.amm.running = false;
    }

    /// Whether it runs periodically.
    pub fn amm_running(&self) -> bool {
        self.amm.running
    }

    /// Runs all policies now.
    pub fn amm_run_once(&mut self) {
        self.amm_run(true);
    }

    /// The run of the timer.
    pub(super) fn amm_run_due(&mut self) {
        self.amm_run(self.amm.running);
    }

    pub(super) fn amm_interval(&self) -> f64 {
        if self.amm.running {
            self.config.amm_interval
        } else {
            RETIRE_INTERVAL
        }
    }

    /// Whether a run could change anything.
    pub(super) fn amm_has_work(&self) -> bool {
        let reduce = self.amm.running && self.config.amm_reduce_replicas;
        (reduce && !self.replicated.is_empty()) || self.amm.retirements.any_active()
    }

    pub(super) fn amm_run(&mut self, reduce: bool) {
        let mut run = self.amm_begin();
        if reduce && self.config.amm_reduce_replicas {
            self.reduce_replicas(&mut run);
        }
        self.run_retirements(&mut run);
        self.amm_enact(run);
    }

    fn amm_begin(&self) -> Run {
        let measure: Measure = self.config.amm_measure;
        let mut run = Run::default();
        for (w, worker) in self.all_workers() {
            let memory = worker.memory().get(measure);
            run.memory.insert(w, memory);
            if worker.running() {
                run.recipients.insert((memory, w));
            }
        }
        run
    }

    /// Policy: one copy of each result, or one for each worker that will need it soon.
    fn reduce_replicas(&self, run: &mut Run) {
        for id in self.replicated.iter() {
            let task = self.task(id);
            let mut waiting = task.waiters.len();
            if (2..COUNT_WORKERS_BELOW).contains(&waiting) {
                // A task without a worker yet counts for itself.
                let mut on: SmallVec<[WorkerId; COUNT_WORKERS_BELOW]> = SmallVec::new();
                for w in task
                    .waiters
                    .iter()
                    .filter_map(|t| self.task(t).processing_on)
                {
                    if on.contains(&w) {
                        waiting -= 1;
                    } else {
                        on.push(w);
                    }
                }
            }
            let (mut have, wanted) = (task.who_has.len(), waiting.max(1));
            if let Some(p) = run.pending.get(&id) {
                have = (have + p.copy_to.len()).saturating_sub(p.drop_from.len());
            }
            for _ in wanted..have {
                self.amm_drop(run, id, None);
            }
        }
    }

    /// Asks for one more copy; the worker that gets it, none if no worker can.
    pub(super) fn amm_copy(&self, run: &mut Run, id: TaskId) -> Option<WorkerId> {
        let task = self.task(id);
        if task.state != TaskStateName::Memory || task.actor {
            return None;
        }
        let pending = run.pending.get(&id);
        let (_, w) = *run.recipients.iter().find(|(_, w)| {
            !task.who_has.contains(w) && pending.is_none_or(|p| !p.copy_to.contains(w))
        })?;
        run.pending(id).copy_to.push(w);
        run.change_memory(w, self.nbytes_of(id));
        Some(w)
    }

    /// Asks for one copy less, of any worker or of the one given; the worker that loses it, none if all are needed.
    pub(super) fn amm_drop(
        &self,
        run: &mut Run,
        id: TaskId,
        of: Option<WorkerId>,
    ) -> Option<WorkerId> {
        let task = self.task(id);
        let empty = Pending::default();
        let pending = run.pending.get(&id).unwrap_or(&empty);
        if task.who_has.len() < pending.drop_from.len() + 2 || task.actor {
            return None;
        }
        let mut free: SmallVec<[WorkerId; 4]> = SmallVec::new();
        let (mut needed, mut needed_by_running) = (false, false);
        for w in task.who_has.iter().copied() {
            if of.is_some_and(|only| only != w) || pending.drop_from.contains(&w) {
                continue;
            }
            if self.is_input_on(id, w) {
                needed = true;
                needed_by_running |= self.worker(w).running();
            } else {
                free.push(w);
            }
        }
        let memory = |w: &WorkerId| run.memory.get(w).copied().unwrap_or(0);
        let leaving = |w: &WorkerId| !self.worker(*w).running();
        let choice = free
            .iter()
            .copied()
            .max_by_key(|w| (leaving(w), memory(w)))?;
        // All other copies are on leaving workers that still use them: the only one that stays is kept. Otherwise a
        // retirement would make it again and again.
        if free.len() == 1 && !leaving(&choice) && needed && !needed_by_running {
            return None;
        }
        run.pending(id).drop_from.push(choice);
        run.change_memory(choice, -self.nbytes_of(id));
        Some(choice)
    }

    /// Whether a task that the worker was sent needs this result.
    fn is_input_on(&self, id: TaskId, w: WorkerId) -> bool {
        let (waiters, processing) = (&self.task(id).waiters, &self.worker(w).processing);
        if waiters.len() <= processing.len() {
            waiters
                .iter()
                .any(|t| self.task(t).processing_on == Some(w))
        } else {
            processing.iter().any(|t| waiters.contains(t))
        }
    }

    /// Tells the workers. Dropped copies no longer count from now on; a worker that refuses reports the copy again.
    fn amm_enact(&mut self, mut run: Run) {
        let stimulus = self.stimulus("active_memory_manager");
        let mut copies: FxHashMap<WorkerId, Vec<Copied>> = FxHashMap::default();
        let mut drops: FxHashMap<WorkerId, Vec<Key>> = FxHashMap::default();
        for id in std::mem::take(&mut run.order) {
            let Some(pending) = run.pending.remove(&id) else {
                continue;
            };
            let key = self.task(id).key.clone();
            for w in pending.drop_from {
                if self.task(id).who_has.len() > 1 {
                    self.remove_replica(id, w);
                    drops.entry(w).or_default().push(key.clone());
                }
            }
            let holders = self.holders(id);
            let nbytes = self.nbytes_of(id);
            for w in pending.copy_to {
                let copy = (key.clone(), holders.clone(), nbytes);
                copies.entry(w).or_default().push(copy);
            }
        }
        for (w, keys) in copies {
            self.send_worker(w, ToWorker::AcquireReplicas { keys, stimulus });
        }
        for (w, keys) in drops {
            self.send_worker(w, ToWorker::RemoveReplicas { keys, stimulus });
        }
    }
}

#[cfg(test)]
#[path = "amm_tests.rs"]
mod tests;
