//! Workers joining, reporting, changing status and leaving.

use std::sync::Arc;

use super::ids::{TaskId, WorkerId};
use super::out::{Out, ToWorker};
use super::state::State;
use super::task::{ErrorPayload, Failure, TaskStateName};
use super::transitions::ErredArgs;
use super::worker::{Status, Worker, WorkerInfo, WorkerMetrics};
use crate::protocol::pickle::write;
use crate::protocol::{Key, Value};

use TaskStateName::{Erred, Forgotten, Processing, Released};

/// Why a worker cannot register.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The address is taken.
    #[error("Worker already exists {0}")]
    AddressTaken(Arc<str>),
    /// The name is taken.
    #[error("name taken, {0}")]
    NameTaken(String),
}

/// Seconds between two heartbeats, growing with the number of workers (or clients).
pub fn heartbeat_interval(n: usize) -> f64 {
    match n {
        0..=10 => 0.5,
        11..50 => 1.0,
        50..200 => 2.0,
        _ => n as f64 / 200.0 + 1.0,
    }
}

impl State {
    /// A worker registers.
    pub fn add_worker(
        &mut self,
        info: WorkerInfo,
        status: Status,
    ) -> Result<WorkerId, RegisterError> {
        if self.worker_id(&info.address).is_some() {
            return Err(RegisterError::AddressTaken(info.address));
        }
        let alias = alias_of(&info.name);
        if self.aliases.contains_key(&alias) {
            return Err(RegisterError::NameTaken(alias));
        }
        let address = info.address.clone();
        self.log_action(&[&address], "add-worker", &[]);
        self.log_action(&["all"], "add-worker", &[("worker", (*address).into())]);
        let id = WorkerId(self.workers.len() as u32);
        self.hosts
            .entry(info.host.clone())
            .or_default()
            .addresses
            .push(address.clone());
        self.total_memory += info.memory_limit;
        self.total_nthreads += info.nthreads;
        self.worker_index.insert(address, id);
        self.aliases.insert(alias, id);
        let resources = info.resources.clone();
        self.workers.push(Worker::new(info, status));
        self.live_workers.insert(id);
        self.totals.workers_added += 1;
        self.supply_resources(id, &resources);
        self.worker_mut(id).last_seen = self.clock.wall;
        if status == Status::Running {
            self.running.insert(id);
        }
        self.check_idle_saturated(id);
        self.refresh_no_workers_since();
        if status == Status::Running {
            self.worker_became_running(id);
        } else {
            // Its name may stand for a host on which others run.
            self.reconsider_unrunnable("add-worker");
        }
        Ok(id)
    }

    fn worker_became_running(&mut self, id: WorkerId) {
        let stimulus = self.stimulus("worker-running");
        let fits = |valid: Option<Vec<WorkerId>>| valid.is_none_or(|list| list.contains(&id));
        let runnable = self.unrunnable.iter().filter(|task| {
            fits(self.valid_workers(*task))
                || self.task(*task).loose_restrictions() && fits(self.with_resources(*task))
        });
        let runnable = runnable.collect();
        self.recommend_processing(runnable);
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
    }

    /// Gives out the tasks without worker that can run after all: what they ask for, or what workers have, changed.
    pub(super) fn reconsider_unrunnable(&mut self, kind: &'static str) {
        let stimulus = self.stimulus(kind);
        let unrunnable = self.unrunnable.iter();
        let runnable = unrunnable.filter(|task| self.decide_worker_non_rootish(*task).is_some());
        let runnable = runnable.collect();
        self.recommend_processing(runnable);
        self.run_transitions(stimulus);
    }

    /// Recommends to process these tasks, best priority first.
    fn recommend_processing(&mut self, mut runnable: Vec<TaskId>) {
        // Recommendations are taken from the end, so the best priority goes in last.
        runnable.sort_by(
            |a, b| match (self.task(*a).priority, self.task(*b).priority) {
                (Some(a), Some(b)) => b.order(&a),
                (a, b) => a.is_some().cmp(&b.is_some()),
            },
        );
        for task in runnable {
            self.recommend(task, Processing);
        }
    }

    /// Sets how much a worker has of each resource.
    pub fn set_resources(&mut self, id: WorkerId, resources: &[(Arc<str>, f64)]) {
        self.supply_resources(id, resources);
        self.reconsider_unrunnable("set-resources");
    }

    fn supply_resources(&mut self, id: WorkerId, resources: &[(Arc<str>, f64)]) {
        for (name, amount) in resources {
            self.resources
                .entry(name.clone())
                .or_default()
                .insert(id, *amount);
            let worker = self.worker_mut(id);
            match worker.info.resources.iter_mut().find(|(n, _)| n == name) {
                Some((_, have)) => *have = *amount,
                None => worker.info.resources.push((name.clone(), *amount)),
            }
            match worker.used_resources.iter_mut().find(|(n, _)| n == name) {
                Some((_, used)) => *used = 0.0,
                None => worker.used_resources.push((name.clone(), 0.0)),
            }
        }
    }

    /// A worker's status changed, by its own word or by ours.
    pub fn set_worker_status(&mut self, id: WorkerId, status: Status) {
        if !self.is_registered(id) || self.worker(id).status == status {
            return;
        }
        let previous = std::mem::replace(&mut self.worker_mut(id).status, status);
        let address = self.worker(id).info.address.clone();
        let stimulus = self.stimulus("worker-status-change").to_string();
        let fields = [
            ("prev-status", Value::from(previous.as_str())),
            ("status", status.as_str().into()),
            ("stimulus_id", stimulus.as_str().into()),
        ];
        self.log_action(&[&address], "worker-status-change", &fields);
        if status == Status::Running {
            self.running.insert(id);
            self.check_idle_saturated(id);
            self.refresh_no_workers_since();
            self.worker_became_running(id);
        } else {
            self.running.remove(id);
            self.idle.remove(id);
            self.idle_task_count.remove(id);
            self.saturated.remove(id);
            self.refresh_no_workers_since();
        }
    }

    /// Notes since when tasks wait and no worker takes work.
    pub(super) fn refresh_no_workers_since(&mut self) {
        if !self.running.is_empty() || (self.queued_len == 0 && self.unrunnable.is_empty()) {
            self.no_workers_since = None;
        } else if self.no_workers_since.is_none() {
            self.no_workers_since = Some(self.clock.mono);
        }
    }

    /// A worker's heartbeat.
    pub fn heartbeat(
        &mut self,
        id: WorkerId,
        metrics: WorkerMetrics,
        bandwidth: Option<f64>,
        executing: &[(Key, f64)],
        worker_now: Option<f64>,
    ) {
        let now = self.clock.wall;
        let n = self.live_workers.len().max(1) as f64;
        if let Some(b) = bandwidth.filter(|b| b.is_finite() && *b > 0.0) {
            self.bandwidth = self.bandwidth * (1.0 - 1.0 / n) + b / n;
        }
        let running: Vec<(TaskId, f64)> = executing
            .iter()
            .filter_map(|(k, s)| Some((self.task_id(k)?, *s)))
            .collect();
        for (task, seconds) in &running {
            let prefix = self.task(*task).prefix;
            let p = &mut self.prefixes[prefix.0 as usize];
            p.max_exec_time = p.max_exec_time.max(*seconds);
            if p.duration_average >= 0.0 && p.max_exec_time > 2.0 * p.duration_average {
                p.duration_average = -1.0;
            }
        }
        let old_age = now - self.config.memory_recent_to_old;
        let worker = self.worker_mut(id);
        worker.last_seen = now;
        worker.executing = running
            .into_iter()
            .filter(|(t, _)| worker.processing.contains(*t))
            .collect();
        if let Some(t) = worker_now {
            worker.time_delay = now - t;
        }
        let unmanaged = (metrics.memory - worker.nbytes + metrics.spilled_memory).max(0);
        worker.metrics = metrics;
        while worker
            .unmanaged_history
            .front()
            .is_some_and(|(t, _)| *t < old_age)
        {
            worker.unmanaged_history.pop_front();
        }
        worker.unmanaged_history.push_back((now, unmanaged));
        worker.unmanaged_old = worker
            .unmanaged_history
            .iter()
            .map(|(_, n)| *n)
            .min()
            .unwrap_or(0);
    }

    /// A worker is gone, or is told to go (`close`). `expected`: its tasks are not to blame.
    pub fn remove_worker(&mut self, id: WorkerId, expected: bool, close: bool) -> bool {
        if !self.is_registered(id) {
            return false;
        }
        let stimulus = self.stimulus("remove-worker");
        if close {
            self.send_worker(
                id,
                ToWorker::Close {
                    reason: "scheduler-remove-worker",
                },
            );
        }
        self.out.push(Out::DropWorker(id));
        let address = self.unregister_worker(id);

        let mut processing_keys = Vec::new();
        for task in self.worker(id).processing.as_slice().to_vec() {
            processing_keys.push(self.task(task).key.to_value());
            self.recommend(task, Released);
            if !expected {
                self.blame_lost_worker(task, id, stimulus);
            }
        }
        let (recompute, lost) = self.drop_data_of(id);
        self.log_lost_data(&address, &recompute, &lost);
        let keys = |list: &[Key]| Value::Array(list.iter().map(Key::to_value).collect());
        let fields = [
            ("processing-tasks", Value::Array(processing_keys)),
            ("lost-computed-tasks", keys(&recompute)),
            ("lost-scattered-tasks", keys(&lost)),
            ("stimulus_id", stimulus.to_string().as_str().into()),
            ("expected", expected.into()),
        ];
        self.log_action(&[&address], "remove-worker", &fields);
        let mut all = fields.to_vec();
        all.push(("worker", (*address).into()));
        self.log_action(&["all"], "remove-worker", &all);

        self.run_transitions(stimulus);
        self.refresh_no_workers_since();
        self.stealing_on_remove_worker(id);
        self.shuffle_on_remove_worker(&address, stimulus);
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
        if self.live_workers.is_empty() {
            tracing::info!("Lost all workers");
        }
        for w in self.live_workers.as_slice().to_vec() {
            self.send_worker(
                w,
                ToWorker::RemoveWorker {
                    address: address.clone(),
                    stimulus,
                },
            );
        }
        let worker = self.worker_mut(id);
        worker.processing.clear();
        worker.long_running.clear();
        worker.has_what.clear();
        worker.actors.clear();
        worker.executing.clear();
        worker.needs_what = Default::default();
        worker.metrics = WorkerMetrics::default();
        worker.unmanaged_history = Default::default();
        worker.info.versions = Value::Nil;
        self.drop_topic_later(address);
        true
    }

    /// Takes a worker out of every table but those of its tasks and data.
    fn unregister_worker(&mut self, id: WorkerId) -> Arc<str> {
        let info = self.worker(id).info.clone();
        for supply in self.resources.values_mut() {
            supply.remove(&id);
        }
        if let Some(host) = self.hosts.get_mut(&info.host) {
            host.addresses.retain(|a| *a != info.address);
            if host.addresses.is_empty() {
                self.hosts.remove(&info.host);
            }
        }
        self.total_memory -= info.memory_limit;
        self.total_nthreads -= info.nthreads;
        self.aliases.remove(&alias_of(&info.name));
        self.worker_index.remove(&info.address);
        self.live_workers.remove(id);
        self.running.remove(id);
        self.idle.remove(id);
        self.idle_task_count.remove(id);
        self.saturated.remove(id);
        self.network_occ -= self.worker(id).network_occ.min(self.network_occ);
        let worker = self.worker_mut(id);
        worker.network_occ = 0;
        worker.needs_what = Default::default();
        worker.status = Status::Closed;
        self.totals.workers_removed += 1;
        info.address
    }

    /// A task was running on a worker that died: after too many deaths it is to blame.
    fn blame_lost_worker(&mut self, task: TaskId, w: WorkerId, stimulus: super::out::Stimulus) {
        let prefix = self.task(task).prefix;
        self.prefixes[prefix.0 as usize].suspicious += 1;
        let allowed = self.config.allowed_failures;
        let rare = self.task_mut(task).rare_mut();
        rare.suspicious += 1;
        if rare.suspicious <= allowed {
            return;
        }
        let suspicious = rare.suspicious;
        self.unrecommend(task);
        let key = self.task(task).key.clone();
        let address = self.worker(w).info.address.clone();
        let text = format!(
            "Attempted to run task {} on {} different workers, but all those workers died while running it. The last \
             worker that attempt to run the task was {address}.",
            key.repr(),
            allowed + 1,
        );
        tracing::error!(key = %key, "task marked as failed because {suspicious} workers died while trying to run it");
        let failure = Arc::new(Failure {
            exception: ErrorPayload::Pickle(
                write::killed_worker(&key, &address, allowed.into()).into(),
            ),
            traceback: ErrorPayload::Nil,
            exception_text: format!("KilledWorker({text:?})"),
            traceback_text: String::new(),
        });
        let args = ErredArgs {
            worker: Some(address),
            cause: Some(task),
            failure: Some(failure),
        };
        self.transition(task, Erred, stimulus, &args);
    }

    /// The data of a lost worker: computed results are computed again, scattered ones are gone.
    fn drop_data_of(&mut self, id: WorkerId) -> (Vec<Key>, Vec<Key>) {
        let (mut recompute, mut lost) = (Vec::new(), Vec::new());
        for task in self.worker(id).has_what.as_slice().to_vec() {
            self.remove_replica(task, id);
            if self.worker(id).actors.contains(task) {
                self.recommend(task, Erred);
            } else if self.task(task).who_has.is_empty() {
                if self.task(task).spec.is_some() {
                    recompute.push(self.task(task).key.clone());
                    self.recommend(task, Released);
                } else {
                    lost.push(self.task(task).key.clone());
                    self.recommend(task, Forgotten);
                }
            }
        }
        (recompute, lost)
    }

    fn log_lost_data(&self, address: &str, recompute: &[Key], lost: &[Key]) {
        let some = |keys: &[Key]| {
            let mut text = keys
                .iter()
                .take(10)
                .map(Key::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            if keys.len() > 10 {
                text.push_str(", …");
            }
            text
        };
        if !recompute.is_empty() {
            tracing::warn!(
                "Removing worker {address:?} caused the cluster to lose {} already computed task(s), which will be \
                 recomputed elsewhere: {}",
                recompute.len(),
                some(recompute)
            );
        }
        if !lost.is_empty() {
            tracing::error!(
                "Removing worker {address:?} caused the cluster to lose {} scattered result(s), which can't be \
                 recovered: {}",
                lost.len(),
                some(lost)
            );
        }
    }
}

/// The text under which a worker's name is looked up: names may be integers, and users give either form.
pub fn alias_of(name: &Value) -> String {
    match name {
        Value::Str(_) => name.as_str().unwrap_or_default().to_string(),
        Value::Int(n) => n.to_string(),
        other => format!("{other:?}"),
    }
}
