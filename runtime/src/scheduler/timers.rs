//! What happens by time alone.
//!
//! Each job is due at a time, or never while there is nothing for it to do: an idle scheduler sleeps.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ids::{TaskId, WorkerId};
use super::membership::heartbeat_interval;
use super::state::State;
use super::task::{ErrorPayload, Failure, TaskStateName};
use super::transitions::ErredArgs;
use crate::protocol::Value;
use crate::protocol::pickle::write as pickle;

/// Interval of the checks for idleness and for tasks without workers, s.
const CHECK_INTERVAL: f64 = 0.25;

/// Topics of gone workers and clients that wait to be dropped.
const MAX_CLEANUPS: usize = 100_000;

/// Difference by which the wall clock may run ahead of the monotonic one between two checks of workers, s.
const CLOCK_JUMP: f64 = 5.0;

/// Next times of the periodic jobs, on the monotonic clock, s.
#[derive(Clone, Debug)]
pub struct Timers {
    pub(super) shutdown: Option<String>,
    idle: f64,
    no_workers: f64,
    stealing: f64,
    amm: f64,
    ttl: f64,
    /// Monotonic counterpart of `State::idle_since`.
    idle_since_mono: f64,
    /// Wall less monotonic time at the last check of workers.
    clock_offset: f64,
    stale_workers: Vec<WorkerId>,
    cleanups: VecDeque<(f64, Arc<str>)>,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            shutdown: None,
            idle: NEVER,
            no_workers: NEVER,
            stealing: NEVER,
            amm: NEVER,
            ttl: NEVER,
            idle_since_mono: 0.0,
            clock_offset: 0.0,
            stale_workers: Vec::new(),
            cleanups: VecDeque::new(),
        }
    }
}

const NEVER: f64 = f64::INFINITY;

/// Arms a job that has become needed, and tells whether it is due now; if so the next time is set.
fn due(at: &mut f64, needed: bool, now: f64, interval: f64) -> bool {
    if !needed {
        *at = NEVER;
        return false;
    }
    if *at == NEVER {
        *at = now + interval;
        return false;
    }
    if now < *at {
        return false;
    }
    *at = now + interval;
    true
}

impl State {
    /// Sets the timers going: idleness and the lack of workers count from now.
    pub fn start_timers(&mut self) {
        self.idle_since = Some(self.clock.wall);
        self.idle_transition_counter = self.transition_counter;
        self.timers = Timers {
            idle_since_mono: self.clock.mono,
            clock_offset: self.clock.wall - self.clock.mono,
            ..Timers::default()
        };
    }

    /// Runs what is due; the monotonic time of the next job, infinite if there is none. To be called after every
    /// batch of events: what they bring may need a job that slept.
    pub fn run_timers(&mut self) -> f64 {
        let now = self.clock.mono;
        let busy = !self.active_prefixes.is_empty();
        let c = &self.config;
        let active = self.transition_counter != self.idle_transition_counter
            || self.active_graph_updates > 0
            || self.idle_since.is_none()
            || c.idle_timeout.is_some();
        let waiting =
            c.no_workers_timeout.is_some() && (!self.unrunnable.is_empty() || self.queued_len > 0);
        let steal = c.work_stealing && busy && self.live_workers.len() > 1;
        let ttl = c.worker_ttl.filter(|_| !self.live_workers.is_empty());
        let (steal_interval, amm_interval) = (c.work_stealing_interval, self.amm_interval());
        let manage = self.amm_has_work();

        let t = &mut self.timers;
        let idle = due(&mut t.idle, active, now, CHECK_INTERVAL);
        let no_workers = due(&mut t.no_workers, waiting, now, CHECK_INTERVAL);
        let steal = due(&mut t.stealing, steal, now, steal_interval);
        let manage = due(&mut t.amm, manage, now, amm_interval);
        let ttl = due(&mut t.ttl, ttl.is_some(), now, ttl.unwrap_or(0.0));
        if idle {
            self.check_idle();
        }
        if no_workers {
            self.check_no_workers();
        }
        if steal {
            self.stealing_balance();
        }
        if manage {
            self.amm_run_due();
        }
        if ttl {
            self.check_worker_ttl();
        }
        self.drop_old_topics();
        let sample = self.take_memory_samples();

        let t = &self.timers;
        let cleanup = t.cleanups.front().map_or(NEVER, |(at, _)| *at);
        [
            t.idle,
            t.no_workers,
            t.stealing,
            t.amm,
            t.ttl,
            cleanup,
            sample,
        ]
        .into_iter()
        .fold(NEVER, f64::min)
    }

    /// Why the scheduler should end, if it should.
    pub fn take_shutdown_request(&mut self) -> Option<String> {
        self.timers.shutdown.take()
    }

    /// Workers that have not been heard of for too long: those with a nanny are to be restarted, the others removed.
    pub fn take_stale_workers(&mut self) -> Vec<WorkerId> {
        std::mem::take(&mut self.timers.stale_workers)
    }

    // ---- idleness

    /// Since when there has been nothing to do, s since the epoch. Asks for the end of the scheduler if that is longer
    /// ago than `distributed.scheduler.idle-timeout`.
    pub fn check_idle(&mut self) -> Option<f64> {
        let moved = self.transition_counter != self.idle_transition_counter;
        self.idle_transition_counter = self.transition_counter;
        if moved
            || self.active_graph_updates > 0
            || self.queued_len > 0
            || !self.unrunnable.is_empty()
            || self
                .live_workers
                .iter()
                .any(|w| !self.worker(w).processing.is_empty())
        {
            self.idle_since = None;
            return None;
        }
        let Some(since) = self.idle_since else {
            self.idle_since = Some(self.clock.wall);
            self.timers.idle_since_mono = self.clock.mono;
            return self.idle_since;
        };
        if let Some(timeout) = self.config.idle_timeout
            && self.clock.mono > self.timers.idle_since_mono + timeout
        {
            tracing::info!("Scheduler closing after being idle for {timeout} s");
            self.timers.shutdown = Some("idle-timeout-exceeded".into());
        }
        Some(since)
    }

    /// Something outside the task graph was used (a notebook on the scheduler, say): idleness counts from now.
    pub fn note_activity(&mut self) {
        if self.idle_since.is_some() {
            self.idle_since = Some(self.clock.wall);
            self.timers.idle_since_mono = self.clock.mono;
        }
    }

    // ---- tasks without workers

    fn check_no_workers(&mut self) {
        let Some(timeout) = self.config.no_workers_timeout else {
            return;
        };
        self.refresh_no_workers_since();
        let now = self.clock.mono;
        let mut failed = Vec::new();
        for id in self.unrunnable.as_slice().to_vec() {
            let since = self.task(id).unrunnable_since;
            if now <= since + timeout {
                continue;
            }
            let workerless = self.no_workers_since.is_some_and(|t| t <= since);
            failed.push((id, !workerless));
        }
        if self.no_workers_since.is_some_and(|t| now > t + timeout) {
            failed.extend(self.queued_tasks().map(|id| (id, false)));
        }
        if failed.is_empty() {
            return;
        }
        let mut keys = Vec::new();
        let stimulus = self.stimulus("check-no-workers-timeout");
        for (id, restricted) in failed {
            // A failure may take others of the list with it.
            if !matches!(
                self.live_task(id).map(|t| t.state),
                Some(TaskStateName::NoWorker | TaskStateName::Queued)
            ) {
                continue;
            }
            keys.push(self.task(id).key.to_value());
            let args = ErredArgs {
                worker: None,
                cause: Some(id),
                failure: Some(Arc::new(self.no_workers_failure(id, restricted, timeout))),
            };
            self.transition(id, TaskStateName::Erred, stimulus, &args);
            self.run_transitions(stimulus);
        }
        self.log_action(
            &["scheduler"],
            "no-workers-timeout-exceeded",
            &[("keys", Value::Array(keys))],
        );
    }

    fn no_workers_failure(&self, id: TaskId, restricted: bool, timeout: f64) -> Failure {
        let task = self.task(id);
        let key = &task.key;
        let (pickle, name) = if restricted {
            let r = task.restrictions().cloned().unwrap_or_default();
            tracing::error!(key = %key, "task failed: it timed out waiting for its restrictions to become satisfied");
            let texts = |list: &[Arc<str>]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
            let resources = r.resources.iter().map(|(n, x)| (n.to_string(), *x));
            let (hosts, workers) = (texts(&r.hosts), texts(&r.workers));
            (
                pickle::no_valid_worker_error(key, hosts, workers, resources, timeout),
                "NoValidWorkerError",
            )
        } else {
            tracing::error!(key = %key, "task failed: it timed out waiting without any running workers");
            (pickle::no_worker_error(key, timeout), "NoWorkerError")
        };
        Failure {
            exception: ErrorPayload::Pickle(pickle.into()),
            traceback: ErrorPayload::Nil,
            exception_text: format!("{name}({}, {timeout})", key.repr()),
            traceback_text: String::new(),
        }
    }

    // ---- silent workers

    fn check_worker_ttl(&mut self) {
        let Some(ttl) = self.config.worker_ttl else {
            return;
        };
        let offset = self.clock.wall - self.clock.mono;
        let jump = offset - std::mem::replace(&mut self.timers.clock_offset, offset);
        if jump > CLOCK_JUMP {
            // Set forward, or the machine slept: the workers are not to blame.
            return;
        }
        let ttl = ttl.max(10.0 * heartbeat_interval(self.live_workers.len()));
        let mut stale = Vec::new();
        for w in self.live_workers.iter() {
            let worker = self.worker(w);
            let silent = self.clock.wall - worker.last_seen;
            if silent > ttl {
                let what = match worker.info.nanny {
                    Some(_) => "attempting restart",
                    None => "removing",
                };
                tracing::warn!(worker = %worker.info.address, "Worker failed to heartbeat for {silent:.0}s; {what}");
                stale.push(w);
            }
        }
        if stale.is_empty() {
            return;
        }
        let addresses = stale
            .iter()
            .map(|w| Value::from(&*self.worker(*w).info.address))
            .collect();
        let fields = [("workers", Value::Array(addresses)), ("ttl", ttl.into())];
        self.log_action(&["scheduler"], "worker-ttl-timed-out", &fields);
        self.timers.stale_workers = stale;
    }

    // ---- events

    /// The events of a gone worker or client are dropped after a while.
    pub(super) fn drop_topic_later(&mut self, topic: Arc<str>) {
        if self.timers.cleanups.len() >= MAX_CLEANUPS {
            self.drop_next_topic();
        }
        let at = self.clock.mono + self.config.events_cleanup_delay;
        self.timers.cleanups.push_back((at, topic));
    }

    fn drop_old_topics(&mut self) {
        while let Some((at, _)) = self.timers.cleanups.front()
            && *at <= self.clock.mono
        {
            self.drop_next_topic();
        }
    }

    fn drop_next_topic(&mut self) {
        if let Some((_, topic)) = self.timers.cleanups.pop_front()
            && self.worker_id(&topic).is_none()
            && self.client_id(&topic).is_none()
        {
            self.events.truncate(&topic);
        }
    }
}

#[cfg(test)]
#[path = "timers_tests.rs"]
mod tests;
