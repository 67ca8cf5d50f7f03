//! Work stealing: idle workers take tasks that others have not started.
//!
//! As in `distributed.stealing`, a victim is asked first and may refuse. Unlike there no tables of stealable tasks are
//! kept: which tasks are worth moving is found when a round needs it, from what the victims process at that time, so
//! a task costs nothing while nobody steals. The rounds are in [`super::balance`].

use rustc_hash::FxHashMap;

use super::ids::{PrefixId, TaskId, WorkerId};
use super::out::ToWorker;
use super::state::State;
use super::task::TaskStateName;
use crate::protocol::{Key, Value};

/// Classes of tasks by the cost of moving them; the cheapest are moved first.
pub const STEAL_LEVELS: usize = 15;

/// Seconds that a move costs beyond the transfer of data. Deliberately high: stealing tiny tasks does not pay.
pub(super) const LATENCY: f64 = 0.1;

/// Durations up to which a prefix with a configured duration is never stolen, s.
pub(super) const TINY: f64 = 0.001;

/// A request that the victim has not answered.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    victim: WorkerId,
    thief: WorkerId,
    victim_seconds: f64,
    thief_seconds: f64,
    request: u64,
}

/// Changes to a worker that the requests in flight will bring.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    seconds: f64,
    tasks: i64,
}

/// Books of work stealing.
#[derive(Debug, Default)]
pub struct Stealing {
    in_flight: FxHashMap<TaskId, InFlight>,
    expected: FxHashMap<WorkerId, Expected>,
    next_request: u64,
    /// Rounds that asked for at least one task.
    pub rounds: u64,
    /// Requests so far, by level.
    pub request_count: [u64; STEAL_LEVELS],
    /// Estimated seconds of the requested tasks, by level.
    pub request_cost: [f64; STEAL_LEVELS],
}

impl Stealing {
    /// Nothing was stolen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests that wait for an answer.
    pub fn n_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether the victim has been asked for this task.
    pub(super) fn is_in_flight(&self, id: TaskId) -> bool {
        self.in_flight.contains_key(&id)
    }

    /// Seconds of work a worker gains (or, negative, loses) by the requests in flight.
    pub(super) fn expected_seconds(&self, w: WorkerId) -> f64 {
        self.expected.get(&w).map_or(0.0, |e| e.seconds)
    }

    /// Tasks a worker gains (or, negative, loses) by the requests in flight.
    pub(super) fn expected_tasks(&self, w: WorkerId) -> i64 {
        self.expected.get(&w).map_or(0, |e| e.tasks)
    }

    fn expect(&mut self, w: WorkerId, seconds: f64, tasks: i64) {
        let e = self.expected.entry(w).or_default();
        e.seconds += seconds;
        e.tasks += tasks;
    }

    fn begin(&mut self, id: TaskId, entry: InFlight) {
        self.expect(entry.victim, -entry.victim_seconds, -1);
        self.expect(entry.thief, entry.thief_seconds, 1);
        self.in_flight.insert(id, entry);
    }

    fn end(&mut self, id: TaskId) -> Option<InFlight> {
        let entry = self.in_flight.remove(&id)?;
        if self.in_flight.is_empty() {
            // Also rids the sums of rounding errors, and of workers that are gone.
            self.expected.clear();
        } else {
            self.expect(entry.victim, entry.victim_seconds, 1);
            self.expect(entry.thief, -entry.thief_seconds, -1);
        }
        Some(entry)
    }
}

impl State {
    /// Nothing to do: rounds look at what victims process.
    #[inline]
    pub(super) fn stealing_on_processing(&mut self, _id: TaskId) {}

    /// The task is done, released or left its thread pool: a request for it is void.
    #[inline]
    pub(super) fn stealing_on_leave_processing(&mut self, id: TaskId) {
        if !self.stealing.in_flight.is_empty() {
            self.stealing.end(id);
        }
    }

    /// Nothing to do: rounds read durations when they need them.
    #[inline]
    pub(super) fn stealing_on_duration_learned(&mut self, _prefix: PrefixId) {}

    /// Nothing to do: a victim's tasks leave processing, and a thief's registration is checked when the victim answers.
    pub(super) fn stealing_on_remove_worker(&mut self, _w: WorkerId) {}

    /// Asks the victim to give up a task.
    pub(super) fn request_steal(&mut self, id: TaskId, victim: WorkerId, thief: WorkerId) {
        let compute = self.prefix_duration(self.task(id).prefix);
        let entry = InFlight {
            victim,
            thief,
            victim_seconds: compute + self.comm_cost(id, victim),
            thief_seconds: compute + self.comm_cost(id, thief),
            request: self.stealing.next_request,
        };
        self.stealing.next_request += 1;
        self.stealing.begin(id, entry);
        let key = self.task(id).key.clone();
        let request = entry.request;
        self.send_worker(victim, ToWorker::StealRequest { key, request });
    }

    /// A worker answers a steal request with the task's state there.
    pub fn handle_steal_response(
        &mut self,
        w: WorkerId,
        key: &[u8],
        state: Option<&str>,
        stimulus: &str,
    ) {
        let Some(id) = self.task_id_by_bytes(key) else {
            return;
        };
        let event = |what: &str| {
            let state = state.map_or(Value::Nil, Value::from);
            let (key, worker) = (Key::from_canonical(key).to_value(), self.worker(w));
            let worker = Value::from(&*worker.info.address);
            Value::Array(vec![what.into(), key, state, worker, stimulus.into()])
        };
        match self.stealing.in_flight.get(&id) {
            None => {
                let event = event("already-aborted");
                self.log_event(&["stealing"], event);
            }
            Some(entry) if entry.victim != w || !is_request(stimulus, entry.request) => {
                let event = event("stale-response");
                self.log_event(&["stealing"], event);
            }
            Some(_) => {
                if let Some(entry) = self.stealing.end(id) {
                    self.steal_answered(id, entry, state, stimulus);
                }
            }
        }
    }

    fn steal_answered(&mut self, id: TaskId, entry: InFlight, state: Option<&str>, stimulus: &str) {
        let InFlight { victim, thief, .. } = entry;
        // A thief that no longer takes work would sit on the task.
        let thief_ready = self.is_registered(thief) && self.worker(thief).running();
        let fields = self.steal_fields(id, entry, state, stimulus);
        let log = |this: &mut Self, head: &[Value]| {
            let event = head.iter().chain(&fields).cloned().collect();
            this.log_event(&["stealing"], Value::Array(event));
        };
        match state {
            Some("memory" | "executing" | "long-running" | "cancelled" | "resumed") => {
                log(self, &["already-computing".into()]);
            }
            Some("ready" | "constrained" | "waiting") if thief_ready => {
                self.release_resources(id, victim);
                self.worker_remove_processing(id, victim);
                if self.worker_mut(victim).actors.remove(id) {
                    self.worker_mut(thief).actors.insert(id);
                }
                self.task_mut(id).processing_on = Some(thief);
                self.worker_add_processing(id, thief);
                self.acquire_resources(id, thief);
                self.send_compute(id, thief);
                log(self, &["confirm".into()]);
            }
            Some("ready" | "constrained" | "waiting" | "released") | None => {
                log(self, &["reschedule".into(), (!thief_ready).into()]);
                let stimulus = self.stimulus("steal-reschedule");
                self.recommend(id, TaskStateName::Released);
                self.run_transitions(stimulus);
            }
            Some(other) => {
                tracing::warn!(state = %other.chars().take(40).collect::<String>(), "unexpected answer to a steal request");
            }
        }
        for w in [thief, victim] {
            if self.is_registered(w) {
                self.check_idle_saturated(w);
            }
        }
        self.queue_slots_maybe_opened();
    }

    fn steal_fields(
        &self,
        id: TaskId,
        entry: InFlight,
        state: Option<&str>,
        stimulus: &str,
    ) -> Vec<Value> {
        let address = |w: WorkerId| Value::from(&*self.worker(w).info.address);
        vec![
            self.task(id).key.to_value(),
            state.map_or(Value::Nil, Value::from),
            address(entry.victim),
            address(entry.thief),
            stimulus.into(),
        ]
    }
}

fn is_request(stimulus: &str, request: u64) -> bool {
    stimulus
        .strip_prefix("steal-")
        .and_then(|n| n.parse().ok())
        .is_some_and(|n: u64| n == request)
}
