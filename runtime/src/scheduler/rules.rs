//! The rules of single transitions, as `distributed.scheduler.SchedulerState._transition_*`.

use super::ids::{IdSet, TaskId, WorkerId};
use super::out::{Stimulus, ToClient, ToWorker};
use super::state::{ErredTask, FIRE_AND_FORGET, State};
use super::task::{ErrorPayload, Failure, TaskStateName};
use super::transitions::ErredArgs;
use crate::protocol::pickle::write;
use std::sync::Arc;

use TaskStateName::{Erred, Forgotten, Memory, NoWorker, Processing, Queued, Released, Waiting};

/// Length of the log of failed tasks (`distributed.diagnostics.erred-tasks.max-history`).
const ERRED_TASKS: usize = 100;

impl State {
    pub(super) fn released_waiting(&mut self, id: TaskId, start: TaskStateName) -> TaskStateName {
        if self.task(id).has_lost_dependencies {
            self.recommend(id, Forgotten);
            return start;
        }
        if let Some(blame) = self.blame_of_dependencies(id) {
            // In stock Dask it would wait for ever.
            self.task_mut(id).rare_mut().exception_blame = Some(blame);
            self.recommend(id, Erred);
            return start;
        }
        self.clear_blame(id);
        let waiters: IdSet<TaskId> = self
            .task(id)
            .dependents
            .iter()
            .filter(|d| self.task(*d).state == Waiting)
            .collect();
        if waiters.is_empty() && self.task(id).who_wants.is_empty() {
            // Two changes of one event met: it was to run again, and was given up.
            self.leave_dependencies(id, true);
            self.task_mut(id).waiters.clear();
            return start;
        }
        self.set_state(id, Waiting);
        for i in 0..self.task(id).dependencies.len() {
            let dep = self.task(id).dependencies.as_slice()[i];
            let (no_replica, released) = {
                let d = self.task(dep);
                (d.who_has.is_empty(), d.state == Released)
            };
            if no_replica {
                self.task_mut(id).waiting_on.insert(dep);
            }
            if released {
                self.recommend(dep, Waiting);
            } else {
                self.task_mut(dep).waiters.insert(id);
            }
        }
        let task = self.task_mut(id);
        task.waiters = waiters;
        if task.waiting_on.is_empty() {
            self.recommend(id, Processing);
        }
        start
    }

    /// The failure that keeps a task from running, if a dependency failed. While what failed is being run again its
    /// dependents are about to follow, and there is none.
    fn blame_of_dependencies(&self, id: TaskId) -> Option<TaskId> {
        let mut dependencies = self.task(id).dependencies.iter();
        dependencies.find_map(|d| {
            let dep = self.task(d);
            let blame = dep.exception_blame().filter(|_| dep.state == Erred)?;
            let failed = self.task(blame).rare.as_ref();
            failed.is_some_and(|r| r.failure.is_some()).then_some(blame)
        })
    }

    /// A failed task now shares another failure, since the first is being retried: so do those that failed with it.
    pub(super) fn pass_blame_on(&mut self, id: TaskId) {
        let blame = self.task(id).exception_blame();
        for i in 0..self.task(id).dependents.len() {
            let d = self.task(id).dependents.as_slice()[i];
            let task = self.task(d);
            let stale = task.exception_blame().is_some_and(|b| {
                let failed = self.task(b).rare.as_ref();
                failed.is_none_or(|r| r.failure.is_none())
            });
            if task.state == Erred && stale && task.exception_blame() != blame {
                self.task_mut(d).rare_mut().exception_blame = blame;
                self.recommend(d, Erred);
            }
        }
    }

    /// Forgets whose failure the task was to share.
    pub(super) fn clear_blame(&mut self, id: TaskId) {
        if let Some(rare) = &mut self.task_mut(id).rare {
            rare.exception_blame = None;
        }
    }

    pub(super) fn waiting_released(&mut self, id: TaskId, start: TaskStateName) -> TaskStateName {
        self.leave_dependencies(id, false);
        self.task_mut(id).waiting_on.clear();
        self.set_state(id, Released);
        let task = self.task(id);
        if task.has_lost_dependencies {
            self.recommend(id, Forgotten);
        } else if task.exception_blame().is_none() && !task.unneeded() {
            self.recommend(id, Waiting);
        } else {
            self.task_mut(id).waiters.clear();
        }
        start
    }

    /// The task no longer waits for its dependencies; those nobody else needs are released.
    fn leave_dependencies(&mut self, id: TaskId, skip_released: bool) {
        for i in 0..self.task(id).dependencies.len() {
            let dep = self.task(id).dependencies.as_slice()[i];
            if skip_released && self.task(dep).state == Released {
                continue;
            }
            let was = self.task_mut(dep).waiters.remove(id);
            if was || skip_released {
                self.release_if_unneeded(dep);
            }
        }
    }

    pub(super) fn waiting_processing(
        &mut self,
        id: TaskId,
        start: TaskStateName,
        stimulus: Stimulus,
    ) -> TaskStateName {
        let (worker, otherwise) = if self.is_rootish(id) {
            if self.config.worker_saturation.is_infinite() || !self.task(id).queueable {
                (self.decide_worker_rootish_queuing_disabled(id), NoWorker)
            } else {
                (self.decide_worker_rootish_queuing_enabled(), Queued)
            }
        } else {
            (self.decide_worker_non_rootish(id), NoWorker)
        };
        match worker {
            Some(w) => self.add_to_processing(id, w, stimulus),
            None => self.recommend(id, otherwise),
        }
        start
    }

    pub(super) fn waiting_queued(&mut self, id: TaskId, start: TaskStateName) -> TaskStateName {
        self.set_state(id, Queued);
        self.queue_push(id);
        start
    }

    pub(super) fn waiting_no_worker(&mut self, id: TaskId, start: TaskStateName) -> TaskStateName {
        self.set_state(id, NoWorker);
        self.unrunnable.insert(id);
        self.task_mut(id).unrunnable_since = self.clock.mono;
        start
    }

    /// Sends a task to a worker.
    pub(super) fn add_to_processing(&mut self, id: TaskId, w: WorkerId, stimulus: Stimulus) {
        self.worker_add_processing(id, w);
        self.task_mut(id).processing_on = Some(w);
        self.set_state(id, Processing);
        self.acquire_resources(id, w);
        self.check_idle_saturated(w);
        self.n_tasks += 1;
        if self.task(id).actor {
            self.worker_mut(w).actors.insert(id);
        }
        let limit = self.worker(w).info.memory_limit as i64;
        if limit > 0 && self.config.worker_terminate {
            let needed: i64 = self
                .task(id)
                .dependencies
                .iter()
                .map(|d| self.task(d).nbytes)
                .sum();
            if needed > limit {
                self.refuse_oversized(id, w, needed, stimulus);
                return;
            }
        }
        self.send_compute(id, w);
        self.stealing_on_processing(id);
    }

    /// Sends compute-task with a new run id.
    pub(super) fn send_compute(&mut self, id: TaskId, w: WorkerId) {
        let run_id = self.run_id;
        self.run_id += 1;
        self.task_mut(id).run_id = run_id;
        self.send_worker(w, ToWorker::ComputeTask { task: id, run_id });
    }

    fn refuse_oversized(&mut self, id: TaskId, w: WorkerId, needed: i64, stimulus: Stimulus) {
        let task = self.task(id);
        let worker = self.worker(w);
        let mut msg = format!(
            "Task {} has {} worth of input dependencies, but worker {} has memory_limit set to {}.",
            task.key.repr(),
            format_bytes(needed as f64),
            worker.info.address,
            format_bytes(worker.info.memory_limit as f64),
        );
        if task.dependents.is_empty() {
            msg.push_str(
                " It seems like you called client.compute() on a huge collection. Consider writing to distributed \
                 storage or slicing/reducing first.",
            );
        }
        tracing::error!("{msg}");
        let failure = Arc::new(Failure {
            exception: ErrorPayload::Pickle(write::memory_error(&msg).into()),
            traceback: ErrorPayload::Nil,
            exception_text: format!("MemoryError({msg:?})"),
            traceback_text: String::new(),
        });
        let args = ErredArgs {
            worker: Some(worker.info.address.clone()),
            cause: Some(id),
            failure: Some(failure),
        };
        self.transition(id, Erred, stimulus, &args);
    }

    /// Takes a task off its worker. None if that worker is gone.
    pub(super) fn exit_processing(&mut self, id: TaskId) -> Option<WorkerId> {
        let w = self.task_mut(id).processing_on.take()?;
        self.stealing_on_leave_processing(id);
        self.worker_remove_processing(id, w);
        if !self.is_registered(w) {
            return None;
        }
        self.release_resources(id, w);
        self.check_idle_saturated(w);
        Some(w)
    }

    pub(super) fn processing_released(
        &mut self,
        id: TaskId,
        start: TaskStateName,
        stimulus: Stimulus,
    ) -> TaskStateName {
        if self.task(id).actor
            && let Some(w) = self.task(id).processing_on
        {
            self.worker_mut(w).actors.remove(id);
        }
        if let Some(w) = self.exit_processing(id) {
            let key = self.task(id).key.clone();
            self.send_free_key(w, key, stimulus);
        }
        self.propagate_released(id);
        start
    }

    pub(super) fn propagate_released(&mut self, id: TaskId) {
        self.clear_blame(id);
        self.set_state(id, Released);
        let task = self.task(id);
        if task.has_lost_dependencies {
            self.recommend(id, Forgotten);
        } else if !task.unneeded() {
            self.recommend(id, Waiting);
        }
        if self.recommended(id) != Some(Waiting) {
            self.leave_dependencies(id, true);
            self.task_mut(id).waiters.clear();
        }
    }

    pub(super) fn processing_erred(
        &mut self,
        id: TaskId,
        start: TaskStateName,
        stimulus: Stimulus,
        args: &ErredArgs,
    ) -> TaskStateName {
        if self.task(id).actor
            && let Some(w) = self.task(id).processing_on
        {
            self.worker_mut(w).actors.remove(id);
        }
        let worker = self.exit_processing(id);
        if args.worker.is_none()
            && let Some(w) = worker
        {
            // It failed with something it needs, and its worker has not heard of that.
            let key = self.task(id).key.clone();
            self.send_free_key(w, key, stimulus);
        }
        self.propagate_erred(id, args);
        start
    }

    pub(super) fn propagate_erred(&mut self, id: TaskId, args: &ErredArgs) {
        self.set_state(id, Erred);
        let rare = self.task_mut(id).rare_mut();
        if let Some(worker) = &args.worker
            && !rare.erred_on.contains(worker)
        {
            rare.erred_on.push(worker.clone());
        }
        if let Some(failure) = &args.failure {
            rare.failure = Some(failure.clone());
        }
        let failing = args.cause.or(rare.exception_blame).unwrap_or(id);
        rare.exception_blame = Some(failing);
        let erred_on = rare.erred_on.clone();
        let (exception_text, traceback_text) =
            args.failure.as_ref().map_or_else(Default::default, |f| {
                (f.exception_text.clone(), f.traceback_text.clone())
            });
        let key = self.task(id).key.clone();
        let timestamp = self.clock.wall;
        self.erred_tasks.push_front(ErredTask {
            key,
            timestamp,
            erred_on,
            exception_text,
            traceback_text,
        });
        self.erred_tasks.truncate(ERRED_TASKS);

        for waiter in self.task_mut(id).waiters.take() {
            self.task_mut(waiter).rare_mut().exception_blame = Some(failing);
            self.recommend(waiter, Erred);
        }
        for i in 0..self.task(id).dependencies.len() {
            let dep = self.task(id).dependencies.as_slice()[i];
            self.task_mut(dep).waiters.remove(id);
            self.release_if_unneeded(dep);
        }
        self.report_erred(id, failing);
        self.fire_and_forget_done(id);
    }

    /// Tells every client that wants the task why it failed.
    pub(super) fn report_erred(&mut self, id: TaskId, failing: TaskId) {
        let wanted = self.task(id).who_wants.clone();
        if wanted.is_empty() {
            return;
        }
        let key = self.task(id).key.clone();
        let (exception, traceback) = self.failure_of(failing);
        for c in wanted {
            let (exception, traceback) = (exception.clone(), traceback.clone());
            self.send_client(
                c,
                ToClient::TaskErred {
                    key: key.clone(),
                    exception,
                    traceback,
                },
            );
        }
    }

    /// Exception and traceback of a failed task.
    pub fn failure_of(&self, failing: TaskId) -> (ErrorPayload, ErrorPayload) {
        let failure = self.tasks[failing.0 as usize]
            .as_ref()
            .and_then(|t| t.rare.as_ref()?.failure.clone());
        failure.map_or((ErrorPayload::Nil, ErrorPayload::Nil), |f| {
            (f.exception.clone(), f.traceback.clone())
        })
    }

    fn fire_and_forget_done(&mut self, id: TaskId) {
        let Some(c) = self.client_id(FIRE_AND_FORGET) else {
            return;
        };
        if self.task(id).who_wants.contains(&c) {
            self.client_releases_one(c, id);
        }
    }

    /// The task's result is on worker `w`.
    pub(super) fn add_to_memory(
        &mut self,
        id: TaskId,
        w: WorkerId,
        type_pickle: Option<bytes::Bytes>,
    ) {
        self.add_replica(id, w);
        // Recommendations are taken from the end, so the best priority goes in last.
        let n = self.task(id).dependents.len();
        if n == 1 {
            let d = self.task(id).dependents.as_slice()[0];
            self.dependency_arrived(d, id);
        } else if n > 1 {
            let mut dependents: Vec<_> = self
                .task(id)
                .dependents
                .iter()
                .filter(|d| self.task(*d).state == Waiting)
                .map(|d| (self.task(d).priority, d))
                .collect();
            dependents.sort_by(|(a, _), (b, _)| match (a, b) {
                (Some(a), Some(b)) => b.order(a),
                (a, b) => a.is_some().cmp(&b.is_some()),
            });
            for (_, d) in dependents {
                self.dependency_arrived(d, id);
            }
        }
        for i in 0..self.task(id).dependencies.len() {
            let dep = self.task(id).dependencies.as_slice()[i];
            self.task_mut(dep).waiters.remove(id);
            self.release_if_unneeded(dep);
        }
        if self.task(id).unneeded() {
            self.recommend(id, Released);
        } else {
            let task = self.task(id);
            let key = task.key.clone();
            for c in task.who_wants.clone() {
                let type_pickle = type_pickle.clone();
                self.send_client(
                    c,
                    ToClient::KeyInMemory {
                        key: key.clone(),
                        type_pickle,
                        workers: None,
                    },
                );
            }
        }
        self.set_state(id, Memory);
        self.fire_and_forget_done(id);
    }

    fn dependency_arrived(&mut self, dependent: TaskId, dep: TaskId) {
        let task = self.task_mut(dependent);
        if task.waiting_on.remove(dep) && task.waiting_on.is_empty() {
            self.recommend(dependent, Processing);
        }
    }

    pub(super) fn memory_released(
        &mut self,
        id: TaskId,
        start: TaskStateName,
        stimulus: Stimulus,
    ) -> TaskStateName {
        if self.task(id).actor {
            for w in self.task(id).who_has.clone() {
                self.worker_mut(w).actors.remove(id);
            }
            if !self.task(id).who_wants.is_empty() {
                let failure = actor_lost();
                let rare = self.task_mut(id).rare_mut();
                rare.exception_blame = Some(id);
                rare.failure = Some(failure);
                self.recommend(id, Erred);
                return start;
            }
        }
        let key = self.task(id).key.clone();
        for w in self.remove_all_replicas(id) {
            self.send_free_key(w, key.clone(), stimulus);
        }
        self.set_state(id, Released);
        for c in self.task(id).who_wants.clone() {
            self.send_client(c, ToClient::LostData { key: key.clone() });
        }
        let task = self.task(id);
        if task.spec.is_none() || task.has_lost_dependencies {
            self.recommend(id, Forgotten);
        } else if !task.unneeded() {
            self.recommend(id, Waiting);
        }
        for i in 0..self.task(id).waiters.len() {
            let waiter = self.task(id).waiters.as_slice()[i];
            match self.task(waiter).state {
                NoWorker | Processing | Queued => self.recommend(waiter, Waiting),
                Waiting => {
                    self.task_mut(waiter).waiting_on.insert(id);
                }
                _ => {}
            }
        }
        start
    }

    pub(super) fn memory_erred(
        &mut self,
        id: TaskId,
        start: TaskStateName,
        stimulus: Stimulus,
    ) -> TaskStateName {
        let key = self.task(id).key.clone();
        for w in self.remove_all_replicas(id) {
            self.worker_mut(w).actors.remove(id);
            self.send_free_key(w, key.clone(), stimulus);
        }
        for i in 0..self.task(id).dependents.len() {
            let d = self.task(id).dependents.as_slice()[i];
            if self.task(d).who_has.is_empty() {
                self.task_mut(d).rare_mut().exception_blame = Some(id);
                self.recommend(d, Erred);
            }
        }
        let args = ErredArgs {
            worker: None,
            cause: Some(id),
            failure: Some(actor_lost()),
        };
        self.propagate_erred(id, &args);
        start
    }

    pub(super) fn released_erred(&mut self, id: TaskId, start: TaskStateName) -> TaskStateName {
        let failing = self.task(id).exception_blame().unwrap_or(id);
        for i in 0..self.task(id).dependents.len() {
            let d = self.task(id).dependents.as_slice()[i];
            if self.task(d).who_has.is_empty() {
                self.task_mut(d).rare_mut().exception_blame = Some(failing);
                self.recommend(d, Erred);
            }
        }
        self.leave_dependencies(id, true);
        self.task_mut(id).waiters.clear();
        self.report_erred(id, failing);
        self.set_state(id, Erred);
        self.fire_and_forget_done(id);
        start
    }

    pub(super) fn erred_released(
        &mut self,
        id: TaskId,
        start: TaskStateName,
        stimulus: Stimulus,
    ) -> TaskStateName {
        let mut erred_on = Vec::new();
        if let Some(rare) = &mut self.task_mut(id).rare {
            rare.exception_blame = None;
            rare.failure = None;
            erred_on = std::mem::take(&mut rare.erred_on);
        }
        for i in 0..self.task(id).dependents.len() {
            let d = self.task(id).dependents.as_slice()[i];
            if self.task(d).state == Erred {
                self.recommend_retry(d);
            }
        }
        let key = self.task(id).key.clone();
        for address in erred_on {
            if let Some(w) = self.worker_id(&address) {
                self.send_free_key(w, key.clone(), stimulus);
            }
        }
        for c in self.task(id).who_wants.clone() {
            self.send_client(c, ToClient::TaskRetried { key: key.clone() });
        }
        self.set_state(id, Released);
        let task = self.task(id);
        if task.has_lost_dependencies {
            self.recommend(id, Forgotten);
        } else if !task.unneeded() {
            self.recommend(id, Waiting);
        }
        start
    }

    /// Recommends to run a failed task again, if its result is wanted; else to release it, and those that need it will
    /// ask for it. Stock Dask runs again what nobody needs, too.
    pub(super) fn recommend_retry(&mut self, id: TaskId) {
        let wanted = !self.task(id).unneeded();
        self.recommend(id, if wanted { Waiting } else { Released });
    }

    pub(super) fn forget(
        &mut self,
        id: TaskId,
        start: TaskStateName,
        stimulus: Stimulus,
    ) -> TaskStateName {
        if self.task(id).actor {
            for w in self.task(id).who_has.clone() {
                self.worker_mut(w).actors.remove(id);
            }
        }
        self.hand_over_failure(id);
        self.set_state(id, Forgotten);
        for d in self.task_mut(id).dependents.take() {
            if let Some(w) = self.task(d).processing_on {
                self.worker_needs_less(w, id);
            }
            let task = self.task_mut(d);
            task.has_lost_dependencies = true;
            task.dependencies.remove(id);
            task.waiting_on.remove(id);
            if !matches!(task.state, Memory | Erred) {
                self.recommend(d, Forgotten);
            }
        }
        self.task_mut(id).waiters.clear();
        for dep in self.task_mut(id).dependencies.take() {
            let task = self.task_mut(dep);
            task.dependents.remove(id);
            task.waiters.remove(id);
            if task.dependents.is_empty() && task.who_wants.is_empty() {
                self.recommend(dep, Forgotten);
            }
        }
        self.task_mut(id).waiting_on.clear();
        let key = self.task(id).key.clone();
        for w in self.remove_all_replicas(id) {
            self.send_free_key(w, key.clone(), stimulus);
        }
        self.remove_task(id);
        start
    }

    /// Takes a forgotten task out of every table.
    fn remove_task(&mut self, id: TaskId) {
        self.unrunnable.remove(id);
        self.unrecommend(id);
        let Some(task) = self.tasks[id.0 as usize].take() else {
            return;
        };
        self.task_index.remove(&task.key);
        if !task.who_wants.is_empty() {
            let keys = Arc::new(vec![task.key.clone()]);
            for c in &task.who_wants {
                self.client_mut(*c).wants_what.remove(id);
                let (reason, msg) = (Arc::from("already forgotten"), None);
                self.send_client(
                    *c,
                    ToClient::CancelledKeys {
                        keys: keys.clone(),
                        reason,
                        msg,
                    },
                );
            }
        }
        self.free_tasks.push(id);
        self.drop_group_if_forgotten(task.group);
    }

    /// A failed task is about to be forgotten while dependents that share its failure may live on: each gets its own
    /// copy of the failure, since the id will be reused.
    fn hand_over_failure(&mut self, gone: TaskId) {
        let Some(failure) = self
            .task(gone)
            .rare
            .as_ref()
            .and_then(|r| r.failure.clone())
        else {
            return;
        };
        let mut stack: Vec<TaskId> = self.task(gone).dependents.iter().collect();
        while let Some(id) = stack.pop() {
            if self.task(id).exception_blame() != Some(gone) {
                continue;
            }
            let rare = self.task_mut(id).rare_mut();
            rare.exception_blame = Some(id);
            rare.failure = Some(failure.clone());
            stack.extend(self.task(id).dependents.iter());
        }
    }
}

/// The failure of an actor whose worker is gone.
fn actor_lost() -> Arc<Failure> {
    let text = "Worker holding Actor was lost";
    Arc::new(Failure {
        exception: ErrorPayload::Pickle(write::runtime_error(text).into()),
        traceback: ErrorPayload::Nil,
        exception_text: format!("RuntimeError('{text}')"),
        traceback_text: String::new(),
    })
}

/// Bytes for people, as `dask.utils.format_bytes`.
pub fn format_bytes(n: f64) -> String {
    for (unit, size) in [
        ("PiB", 50),
        ("TiB", 40),
        ("GiB", 30),
        ("MiB", 20),
        ("kiB", 10),
    ] {
        let k = (1u64 << size) as f64;
        if n >= k * 0.9 {
            return format!("{:.2} {unit}", n / k);
        }
    }
    format!("{n} B")
}
