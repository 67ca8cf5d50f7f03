//! Retiring workers: their data is copied elsewhere before they go.

use rustc_hash::FxHashMap;

use super::amm::Run;
use super::ids::WorkerId;
use super::out::{Stimulus, ToWorker};
use super::state::State;
use super::worker::Status;
use crate::protocol::Value;

/// What a retirement waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RetireStep {
    /// Data is on its way.
    Pending {
        /// Ask again after this many seconds.
        again_s: f64,
    },
    /// The worker stays; it was told so.
    Aborted {
        /// Why.
        reason: &'static str,
    },
    /// Nothing is lost if the worker goes.
    Done,
}

/// Reason of a retirement that found no room for the data.
const NO_RECIPIENTS: &str = "no-recipients";
/// Reason of a retirement of a worker with actors.
const HOLDS_ACTORS: &str = "holds-actors";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Data is copied in each run of the memory manager.
    Moving,
    /// A run found nothing left that only this worker has.
    Clean,
    /// It cannot be done; the worker has to be told.
    Stuck(&'static str),
    /// The worker was told that it stays.
    Aborted(&'static str),
    /// It may go, or has gone.
    Finished,
}

#[derive(Clone, Copy, Debug)]
struct Retirement {
    phase: Phase,
    previous: Status,
    batch: u64,
    stimulus: Stimulus,
}

/// Workers retired by one request, for its event.
#[derive(Clone, Debug, Default)]
struct Batch {
    left: usize,
    retired: Vec<Value>,
    aborted: Vec<Value>,
}

/// Retirements that go on, and the outcome of earlier ones of workers that are still there.
#[derive(Debug, Default)]
pub(super) struct Retirements {
    by_worker: FxHashMap<WorkerId, Retirement>,
    batches: FxHashMap<u64, Batch>,
    next_batch: u64,
}

impl Retirements {
    /// Whether the memory manager has data to move.
    pub fn any_active(&self) -> bool {
        self.by_worker.values().any(|r| r.phase == Phase::Moving)
    }
}

impl State {
    /// Starts to retire workers: they get no more work, and the memory manager copies what only they hold.
    /// Workers that are being retired already are left alone.
    pub fn begin_retire(&mut self, workers: &[WorkerId]) {
        let stimulus = self.stimulus("retire-workers");
        self.drop_finished_retirements();
        let batch = self.amm.retirements.next_batch;
        self.amm.retirements.next_batch += 1;
        let mut n = 0;
        for w in workers.iter().copied() {
            if !self.is_registered(w) || self.is_retiring(w) {
                continue;
            }
            n += 1;
            // A worker that has not yet answered that it runs again after an earlier attempt.
            let known = self.amm.retirements.by_worker.get(&w);
            let previous = match (self.worker(w).status, known) {
                (Status::ClosingGracefully, Some(earlier)) => earlier.previous,
                (status, _) => status,
            };
            let entry = Retirement {
                phase: Phase::Moving,
                previous,
                batch,
                stimulus,
            };
            self.amm.retirements.by_worker.insert(w, entry);
            // Known here at once, so that nothing is sent to it while the message is on its way.
            self.set_worker_status(w, Status::ClosingGracefully);
            let status = Status::ClosingGracefully.as_str();
            self.send_worker(w, ToWorker::StatusChange { status, stimulus });
        }
        if n > 0 {
            let entry = Batch {
                left: n,
                ..Batch::default()
            };
            self.amm.retirements.batches.insert(batch, entry);
            self.amm_run(self.amm.running);
        }
    }

    /// Whether a worker that is being retired may go.
    pub fn poll_retire(&mut self, w: WorkerId) -> RetireStep {
        if !self.is_registered(w) {
            self.end_retirement(w, Phase::Finished);
            return RetireStep::Done;
        }
        let Some(entry) = self.amm.retirements.by_worker.get(&w).copied() else {
            return RetireStep::Aborted {
                reason: "not being retired",
            };
        };
        match entry.phase {
            Phase::Clean | Phase::Finished => RetireStep::Done,
            Phase::Moving if self.is_copied_elsewhere(w) => RetireStep::Done,
            Phase::Moving => RetireStep::Pending {
                again_s: (self.worker(w).has_what.len() as f64 / 400.0).clamp(0.01, 0.5),
            },
            Phase::Aborted(reason) => RetireStep::Aborted { reason },
            Phase::Stuck(reason) => {
                let address = self.worker(w).info.address.clone();
                tracing::warn!(
                    worker = %address, reason,
                    "Could not retire the worker: unique data could not be moved to any other worker"
                );
                // The worker answers with its new status; until then nothing is sent to it.
                let (status, stimulus) = (entry.previous.as_str(), entry.stimulus);
                self.send_worker(w, ToWorker::StatusChange { status, stimulus });
                self.end_retirement(w, Phase::Aborted(reason));
                RetireStep::Aborted { reason }
            }
        }
    }

    /// Lets a worker go after [`RetireStep::Done`]: it is forgotten (`remove`) and told to close (`close`).
    pub fn finish_retire(&mut self, w: WorkerId, close: bool, remove: bool) {
        if !self.is_registered(w) {
            self.end_retirement(w, Phase::Finished);
            return;
        }
        let address = self.worker(w).info.address.clone();
        if remove {
            self.remove_worker(w, true, close);
        } else if close {
            self.log_action(&[&address], "close-worker", &[]);
            let reason = "scheduler-close-worker";
            self.send_worker(w, ToWorker::Close { reason });
        }
        self.end_retirement(w, Phase::Finished);
        tracing::info!(worker = %address, "Retired worker");
    }

    /// Whether the worker is being retired.
    pub fn is_retiring(&self, w: WorkerId) -> bool {
        self.amm
            .retirements
            .by_worker
            .get(&w)
            .is_some_and(|r| matches!(r.phase, Phase::Moving | Phase::Clean))
    }

    /// Whether everything a worker holds is also on a worker that stays.
    fn is_copied_elsewhere(&self, w: WorkerId) -> bool {
        self.worker(w).has_what.iter().all(|id| {
            let task = self.task(id);
            task.actor || task.who_has.iter().any(|h| *h != w && self.stays(*h))
        })
    }

    fn stays(&self, w: WorkerId) -> bool {
        matches!(
            self.worker(w).status,
            Status::Running | Status::Paused | Status::Init
        )
    }

    /// Policy of the memory manager: what only leaving workers hold is copied, what others hold too is dropped there.
    pub(super) fn run_retirements(&mut self, run: &mut Run) {
        let mut moving: Vec<WorkerId> = self
            .amm
            .retirements
            .by_worker
            .iter()
            .filter(|(_, r)| r.phase == Phase::Moving)
            .map(|(w, _)| *w)
            .collect();
        moving.sort_unstable();
        for w in moving {
            let phase = self.run_retirement(run, w);
            if let Some(entry) = self.amm.retirements.by_worker.get_mut(&w) {
                entry.phase = phase;
            }
        }
    }

    fn run_retirement(&self, run: &mut Run, w: WorkerId) -> Phase {
        if !self.is_registered(w) {
            return Phase::Clean;
        }
        let worker = self.worker(w);
        let address = &worker.info.address;
        if !worker.actors.is_empty() {
            tracing::warn!(worker = %address, "the worker holds actors, which cannot be moved; it will not be retired");
            return Phase::Stuck(HOLDS_ACTORS);
        }
        let (mut unique, mut homeless) = (0, 0);
        for id in worker.has_what.iter() {
            let task = self.task(id);
            if task.actor {
                continue;
            }
            if task.who_has.len() > 1 {
                if self.amm_drop(run, id, Some(w)).is_some() {
                    continue;
                }
                // Another policy drops it already, or a task on this worker needs it for now.
                if task.who_has.iter().any(|h| self.worker(*h).running()) {
                    continue;
                }
            }
            unique += 1;
            if !run.is_copied(id) && self.amm_copy(run, id).is_none() {
                homeless += 1;
            }
        }
        if homeless > 0 {
            tracing::warn!(worker = %address, "{homeless} results cannot be moved: no worker can receive them");
            return Phase::Stuck(NO_RECIPIENTS);
        }
        if unique > 0 {
            tracing::info!(worker = %address, "Retiring worker; {unique} keys are being moved away");
            return Phase::Moving;
        }
        tracing::info!(worker = %address, "Retiring worker; no unique keys need to be moved away");
        Phase::Clean
    }

    /// Notes the outcome, once, and logs it.
    fn end_retirement(&mut self, w: WorkerId, outcome: Phase) {
        let Some(entry) = self.amm.retirements.by_worker.get_mut(&w) else {
            return;
        };
        if matches!(entry.phase, Phase::Finished | Phase::Aborted(_)) {
            return;
        }
        entry.phase = outcome;
        let (number, stimulus) = (entry.batch, entry.stimulus.to_string());
        let stimulus = ("stimulus_id", Value::from(stimulus.as_str()));
        let address = self.worker(w).info.address.clone();
        let retired = outcome == Phase::Finished;
        let action = if retired {
            "retired"
        } else {
            "could-not-retire"
        };
        self.log_action(&[&address], action, std::slice::from_ref(&stimulus));
        let Some(batch) = self.amm.retirements.batches.get_mut(&number) else {
            return;
        };
        batch.left = batch.left.saturating_sub(1);
        let list = if retired {
            &mut batch.retired
        } else {
            &mut batch.aborted
        };
        list.push((*address).into());
        if batch.left == 0
            && let Some(batch) = self.amm.retirements.batches.remove(&number)
        {
            let fields = [
                ("retired", Value::Array(batch.retired)),
                ("could-not-retire", Value::Array(batch.aborted)),
                stimulus,
            ];
            self.log_action(&["all"], "retire-workers", &fields);
        }
    }

    /// Forgets the retirements of workers that are gone.
    fn drop_finished_retirements(&mut self) {
        let gone: Vec<WorkerId> = self
            .amm
            .retirements
            .by_worker
            .keys()
            .copied()
            .filter(|w| !self.is_registered(*w))
            .collect();
        for w in gone {
            self.end_retirement(w, Phase::Finished);
            self.amm.retirements.by_worker.remove(&w);
        }
    }
}

#[cfg(test)]
#[path = "retire_tests.rs"]
mod tests;
