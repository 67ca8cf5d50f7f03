//! One round of work stealing: whom to ask for which tasks.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::ids::{PrefixId, TaskId, WorkerId};
use super::state::State;
use super::stealing::{LATENCY, STEAL_LEVELS, TINY};
use crate::protocol::Value;

/// Victims looked at while no worker counts as saturated.
const BUSIEST: usize = 10;

/// Up to this many victims the busiest goes first.
const SORT_VICTIMS: usize = 20;

/// Steps (a task, a dependency, a thief looked at) of sorting tasks into levels, and again of matching them with
/// thieves. A round that is cut short goes on a second later; it must not hold up everything else meanwhile.
const STEPS: usize = 300_000;

/// Tasks per thread that a thief may have when it takes them from a worker that runs none.
const STUCK_TASKS: usize = 16;

/// Requests described in the event of a round.
const LOGGED_REQUESTS: usize = 1000;

type Levels = [Vec<TaskId>; STEAL_LEVELS];

/// A possible thief; the least loaded sorts first.
#[derive(Clone, Copy, Debug)]
struct Thief {
    load: f64,
    nbytes: i64,
    worker: WorkerId,
}

impl Ord for Thief {
    fn cmp(&self, other: &Self) -> Ordering {
        self.load
            .total_cmp(&other.load)
            .then(self.nbytes.cmp(&other.nbytes))
            .then(self.worker.cmp(&other.worker))
    }
}
impl PartialOrd for Thief {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Thief {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Thief {}

/// What is looked up again and again during a round.
struct Round {
    /// Without the requests in flight; does not change during a round.
    occupancy: FxHashMap<WorkerId, f64>,
    thieves: BTreeSet<Thief>,
    places: FxHashMap<WorkerId, Thief>,
    durations: FxHashMap<PrefixId, Option<f64>>,
    steps_left: usize,
    log: Vec<Value>,
}

impl Round {
    fn insert(&mut self, thief: Thief) {
        self.thieves.insert(thief);
        self.places.insert(thief.worker, thief);
    }

    fn remove(&mut self, w: WorkerId) {
        if let Some(thief) = self.places.remove(&w) {
            self.thieves.remove(&thief);
        }
    }

    fn step(&mut self, n: usize) {
        self.steps_left = self.steps_left.saturating_sub(n);
    }

    fn over(&self) -> bool {
        self.thieves.is_empty() || self.steps_left == 0
    }
}

impl State {
    /// Asks busy workers for tasks that idle ones would finish earlier.
    pub fn stealing_balance(&mut self) {
        if self.idle.is_empty() || self.idle.len() == self.live_workers.len() {
            return;
        }
        let mut round = Round {
            occupancy: self
                .live_workers
                .iter()
                .map(|w| (w, self.occupancy(w)))
                .collect(),
            thieves: BTreeSet::new(),
            places: FxHashMap::default(),
            durations: FxHashMap::default(),
            steps_left: STEPS,
            log: Vec::new(),
        };
        let victims = self.victims(&round);
        if victims.is_empty() {
            return;
        }
        let share = (STEPS / victims.len()).max(100);
        let levels: Vec<Levels> = victims
            .iter()
            .map(|v| self.stealable(&mut round, *v, share))
            .collect();
        for w in self.idle.iter() {
            round.insert(self.as_thief(&round, w));
        }
        for level in 0..STEAL_LEVELS {
            for (victim, tasks) in victims.iter().zip(&levels) {
                for id in &tasks[level] {
                    if round.over() {
                        break;
                    }
                    self.try_steal(&mut round, *id, *victim, level);
                }
            }
        }
        if !round.log.is_empty() {
            self.stealing.rounds += 1;
            let event = Value::Array(vec!["request".into(), Value::Array(round.log)]);
            self.log_event(&["stealing"], event);
        }
    }

    fn combined_occupancy(&self, round: &Round, w: WorkerId) -> f64 {
        let now = round.occupancy.get(&w).copied().unwrap_or(0.0);
        now + self.stealing.expected_seconds(w)
    }

    fn combined_tasks(&self, w: WorkerId) -> usize {
        let n = self.worker(w).processing.len() as i64 + self.stealing.expected_tasks(w);
        n.max(0) as usize
    }

    fn as_thief(&self, round: &Round, w: WorkerId) -> Thief {
        let worker = self.worker(w);
        Thief {
            load: self.combined_occupancy(round, w) / f64::from(worker.info.nthreads.max(1)),
            nbytes: worker.nbytes,
            worker: w,
        }
    }

    /// Workers that may give up tasks, the busiest first. Then those that are paused or leave: what they have not started
    /// would otherwise wait until they run again or are gone (stock Dask leaves it there).
    fn victims(&self, round: &Round) -> Vec<WorkerId> {
        let occupancy = |w: &WorkerId| self.combined_occupancy(round, *w);
        let busiest_first = |a: &WorkerId, b: &WorkerId| occupancy(b).total_cmp(&occupancy(a));
        let mut victims: Vec<WorkerId>;
        if self.saturated.is_empty() {
            victims = self.live_workers.as_slice().to_vec();
            if victims.len() > BUSIEST {
                victims.select_nth_unstable_by(BUSIEST - 1, busiest_first);
                victims.truncate(BUSIEST);
            }
            victims.retain(|w| {
                occupancy(w) > 0.2
                    && self.combined_tasks(*w) > self.worker(*w).info.nthreads as usize
                    && !self.idle.contains(*w)
            });
        } else {
            victims = self.saturated.as_slice().to_vec();
        }
        if victims.len() < SORT_VICTIMS {
            victims.sort_by(busiest_first);
        }
        if self.running.len() < self.live_workers.len() {
            let stuck =
                |w: &WorkerId| !self.worker(*w).running() && !self.worker(*w).processing.is_empty();
            victims.retain(|w| !stuck(w));
            victims.extend(self.live_workers.iter().filter(stuck));
        }
        victims
    }

    /// The victim's tasks by the cost of moving them; the latest given to it first, as they start last.
    fn stealable(&self, round: &mut Round, victim: WorkerId, share: usize) -> Levels {
        let mut levels = Levels::default();
        let worker = self.worker(victim);
        let mut steps = 0;
        for id in worker.processing.iter().rev() {
            steps += 1 + self.task(id).dependencies.len();
            if steps > share {
                break;
            }
            if self.stealing.is_in_flight(id)
                || self.task(id).actor
                || worker.long_running.contains(id)
                || worker.executing.iter().any(|(running, _)| *running == id)
            {
                continue;
            }
            let stuck = (!worker.running()).then_some(STEAL_LEVELS - 1);
            if let Some(level) = self.steal_level(round, id).or(stuck) {
                levels[level].push(id);
            }
        }
        levels
    }

    /// Logarithm of the transfer time over the computing time, none if a move never pays.
    fn steal_level(&self, round: &mut Round, id: TaskId) -> Option<usize> {
        let task = self.task(id);
        let compute = (*round
            .durations
            .entry(task.prefix)
            .or_insert_with(|| self.stealable_duration(task.prefix)))?;
        if task.dependencies.is_empty() {
            return Some(0);
        }
        if compute <= 0.0 {
            return None;
        }
        let nbytes: i64 = task.dependencies.iter().map(|d| self.nbytes_of(d)).sum();
        let transfer = nbytes as f64 / self.bandwidth + LATENCY;
        let level = ((transfer / compute).log2() + 6.0).round_ties_even();
        (level < STEAL_LEVELS as f64).then_some(level.max(1.0) as usize)
    }

    /// Estimated seconds of the tasks of a prefix; none if they are known to be tiny.
    fn stealable_duration(&self, prefix: PrefixId) -> Option<f64> {
        let name = &*self.prefix(prefix).name;
        let tiny = self
            .config
            .default_task_durations
            .iter()
            .any(|(n, seconds)| n == name && *seconds <= TINY);
        (!tiny).then(|| self.prefix_duration(prefix))
    }

    fn try_steal(&mut self, round: &mut Round, id: TaskId, victim: WorkerId, level: usize) {
        round.step(1);
        let Some(thief) = self.find_thief(round, id) else {
            return;
        };
        let occ_thief = self.combined_occupancy(round, thief);
        let occ_victim = self.combined_occupancy(round, victim);
        let compute = self.prefix_duration(self.task(id).prefix);
        let comm_victim = self.comm_cost(id, victim);
        let stays = occ_thief + self.comm_cost(id, thief) + compute
            > occ_victim - (comm_victim + compute) / 2.0;
        if stays && self.worker(victim).running() {
            return;
        }
        self.request_steal(id, victim, thief);
        let cost = compute + comm_victim;
        self.stealing.request_count[level] += 1;
        self.stealing.request_cost[level] += cost;
        if round.log.len() < LOGGED_REQUESTS {
            round.log.push(Value::Array(vec![
                self.clock.wall.into(),
                level.into(),
                self.task(id).key.to_value(),
                cost.into(),
                (&*self.worker(victim).info.address).into(),
                occ_victim.into(),
                (&*self.worker(thief).info.address).into(),
                occ_thief.into(),
            ]));
        }
        round.remove(thief);
        let occ_thief = self.combined_occupancy(round, thief);
        let (tasks, nthreads) = (self.combined_tasks(thief), self.worker(thief).info.nthreads);
        let takes_stuck = !self.worker(victim).running() && tasks < STUCK_TASKS * nthreads as usize;
        if takes_stuck || self.is_unoccupied(thief, occ_thief, tasks) {
            round.insert(self.as_thief(round, thief));
        }
    }

    /// The thief that would start the task first.
    fn find_thief(&self, round: &mut Round, id: TaskId) -> Option<WorkerId> {
        let score = |thief: &Thief| Thief {
            load: thief.load + self.comm_cost(id, thief.worker),
            ..*thief
        };
        let mut candidates: Vec<Thief> = Vec::new();
        if let Some(valid) = self.valid_workers(id) {
            round.step(valid.len());
            candidates.extend(valid.iter().filter_map(|w| round.places.get(w)));
            let loose = self.task(id).loose_restrictions() && self.with_resources(id).is_none();
            if candidates.is_empty() && !loose {
                return None;
            }
        }
        if candidates.is_empty() {
            // All thieves that hold no input have the same transfer cost: the least loaded thief and those that hold
            // some are enough.
            candidates.extend(round.thieves.first());
            for dep in self.task(id).dependencies.iter() {
                let holders = &self.task(dep).who_has;
                round.step(holders.len());
                candidates.extend(holders.iter().filter_map(|w| round.places.get(w)));
            }
        }
        round.step(candidates.len());
        candidates.iter().map(score).min().map(|t| t.worker)
    }
}
