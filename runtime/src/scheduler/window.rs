//! How many root tasks a worker gets ahead.
//!
//! By default a worker gets about one root task a thread beyond those that run (`worker-saturation`), so that results
//! do not pile up. When tasks take a millisecond, each round trip then costs more than the work. While the tasks at
//! the head of the queue are known to be short and their results small, workers therefore get about [`AHEAD_S`]
//! seconds of work at once, and the next lot when half of it is done: fewer and larger messages, and neighbours in
//! the order of the graph meet on one worker.
//!
//! The window shrinks by itself as the queue ends, so that the last tasks spread over all workers, and is not used as
//! soon as the average duration grows.

use super::ids::{PrefixId, TaskId, WorkerId};
use super::state::State;
use super::task::TaskStateName;
use super::transitions::ErredArgs;
use super::worker::Worker;

/// Work sent ahead, s.
const AHEAD_S: f64 = 0.020;

/// Average duration from which on tasks are not short, s.
const SHORT_S: f64 = 0.010;

/// Most tasks sent ahead per thread.
const MOST_PER_THREAD: f64 = 64.0;

/// Most tasks sent ahead to a worker. Many threads of short Python tasks do not finish more of them.
const MOST_PER_WORKER: i64 = 128;

/// Share of a worker's memory that the results of the tasks ahead may take.
const MEMORY_SHARE: f64 = 0.01;

/// Memory assumed of workers without a limit, bytes.
const ASSUMED_MEMORY: f64 = (1u64 << 30) as f64;

/// Shortest time between two changes that make all workers be looked at, s.
const MARK_INTERVAL: f64 = 0.005;

/// The window in use.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Prefix of the queue's head; only its tasks may be sent ahead.
    prefix: Option<PrefixId>,
    /// Tasks of that prefix ahead per thread, a power of two; 0: as `worker-saturation` says.
    per_thread: u32,
    /// The window by which `State::idle_task_count` was filled.
    marks: u32,
    next_marks: f64,
    /// The worker that is being filled.
    refill: Option<WorkerId>,
    /// The worker chosen for the task whose transition comes next.
    chosen: Option<WorkerId>,
    /// Least memory per thread of any worker, bytes, and the counts of workers it was taken at.
    memory_per_thread: f64,
    members: (u64, u64),
}

impl Default for Window {
    fn default() -> Self {
        Self {
            prefix: None,
            per_thread: 0,
            marks: 0,
            next_marks: 0.0,
            refill: None,
            chosen: None,
            memory_per_thread: ASSUMED_MEMORY,
            members: (0, 0),
        }
    }
}

impl Worker {
    /// Tasks it has been sent that occupy its threads or wait for one.
    #[inline]
    fn backlog(&self) -> i64 {
        self.processing.len() as i64 - self.long_running.len() as i64
    }

    /// Root tasks it may have under `saturation` (tasks per thread).
    #[inline]
    fn capacity(&self, saturation: f64) -> i64 {
        if saturation.is_infinite() {
            return i64::MAX;
        }
        ((saturation * f64::from(self.info.nthreads)).ceil() as i64).max(1)
    }

    /// Root tasks it may have under a window.
    #[inline]
    fn window(&self, per_thread: u32) -> i64 {
        (i64::from(per_thread) * i64::from(self.info.nthreads)).min(MOST_PER_WORKER)
    }
}

impl State {
    /// Whether the worker counts as one with a free slot for root tasks.
    #[inline]
    pub(super) fn has_free_slot(&self, w: WorkerId) -> bool {
        let worker = self.worker(w);
        let mut slots = worker.capacity(self.config.worker_saturation);
        if self.window.marks != 0 {
            // Filled up only when half of it is done: a lot travels in one message.
            slots = slots.max(worker.window(self.window.marks) / 2);
        }
        worker.backlog() < slots
    }

    /// Whether the worker has fewer root tasks than `worker-saturation` alone would give it.
    pub(super) fn is_below_saturation(&self, w: WorkerId) -> bool {
        let worker = self.worker(w);
        worker.backlog() < worker.capacity(self.config.worker_saturation)
    }

    /// The least busy worker with a free slot, for a task that has just become ready.
    pub(super) fn decide_worker_rootish_queuing_enabled(&self) -> Option<WorkerId> {
        if self.window.marks == 0 {
            return self.least_busy();
        }
        if self.queued_len > 0 {
            // Those in the queue were there first; it is looked at after each event.
            return None;
        }
        let capacity = |w: WorkerId| self.worker(w).capacity(self.config.worker_saturation);
        self.least_busy()
            .filter(|w| self.worker(*w).backlog() < capacity(*w))
    }

    /// The worker that gets a queued task.
    pub(super) fn take_worker_for_queued(&mut self, id: TaskId) -> Option<WorkerId> {
        let chosen = self.window.chosen.take();
        chosen.or_else(|| self.decide_worker_for_queued(id))
    }

    fn decide_worker_for_queued(&mut self, id: TaskId) -> Option<WorkerId> {
        let ahead = self.tasks_ahead(id);
        let slots = |w: WorkerId| {
            let worker = self.worker(w);
            worker
                .capacity(self.config.worker_saturation)
                .max(worker.window(ahead))
        };
        let has_room = |w: &WorkerId| self.worker(*w).backlog() < slots(*w);
        if ahead > 0
            && let Some(w) = self.window.refill.filter(has_room)
        {
            return Some(w);
        }
        let w = self.least_busy().filter(has_room);
        self.window.refill = w;
        w
    }

    fn least_busy(&self) -> Option<WorkerId> {
        let load = |w: WorkerId| {
            let worker = self.worker(w);
            worker.processing.len() as f64 / f64::from(worker.info.nthreads.max(1))
        };
        self.idle_task_count
            .iter()
            .min_by(|a, b| load(*a).total_cmp(&load(*b)))
    }

    /// Tasks like this one that a worker may have ahead per thread.
    fn tasks_ahead(&self, id: TaskId) -> u32 {
        if self.window.per_thread != 0 && self.window.prefix == Some(self.task(id).prefix) {
            self.window.per_thread
        } else {
            0
        }
    }

    /// Sends queued tasks to workers with free slots. To be called after every event that may have opened one.
    pub(super) fn queue_slots_maybe_opened(&mut self) {
        if self.queued_len == 0 {
            return;
        }
        let stimulus = self.stimulus("queue-slots-opened");
        self.window.refill = None;
        while let Some(id) = self.queue_peek() {
            self.look_at_window(id);
            let Some(w) = self.decide_worker_for_queued(id) else {
                break;
            };
            self.window.chosen = Some(w);
            self.transition(
                id,
                TaskStateName::Processing,
                stimulus,
                &ErredArgs::default(),
            );
            self.run_transitions(stimulus);
            if self
                .live_task(id)
                .is_some_and(|t| t.state == TaskStateName::Queued)
            {
                break;
            }
        }
        self.window.chosen = None;
        self.window.refill = None;
    }

    /// Sets the window for the task at the head of the queue.
    fn look_at_window(&mut self, head: TaskId) {
        if !self.config.adaptive_window {
            return;
        }
        let prefix = self.task(head).prefix;
        let wanted = self.wanted_window(prefix);
        self.window.prefix = Some(prefix);
        self.window.per_thread = wanted;
        if wanted == self.window.marks {
            return;
        }
        if self.clock.mono < self.window.next_marks {
            // A smaller one takes effect at once; a larger one has to wait.
            self.window.per_thread = wanted.min(self.window.marks);
            return;
        }
        self.window.next_marks = self.clock.mono + MARK_INTERVAL;
        self.window.marks = wanted;
        for w in self.running.as_slice().to_vec() {
            self.check_idle_saturated(w);
        }
    }

    fn wanted_window(&mut self, prefix: PrefixId) -> u32 {
        let p = self.prefix(prefix);
        let (seconds, nbytes) = (p.duration_average, p.nbytes_average);
        if !(0.0..SHORT_S).contains(&seconds) || nbytes < 0.0 {
            return 0;
        }
        let members = (self.totals.workers_added, self.totals.workers_removed);
        if self.window.members != members {
            self.window.members = members;
            self.window.memory_per_thread = self.least_memory_per_thread();
        }
        let by_memory = MEMORY_SHARE * self.window.memory_per_thread / nbytes.max(1.0);
        // Half of a fair share: the last tasks of the queue go where there is room then.
        let share = self.queued_len as f64 / f64::from(2 * self.total_nthreads.max(1));
        let most = MOST_PER_THREAD.min(by_memory).min(share);
        let n = (AHEAD_S / seconds).min(most);
        if n < 2.0 {
            return 0;
        }
        1 << (n as u32).ilog2()
    }

    fn least_memory_per_thread(&self) -> f64 {
        self.all_workers()
            .map(|(_, w)| {
                let limit = match w.info.memory_limit {
                    0 => ASSUMED_MEMORY,
                    limit => limit as f64,
                };
                limit / f64::from(w.info.nthreads.max(1))
            })
            .fold(f64::INFINITY, f64::min)
    }

    /// Keeps the size of a prefix's results in mind: one large result counts at once, small ones bit by bit.
    #[inline]
    pub(super) fn note_result_size(&mut self, prefix: PrefixId, nbytes: i64) {
        let average = &mut self.prefixes[prefix.0 as usize].nbytes_average;
        let nbytes = nbytes.max(0) as f64;
        *average = if nbytes > *average {
            nbytes
        } else {
            0.875 * *average + 0.125 * nbytes
        };
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
