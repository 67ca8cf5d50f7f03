//! Which worker gets a ready task, and the books that the choice rests on.

use std::sync::Arc;

use smallvec::SmallVec;

use super::ids::{PrefixId, TaskId, WorkerId};
use super::state::State;
use super::task::TaskStateName;
use super::worker::Worker;

/// Up to this many workers the least occupied one is looked for; above it they take turns.
const SMALL_CLUSTER: usize = 20;

impl State {
    /// Whether a task belongs to a group much larger than the cluster and has few or no dependencies: such tasks
    /// are held back until a worker has a free slot.
    pub(super) fn is_rootish(&self, id: TaskId) -> bool {
        let task = self.task(id);
        if task.restrictions().is_some() {
            return false;
        }
        if task.data_producer {
            return true;
        }
        let group = self.group(task.group);
        if group.len() <= 2 * self.total_nthreads as usize
            || group.dependencies.len() >= self.config.rootish_taskgroup
        {
            return false;
        }
        let of_dependencies: usize = group.dependencies.iter().map(|g| self.group(g).len()).sum();
        of_dependencies < self.config.rootish_taskgroup_dependencies
    }

    /// Keeps neighbouring root tasks on one worker, without holding any back.
    pub(super) fn decide_worker_rootish_queuing_disabled(
        &mut self,
        id: TaskId,
    ) -> Option<WorkerId> {
        let pool = if self.idle.is_empty() {
            &self.running
        } else {
            &self.idle
        };
        if pool.is_empty() {
            return None;
        }
        let group_id = self.task(id).group;
        let group = self.group(group_id);
        let keep = group.last_worker.filter(|w| {
            group.last_worker_tasks_left != 0 && self.is_registered(*w) && self.worker(*w).running()
        });
        let (chosen, left) = match keep {
            Some(w) => (w, group.last_worker_tasks_left),
            None => {
                let w = self.min_objective(id, pool.as_slice())?;
                let share = group.len() as f64 / f64::from(self.total_nthreads.max(1));
                (
                    w,
                    (share * f64::from(self.worker(w).info.nthreads)).floor() as i64,
                )
            }
        };
        let group = self.group_mut(group_id);
        let todo = group.states[TaskStateName::Released as usize]
            + group.states[TaskStateName::Waiting as usize];
        group.last_worker = (todo > 1).then_some(chosen);
        group.last_worker_tasks_left = left - 1;
        Some(chosen)
    }

    /// The worker on which the task is likely to start first, given its dependencies and restrictions.
    pub(super) fn decide_worker_non_rootish(&self, id: TaskId) -> Option<WorkerId> {
        if self.running.is_empty() {
            return None;
        }
        let mut valid = self.valid_workers(id);
        if valid.is_none() && self.running.len() < self.live_workers.len() {
            valid = Some(self.running.as_slice().to_vec());
        }
        if valid.is_none() && self.task(id).dependencies.is_empty() {
            return self.decide_worker_free();
        }
        self.decide_worker(id, valid)
    }

    /// For a task without dependencies and restrictions.
    fn decide_worker_free(&self) -> Option<WorkerId> {
        let pool = if self.idle.is_empty() {
            self.live_workers.as_slice()
        } else {
            self.idle.as_slice()
        };
        let n = pool.len();
        let start = (self.n_tasks % n.max(1) as u64) as usize;
        if n >= SMALL_CLUSTER {
            return pool.get(start).copied();
        }
        let best = pool
            .iter()
            .copied()
            .min_by(|a, b| self.occupancy(*a).total_cmp(&self.occupancy(*b)))?;
        if self.occupancy(best) == 0.0 {
            let turn = (0..n)
                .map(|i| pool[(i + start) % n])
                .find(|w| self.occupancy(*w) == 0.0);
            return turn.or(Some(best));
        }
        Some(best)
    }

    fn decide_worker(&self, id: TaskId, valid: Option<Vec<WorkerId>>) -> Option<WorkerId> {
        let task = self.task(id);
        let mut candidates: Vec<WorkerId> = Vec::new();
        if task.actor {
            candidates.extend(self.running.iter());
        } else {
            for dep in task.dependencies.iter() {
                candidates.extend(
                    self.task(dep)
                        .who_has
                        .iter()
                        .filter(|w| self.running.contains(**w)),
                );
                // Beyond a few thousand holders more of them no longer improve the choice.
                if candidates.len() > 4 * self.running.len().max(64) {
                    candidates.sort_unstable();
                    candidates.dedup();
                }
            }
            candidates.sort_unstable();
            candidates.dedup();
        }
        match valid {
            None => {
                if candidates.is_empty() {
                    candidates.extend(self.running.iter());
                }
            }
            Some(valid) => {
                candidates.retain(|w| valid.contains(w));
                if candidates.is_empty() {
                    candidates = valid;
                    if candidates.is_empty() {
                        if !task.loose_restrictions() {
                            return None;
                        }
                        // Only the choice of workers is loose: without its resources a task could not start.
                        return match self.with_resources(id) {
                            Some(able) if able.is_empty() => None,
                            able => self.decide_worker(id, able),
                        };
                    }
                }
            }
        }
        match candidates.as_slice() {
            [] => None,
            [one] => Some(*one),
            many => self.min_objective(id, many),
        }
    }

    /// The worker of `pool` with the smallest objective; the first of equals.
    pub(super) fn min_objective(&self, id: TaskId, pool: &[WorkerId]) -> Option<WorkerId> {
        let actor = self.task(id).actor;
        let score = |w: WorkerId| {
            let worker = self.worker(w);
            let stack = self.occupancy(w) / f64::from(worker.info.nthreads.max(1));
            let actors = if actor { worker.actors.len() } else { 0 };
            (actors, stack + self.comm_cost(id, w), worker.nbytes)
        };
        let mut best: Option<((usize, f64, i64), WorkerId)> = None;
        for w in pool {
            let s = score(*w);
            let better = best.is_none_or(|(b, _)| {
                s.0.cmp(&b.0).then(s.1.total_cmp(&b.1)).then(s.2.cmp(&b.2))
                    == std::cmp::Ordering::Less
            });
            if better {
                best = Some((s, *w));
            }
        }
        best.map(|(_, w)| w)
    }

    /// Size of a result, or the default guess while unknown, bytes.
    #[inline]
    pub(super) fn nbytes_of(&self, id: TaskId) -> i64 {
        let n = self.task(id).nbytes;
        if n < 0 {
            self.config.default_data_size
        } else {
            n
        }
    }

    /// Seconds to bring the task's dependencies to a worker.
    pub(super) fn comm_cost(&self, id: TaskId, w: WorkerId) -> f64 {
        let mut bytes = 0;
        for dep in self.task(id).dependencies.iter() {
            if !self.task(dep).who_has.contains(&w) {
                bytes += self.nbytes_of(dep);
            }
        }
        bytes as f64 / self.bandwidth
    }

    /// Workers that satisfy the task's restrictions; none if it has no restrictions.
    pub(super) fn valid_workers(&self, id: TaskId) -> Option<Vec<WorkerId>> {
        let restrictions = self.task(id).restrictions()?;
        let mut set: Option<Vec<WorkerId>> = None;
        if !restrictions.workers.is_empty() {
            set = Some(
                restrictions
                    .workers
                    .iter()
                    .filter_map(|a| self.worker_id(a))
                    .collect(),
            );
        }
        if !restrictions.hosts.is_empty() {
            let list = set.get_or_insert_default();
            for host in &restrictions.hosts {
                let host = self.coerce_hostname(host);
                if let Some(info) = self.hosts.get(&host) {
                    list.extend(info.addresses.iter().filter_map(|a| self.worker_id(a)));
                }
            }
        }
        for (name, needed) in &restrictions.resources {
            let supply = self.resources.get(name);
            let enough = |w: &WorkerId| {
                supply
                    .and_then(|s| s.get(w))
                    .is_some_and(|have| have >= needed)
            };
            match &mut set {
                Some(list) => list.retain(enough),
                None => set = Some(self.live_workers.iter().filter(enough).collect()),
            }
        }
        let mut list = set?;
        list.sort_unstable();
        list.dedup();
        if self.running.len() < self.live_workers.len() {
            list.retain(|w| self.worker(*w).running());
        }
        Some(list)
    }

    /// Running workers that have the resources a task needs, wherever it is to run; none if it needs no resources.
    pub(super) fn with_resources(&self, id: TaskId) -> Option<Vec<WorkerId>> {
        let needed = &self.task(id).restrictions()?.resources;
        if needed.is_empty() {
            return None;
        }
        let has = |w: &WorkerId| {
            needed.iter().all(|(name, amount)| {
                let supply = self.resources.get(name).and_then(|s| s.get(w));
                supply.is_some_and(|have| have >= amount)
            })
        };
        Some(self.running.iter().filter(has).collect())
    }

    /// The host a restriction means: that of the worker with this name, else the text itself.
    fn coerce_hostname(&self, host: &Arc<str>) -> Arc<str> {
        match self.aliases.get(&**host) {
            Some(w) => self.worker(*w).info.host.clone(),
            None => host.clone(),
        }
    }

    // ---- occupancy

    /// Estimated seconds of one task of a prefix.
    pub fn prefix_duration(&self, prefix: PrefixId) -> f64 {
        let p = self.prefix(prefix);
        if p.duration_average >= 0.0 {
            p.duration_average
        } else if p.max_exec_time > 0.0 {
            2.0 * p.max_exec_time
        } else {
            self.config.unknown_task_duration
        }
    }

    /// Estimated seconds until the worker has done what it was given, over all its threads.
    pub fn occupancy(&self, w: WorkerId) -> f64 {
        let worker = self.worker(w);
        let compute: f64 = worker
            .prefix_count
            .iter()
            .map(|(p, n)| f64::from(*n) * self.prefix_duration(*p))
            .sum();
        compute + worker.network_occ as f64 / self.bandwidth
    }

    /// As [`State::occupancy`], over all workers.
    pub fn total_occupancy(&self) -> f64 {
        let compute: f64 = self
            .active_prefixes
            .iter()
            .map(|p| f64::from(self.prefix(p).processing) * self.prefix_duration(p))
            .sum();
        compute + self.network_occ as f64 / self.bandwidth
    }

    /// Whether the worker has less work than threads, or less than half of what an average worker has.
    pub(super) fn is_unoccupied(&self, w: WorkerId, occupancy: f64, n_processing: usize) -> bool {
        let nthreads = self.worker(w).info.nthreads;
        n_processing < nthreads as usize
            || occupancy
                < f64::from(nthreads)
                    * (self.total_occupancy() / f64::from(self.total_nthreads.max(1)))
                    / 2.0
    }

    /// Updates the sets of idle and saturated workers for one worker.
    pub(super) fn check_idle_saturated(&mut self, w: WorkerId) {
        let worker = self.worker(w);
        if self.total_nthreads == 0 || worker.status == super::worker::Status::Closed {
            return;
        }
        let (p, n, running) = (
            worker.processing.len(),
            worker.info.nthreads.max(1) as usize,
            worker.running(),
        );
        let free = self.has_free_slot(w);
        let mut saturated = false;
        let idle = running && {
            if p < n {
                true
            } else {
                let occ = self.occupancy(w);
                let idle = self.is_unoccupied(w, occ, p);
                if !idle && p > n {
                    let pending = occ * (p - n) as f64 / (p * n) as f64;
                    saturated = pending > 0.4
                        && pending > 1.9 * self.total_occupancy() / f64::from(self.total_nthreads);
                }
                idle
            }
        };
        set_member(&mut self.idle, w, idle);
        set_member(&mut self.saturated, w, saturated);
        set_member(&mut self.idle_task_count, w, running && free);
    }

    pub(super) fn worker_add_processing(&mut self, id: TaskId, w: WorkerId) {
        let prefix = self.task(id).prefix;
        self.count_prefix(w, prefix, 1);
        self.worker_mut(w).processing.insert(id);
        for i in 0..self.task(id).dependencies.len() {
            let dep = self.task(id).dependencies.as_slice()[i];
            if !self.task(dep).who_has.contains(&w) {
                let nbytes = self.nbytes_of(dep);
                let worker = self.worker_mut(w);
                let count = worker.needs_what.entry(dep).or_insert(0);
                *count += 1;
                if *count == 1 {
                    worker.network_occ += nbytes;
                    self.network_occ += nbytes;
                }
            }
        }
    }

    pub(super) fn worker_remove_processing(&mut self, id: TaskId, w: WorkerId) {
        let prefix = self.task(id).prefix;
        if !self.worker_mut(w).long_running.remove(id) {
            self.count_prefix(w, prefix, -1);
        }
        let worker = self.worker_mut(w);
        worker.processing.remove(id);
        worker.executing.retain(|(t, _)| *t != id);
        if worker.needs_what.is_empty() {
            return;
        }
        for i in 0..self.task(id).dependencies.len() {
            let dep = self.task(id).dependencies.as_slice()[i];
            self.worker_needs_less(w, dep);
        }
    }

    /// One task of the worker no longer needs `dep`.
    pub(super) fn worker_needs_less(&mut self, w: WorkerId, dep: TaskId) {
        let last = match self.worker_mut(w).needs_what.get_mut(&dep) {
            Some(count) => {
                *count -= 1;
                *count == 0
            }
            None => false,
        };
        if last {
            self.worker_forget_need(w, dep);
        }
    }

    /// The worker lost its copy of a result; its tasks that need it will fetch it again.
    fn worker_needs_again(&mut self, w: WorkerId, dep: TaskId) {
        let (waiters, processing) = (&self.task(dep).waiters, &self.worker(w).processing);
        let count = if waiters.len() < processing.len() {
            waiters.iter().filter(|t| processing.contains(*t)).count()
        } else {
            processing.iter().filter(|t| waiters.contains(*t)).count()
        };
        if count > 0 && self.is_registered(w) {
            let nbytes = self.nbytes_of(dep);
            let worker = self.worker_mut(w);
            worker.needs_what.insert(dep, count as u32);
            worker.network_occ += nbytes;
            self.network_occ += nbytes;
        }
    }

    fn worker_forget_need(&mut self, w: WorkerId, dep: TaskId) {
        if self.worker_mut(w).needs_what.remove(&dep).is_some() {
            let nbytes = self.nbytes_of(dep);
            let worker = self.worker_mut(w);
            worker.network_occ -= nbytes.min(worker.network_occ);
            self.network_occ -= nbytes.min(self.network_occ);
        }
    }

    /// The task left the worker's thread pool: it no longer counts as work ahead.
    pub(super) fn worker_add_long_running(&mut self, id: TaskId, w: WorkerId) {
        if self.worker_mut(w).long_running.insert(id) {
            let prefix = self.task(id).prefix;
            self.count_prefix(w, prefix, -1);
        }
    }

    fn count_prefix(&mut self, w: WorkerId, prefix: PrefixId, delta: i32) {
        let counts: &mut SmallVec<[(PrefixId, u32); 4]> =
            &mut self.workers[w.0 as usize].prefix_count;
        match counts.iter().position(|(p, _)| *p == prefix) {
            Some(at) => {
                let n = counts[at].1.saturating_add_signed(delta);
                counts[at].1 = n;
                if n == 0 {
                    counts.swap_remove(at);
                }
            }
            None if delta > 0 => counts.push((prefix, delta as u32)),
            None => return,
        }
        let p = &mut self.prefixes[prefix.0 as usize];
        let before = p.processing;
        p.processing = before.saturating_add_signed(delta);
        if before == 0 {
            self.active_prefixes.insert(prefix);
        } else if p.processing == 0 {
            self.active_prefixes.remove(prefix);
        }
    }

    // ---- resources

    pub(super) fn acquire_resources(&mut self, id: TaskId, w: WorkerId) {
        self.use_resources(id, w, 1.0);
    }

    pub(super) fn release_resources(&mut self, id: TaskId, w: WorkerId) {
        self.use_resources(id, w, -1.0);
    }

    fn use_resources(&mut self, id: TaskId, w: WorkerId, sign: f64) {
        let Some(restrictions) = self.task(id).restrictions() else {
            return;
        };
        if restrictions.resources.is_empty() {
            return;
        }
        let needed = restrictions.resources.clone();
        let worker: &mut Worker = self.worker_mut(w);
        for (name, amount) in needed {
            match worker.used_resources.iter_mut().find(|(n, _)| *n == name) {
                Some((_, used)) => *used += sign * amount,
                None => worker.used_resources.push((name, sign * amount)),
            }
        }
    }

    // ---- replicas

    /// Notes that a worker holds a copy of the result.
    pub(super) fn add_replica(&mut self, id: TaskId, w: WorkerId) {
        if self.task(id).who_has.contains(&w) {
            return;
        }
        if !self.worker(w).needs_what.is_empty() {
            self.worker_forget_need(w, id);
        }
        let nbytes = self.nbytes_of(id);
        let task = self.task_mut(id);
        task.who_has.push(w);
        let copies = task.who_has.len();
        let worker = self.worker_mut(w);
        worker.nbytes += nbytes;
        worker.has_what.insert(id);
        if copies == 2 {
            self.replicated.insert(id);
        }
    }

    /// Notes that a worker no longer holds a copy.
    pub(super) fn remove_replica(&mut self, id: TaskId, w: WorkerId) {
        let nbytes = self.nbytes_of(id);
        let task = self.task_mut(id);
        let Some(at) = task.who_has.iter().position(|h| *h == w) else {
            return;
        };
        task.who_has.remove(at);
        let copies = task.who_has.len();
        let worker = self.worker_mut(w);
        worker.nbytes -= nbytes;
        worker.has_what.remove(id);
        if copies == 1 {
            self.replicated.remove(id);
        }
        self.worker_needs_again(w, id);
    }

    /// Notes that nobody holds the result any more; gives back who did.
    pub(super) fn remove_all_replicas(&mut self, id: TaskId) -> SmallVec<[WorkerId; 2]> {
        let nbytes = self.nbytes_of(id);
        let holders = std::mem::take(&mut self.task_mut(id).who_has);
        for w in &holders {
            let worker = self.worker_mut(*w);
            worker.nbytes -= nbytes;
            worker.has_what.remove(id);
        }
        if holders.len() > 1 {
            self.replicated.remove(id);
        }
        holders
    }

    /// Sets the size of a result on all who hold it.
    pub(super) fn set_nbytes(&mut self, id: TaskId, nbytes: i64) {
        let nbytes = nbytes.max(0);
        let old_counted = self.nbytes_of(id);
        let task = self.task_mut(id);
        let old = task.nbytes;
        task.nbytes = nbytes;
        let (group, holders) = (task.group, task.who_has.clone());
        self.group_mut(group).nbytes_total += nbytes - old.max(0);
        let change = nbytes - old_counted;
        for w in holders {
            self.worker_mut(w).nbytes += change;
        }
        // Only scattering a key anew changes the size of what others are about to fetch.
        if change == 0 || self.task(id).waiters.is_empty() {
            return;
        }
        for i in 0..self.live_workers.len() {
            let w = self.live_workers.as_slice()[i];
            let worker = self.worker_mut(w);
            if worker.needs_what.contains_key(&id) {
                worker.network_occ += change;
                self.network_occ += change;
            }
        }
    }
}

fn set_member(set: &mut super::ids::IdSet<WorkerId>, w: WorkerId, member: bool) {
    if member {
        set.insert(w);
    } else {
        set.remove(w);
    }
}
