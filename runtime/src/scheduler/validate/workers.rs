//! Workers and the books kept over all of them.

use rustc_hash::FxHashMap;

use super::super::ids::{TaskId, WorkerId};
use super::super::membership::alias_of;
use super::super::state::State;
use super::super::task::TaskStateName;
use super::super::worker::{Status, Worker};
use super::{Violation, ensure};

impl State {
    pub(super) fn validate_worker(&self, id: WorkerId, worker: &Worker) -> Result<(), Violation> {
        let info = &worker.info;
        ensure!(
            worker.status != Status::Closed,
            "registered, yet its status is closed"
        );
        ensure!(
            self.worker_index.get(&info.address) == Some(&id),
            "its address leads elsewhere"
        );
        ensure!(
            self.aliases.get(&alias_of(&info.name)) == Some(&id),
            "its name leads elsewhere"
        );
        let host = self.hosts.get(&info.host).ok_or("its host is unknown")?;
        ensure!(
            host.addresses.contains(&info.address),
            "its host does not know it"
        );
        for (name, amount) in &info.resources {
            let supply = self.resources.get(name).and_then(|s| s.get(&id));
            ensure!(
                supply == Some(amount),
                "has {amount} of {name}, listed is {supply:?}"
            );
        }
        self.validate_worker_data(id, worker)?;
        self.validate_worker_load(id, worker)?;
        self.validate_worker_sets(id, worker)
    }

    fn validate_worker_data(&self, id: WorkerId, worker: &Worker) -> Result<(), Violation> {
        let mut bytes = 0;
        for t in worker.has_what.iter() {
            let task = self.live_task(t).ok_or("holds a forgotten task")?;
            ensure!(
                task.who_has.contains(&id),
                "holds {}, which does not know it",
                task.key
            );
            bytes += self.nbytes_of(t);
        }
        ensure!(
            bytes == worker.nbytes,
            "holds {bytes} bytes, {} are booked",
            worker.nbytes
        );
        for t in worker.actors.iter() {
            let task = self.live_task(t).ok_or("runs a forgotten actor")?;
            let fits = match task.state {
                TaskStateName::Memory => task.who_has.contains(&id),
                TaskStateName::Processing => task.processing_on == Some(id),
                _ => false,
            };
            ensure!(
                task.actor && fits,
                "listed for actor {}, which is {} elsewhere",
                task.key,
                task.state.as_str()
            );
        }
        Ok(())
    }

    fn validate_worker_load(&self, id: WorkerId, worker: &Worker) -> Result<(), Violation> {
        let mut needs: FxHashMap<TaskId, u32> = FxHashMap::default();
        let mut prefixes: FxHashMap<_, u32> = FxHashMap::default();

        for t in worker.processing.iter() {
            let task = self.live_task(t).ok_or("processes a forgotten task")?;
            ensure!(
                task.processing_on == Some(id),
                "processes {}, which does not know it",
                task.key
            );
            if !worker.long_running.contains(t) {
                *prefixes.entry(task.prefix).or_default() += 1;
            }
            for d in task.dependencies.iter() {
                if !self.task(d).who_has.contains(&id) {
                    *needs.entry(d).or_default() += 1;
                }
            }
        }
        for t in worker.long_running.iter() {
            ensure!(
                worker.processing.contains(t),
                "a long-running task is not processing"
            );
        }
        ensure!(
            needs == worker.needs_what,
            "needs {needs:?}, booked are {:?}",
            worker.needs_what
        );
        let bytes: i64 = needs.keys().map(|d| self.nbytes_of(*d)).sum();
        ensure!(
            bytes == worker.network_occ,
            "needs {bytes} bytes, {} are booked",
            worker.network_occ
        );
        let booked: FxHashMap<_, u32> = worker.prefix_count.iter().copied().collect();
        ensure!(
            prefixes == booked && booked.len() == worker.prefix_count.len(),
            "tasks by prefix: {prefixes:?}, booked {booked:?}"
        );
        for (t, _) in &worker.executing {
            ensure!(
                worker.processing.contains(*t),
                "executes what it does not process"
            );
        }

        Ok(())
    }

    /// The sets that placement reads.
    fn validate_worker_sets(&self, id: WorkerId, worker: &Worker) -> Result<(), Violation> {
        let running = worker.status == Status::Running;
        let (p, n) = (worker.processing.len(), worker.info.nthreads as usize);
        let free = self.has_free_slot(id);
        ensure!(
            self.running.contains(id) == running,
            "wrongly (not) among the running workers"
        );
        ensure!(
            self.idle_task_count.contains(id) == (running && free),
            "{p} tasks on {n} threads: wrongly (not) among workers with free slots"
        );
        ensure!(running || !self.idle.contains(id), "not running, yet idle");
        ensure!(
            !running || p >= n || self.idle.contains(id),
            "{p} tasks on {n} threads, yet not idle"
        );
        if self.saturated.contains(id) {
            ensure!(running && p > n, "{p} tasks on {n} threads, yet saturated");
            ensure!(!self.idle.contains(id), "idle and saturated");
        }
        Ok(())
    }

    /// Workers that are gone must leave nothing behind: ids of tasks are used again.
    pub(super) fn validate_gone_workers(&self) -> Result<(), Violation> {
        for (i, w) in self.workers.iter().enumerate() {
            if self.is_registered(WorkerId(i as u32)) {
                continue;
            }
            let empty = w.processing.is_empty()
                && w.long_running.is_empty()
                && w.has_what.is_empty()
                && w.actors.is_empty()
                && w.needs_what.is_empty()
                && w.prefix_count.is_empty()
                && w.executing.is_empty()
                && w.network_occ == 0;
            ensure!(
                empty && w.status == Status::Closed,
                "worker {} is gone and still has books",
                w.info.address
            );
        }
        Ok(())
    }

    pub(super) fn validate_cluster(&self) -> Result<(), Violation> {
        let n = self.live_workers.len();
        ensure!(
            self.worker_index.len() == n && self.aliases.len() == n,
            "{n} workers, {} addresses, {} names",
            self.worker_index.len(),
            self.aliases.len()
        );
        let on_hosts: usize = self.hosts.values().map(|h| h.addresses.len()).sum();
        ensure!(on_hosts == n, "{n} workers, {on_hosts} on hosts");
        ensure!(
            self.hosts.values().all(|h| !h.addresses.is_empty()),
            "a host has no worker"
        );
        for set in [
            &self.running,
            &self.idle,
            &self.idle_task_count,
            &self.saturated,
        ] {
            ensure!(
                set.iter().all(|w| self.is_registered(w)),
                "a set of workers knows one that is gone"
            );
        }
        for (name, supply) in &self.resources {
            ensure!(
                supply.keys().all(|w| self.is_registered(*w)),
                "a worker that is gone supplies {name}"
            );
        }
        let threads: u32 = self.all_workers().map(|(_, w)| w.info.nthreads).sum();
        ensure!(
            threads == self.total_nthreads,
            "{threads} threads, {} are booked",
            self.total_nthreads
        );
        let memory: u64 = self.all_workers().map(|(_, w)| w.info.memory_limit).sum();
        ensure!(
            memory == self.total_memory,
            "{memory} bytes of memory, {} are booked",
            self.total_memory
        );
        let network: i64 = self.all_workers().map(|(_, w)| w.network_occ).sum();
        ensure!(
            network == self.network_occ,
            "{network} bytes to be fetched, {} are booked",
            self.network_occ
        );
        ensure!(
            self.no_workers_since.is_none() || self.running.is_empty(),
            "workers run, yet it is noted since when there are none"
        );
        Ok(())
    }
}
