//! Peer-to-peer shuffles: which run of a shuffle is active, who takes part, and what happens when one of them leaves.
//!
//! A shuffle's specification is an object in Python; here it is an opaque pickle. See
//! `distributed.shuffle._scheduler_plugin` for the rules.

mod ending;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::protocol::{Key, Payload};
use crate::scheduler::ids::{IdSet, TaskId, WorkerId};
use crate::scheduler::out::Stimulus;
use crate::scheduler::state::State;
use crate::scheduler::task::TaskStateName;

use TaskStateName::Processing;

/// Prefix of the key of a shuffle's barrier task.
const BARRIER: &str = "shuffle-barrier-";

/// The pickle of `distributed.shuffle._worker_plugin.ShuffleWorkerPlugin()`: the plugin "shuffle", which every worker
/// has from its registration on.
pub const WORKER_PLUGIN: &[u8] =
    b"\x80\x05\x95A\x00\x00\x00\x00\x00\x00\x00\x8c\"distributed.shuffle._worker_plugin\
\x94\x8c\x13ShuffleWorkerPlugin\x94\x93\x94)\x81\x94.";

/// Why a request about a shuffle fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShuffleError {
    /// `P2PConsistencyError`, answered with status "error".
    #[error("{0}")]
    Consistency(String),
    /// `KeyError` raised at the caller.
    #[error("{0}")]
    Unknown(String),
    /// `ValueError` raised at the caller.
    #[error("{0}")]
    Value(String),
}

/// A run of a shuffle.
#[derive(Clone, Debug)]
struct Run {
    run_id: u64,
    /// The pickled `ShuffleRunSpec`.
    spec: Bytes,
    participants: FxHashSet<Arc<str>>,
    failure_logged: bool,
}

/// What is needed to make the specification of a new run.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// The shuffle.
    pub id: Arc<str>,
    /// Number of the run.
    pub run_id: u64,
    /// The barrier task as a worker would get it.
    pub barrier: Payload,
    /// Workers to choose from.
    pub workers: Vec<Arc<str>>,
    /// Pickled specifications of active runs that share output tasks.
    pub existing: Vec<Bytes>,
}

/// What a barrier leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// These workers are to be told that all input has arrived.
    Tell(Vec<Arc<str>>),
    /// The inputs come from different runs: the shuffle starts again.
    Restarted,
}

/// Shuffles.
#[derive(Debug, Default)]
pub struct Shuffles {
    active: FxHashMap<Arc<str>, Run>,
    /// Shuffles whose last run ended, and why, until their barrier is forgotten.
    archived: FxHashMap<Arc<str>, Stimulus>,
    /// Worker restrictions that output tasks had before they were pinned.
    original: FxHashMap<Key, Vec<Arc<str>>>,
    last_run_id: u64,
    shift: usize,
}

impl Shuffles {
    fn is_idle(&self) -> bool {
        self.active.is_empty() && self.archived.is_empty() && self.original.is_empty()
    }

    /// Ids and run ids of active shuffles.
    pub fn active(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.active.iter().map(|(id, run)| (id, run.run_id))
    }

    /// Workers that take part in an active shuffle; they must not be chosen to be closed.
    pub fn participants(&self) -> FxHashSet<Arc<str>> {
        let all = self.active.values().flat_map(|run| &run.participants);
        all.cloned().collect()
    }
}

fn name(id: &str, run_id: u64) -> String {
    format!("SchedulerShuffleState<{id}[{run_id}]>")
}

fn barrier_key(id: &str) -> Key {
    Key::new_str(&format!("{BARRIER}{id}"))
}

impl State {
    /// The active run of a shuffle for a worker, which thereby takes part; none if there is no run.
    pub fn shuffle_get(&mut self, id: &str, worker: &str) -> Result<Option<Bytes>, ShuffleError> {
        let Some(w) = self.worker_id(worker) else {
            let text = format!("Scheduler is unaware of this worker {worker:?}");
            return Err(ShuffleError::Consistency(text));
        };
        let address = self.worker(w).info.address.clone();
        Ok(self.shuffles.active.get_mut(id).map(|run| {
            run.participants.insert(address);
            run.spec.clone()
        }))
    }

    /// Begins a run: what its specification is made of. `key` is the task that asks.
    pub fn shuffle_prepare(&mut self, id: &str, key: &Key) -> Result<NewRun, ShuffleError> {
        let barrier = self.shuffle_may_start(id, key)?;
        let Some(spec) = self.task(barrier).spec.as_ref().map(|s| s.to_payload()) else {
            return Err(ShuffleError::Unknown(format!("{BARRIER}{id}")));
        };
        let restricted = self.task(barrier).restrictions().map(|r| r.workers.clone());
        let mut workers = match restricted.filter(|w| !w.is_empty()) {
            Some(workers) => workers,
            None => self.shuffle_workers(),
        };
        if workers.is_empty() {
            let text = format!("No workers to run shuffle {id}");
            return Err(ShuffleError::Consistency(text));
        }
        // Small shuffles side by side shall not all begin with the same worker.
        let shift = self.shuffles.shift % workers.len();
        workers.rotate_left(shift);
        self.shuffles.shift = self.shuffles.shift.wrapping_add(1);
        self.shuffles.last_run_id += 1;
        Ok(NewRun {
            id: id.into(),
            run_id: self.shuffles.last_run_id,
            barrier: spec,
            workers,
            existing: self.shuffles_with_same_outputs(barrier),
        })
    }

    /// Workers that take work, else all, by address.
    fn shuffle_workers(&self) -> Vec<Arc<str>> {
        let address = |w: WorkerId| self.worker(w).info.address.clone();
        let mut workers: Vec<_> = self.running.iter().map(address).collect();
        if workers.is_empty() {
            workers = self.live_workers.iter().map(address).collect();
        }
        workers.sort_unstable();
        workers
    }

    fn shuffle_may_start(&self, id: &str, key: &Key) -> Result<TaskId, ShuffleError> {
        let barrier = self.task_id(&barrier_key(id)).ok_or_else(|| {
            ShuffleError::Consistency(format!(
                "Barrier task with key '{BARRIER}{id}' does not exist. This may be caused by task fusion during graph \
                 generation."
            ))
        })?;
        let task = self.task_id(key).map(|t| self.task(t));
        let task = task.ok_or_else(|| ShuffleError::Unknown(key.to_string()))?;
        if task.state != Processing {
            let (key, state) = (task.key.repr(), task.state.as_str());
            let text = format!("Expected <TaskState {key} {state}> to be processing, is {state}.");
            return Err(ShuffleError::Consistency(text));
        }
        Ok(barrier)
    }

    /// Pickled runs of active shuffles that feed the same output tasks, as both sides of a join do: their partitions
    /// must lie on the same workers.
    fn shuffles_with_same_outputs(&self, barrier: TaskId) -> Vec<Bytes> {
        if self.shuffles.active.is_empty() {
            return Vec::new();
        }
        let mut seen = IdSet::default();
        seen.insert(barrier);
        let mut found = Vec::new();
        for output in self.task(barrier).dependents.iter() {
            for other in self.task(output).dependencies.iter() {
                if !seen.insert(other) {
                    continue;
                }
                if let Some(id) = shuffle_of(&self.task(other).key)
                    && let Some(run) = self.shuffles.active.get(id)
                {
                    found.push(run.spec.clone());
                }
            }
        }
        found
    }

    /// Activates a prepared run. None if workers have left meanwhile: prepare it again.
    pub fn shuffle_activate(
        &mut self,
        new: &NewRun,
        key: &Key,
        worker: &str,
        spec: Bytes,
        participants: &[String],
    ) -> Result<Option<Bytes>, ShuffleError> {
        if let Some(spec) = self.shuffle_get(&new.id, worker)? {
            return Ok(Some(spec));
        }
        let barrier = self.shuffle_may_start(&new.id, key)?;
        let mut set: FxHashSet<Arc<str>> = FxHashSet::default();
        for address in participants.iter().map(String::as_str).chain([worker]) {
            match self.worker_id(address) {
                Some(w) => set.insert(self.worker(w).info.address.clone()),
                None => return Ok(None),
            };
        }
        // Output tasks first run to be told where they belong, and go there: holding them back would cost a round trip
        // for each.
        for i in 0..self.task(barrier).dependents.len() {
            let output = self.task(barrier).dependents.as_slice()[i];
            self.task_mut(output).queueable = false;
        }
        let run = Run {
            run_id: new.run_id,
            spec: spec.clone(),
            participants: set,
            failure_logged: false,
        };
        self.shuffles.active.insert(new.id.clone(), run);
        tracing::info!(shuffle = %new.id, run_id = new.run_id, key = %key, worker, "shuffle initialized");
        Ok(Some(spec))
    }

    /// All input of a run was sent.
    pub fn shuffle_barrier(
        &mut self,
        id: &str,
        run_id: u64,
        consistent: bool,
    ) -> Result<Barrier, ShuffleError> {
        let run = self.shuffles.active.get(id);
        let run = run.ok_or_else(|| ShuffleError::Unknown(id.to_string()))?;
        if run.run_id != run_id {
            let text = format!("run_id={run_id} does not match {}", name(id, run.run_id));
            return Err(ShuffleError::Value(text));
        }
        if consistent {
            return Ok(Barrier::Tell(run.participants.iter().cloned().collect()));
        }
        tracing::warn!("Shuffle {id} restarted due to data inconsistency during barrier");
        let stimulus = self.stimulus("p2p-barrier-inconsistent");
        self.restart_shuffle(id, stimulus);
        Ok(Barrier::Restarted)
    }

    /// Whether this run is still the active one.
    pub fn shuffle_is_active(&self, id: &str, run_id: u64) -> bool {
        let run = self.shuffles.active.get(id);
        run.is_some_and(|run| run.run_id == run_id)
    }

    /// An output task belongs on this worker.
    pub fn shuffle_restrict_task(
        &mut self,
        id: &str,
        run_id: u64,
        key: &Key,
        worker: &str,
    ) -> Result<(), ShuffleError> {
        let run = self.shuffles.active.get(id);
        let active = run
            .ok_or_else(|| ShuffleError::Unknown(id.to_string()))?
            .run_id;
        if active != run_id {
            let kind = if active > run_id { "stale" } else { "invalid" };
            let text = format!(
                "Request {kind}, expected run_id={run_id} for {}",
                name(id, active)
            );
            return Err(ShuffleError::Consistency(text));
        }
        let task = self
            .task_id(key)
            .ok_or_else(|| ShuffleError::Unknown(key.to_string()))?;
        // Both sides of a join ask for the same task: the first one counts.
        if !self.shuffles.original.contains_key(key) {
            let now = &mut self.task_mut(task).rare_mut().restrictions.workers;
            let original = std::mem::replace(now, vec![worker.into()]);
            self.shuffles.original.insert(key.clone(), original);
        }
        Ok(())
    }
}

/// The shuffle whose barrier has this key.
fn shuffle_of(key: &Key) -> Option<&str> {
    key.as_str()?.strip_prefix(BARRIER)
}
