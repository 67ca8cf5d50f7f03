//! Plans of `replicate`: who gets copies of what, round by round.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::BuildHasher;

use rustc_hash::FxHashSet;

use super::ids::{TaskId, WorkerId};
use super::state::State;
use crate::protocol::Key;

/// A key to fetch and the addresses of those who have it.
pub type Source = (Key, Vec<String>);

/// One round. Each holder serves a few workers; those serve others in the next round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicatePlan {
    /// Keys without data; nothing is planned if there are any.
    pub missing: Vec<Key>,
    /// None of the workers asked for takes data.
    pub no_workers: bool,
    /// Worker and the keys it drops.
    pub deletions: Vec<(String, Vec<Key>)>,
    /// Worker and the keys it fetches, each with those who have it. Empty: there are enough copies.
    pub copies: Vec<(String, Vec<Source>)>,
}

impl State {
    /// Plans a round that brings each key to `n` of the `workers` (default: all), every holder serving at most
    /// `branching` new ones. `delete`: copies beyond `n` are dropped. Keys in `skip` are left alone.
    pub fn plan_replicate<S: BuildHasher>(
        &self,
        keys: &[Key],
        n: Option<usize>,
        workers: Option<&[String]>,
        branching: usize,
        delete: bool,
        skip: &HashSet<Key, S>,
    ) -> ReplicatePlan {
        let mut plan = ReplicatePlan::default();
        let chosen = self.running_of(workers);
        let n = n.unwrap_or(chosen.len()).min(chosen.len());
        if n == 0 {
            plan.no_workers = true;
            return plan;
        }
        let mut tasks: Vec<TaskId> = Vec::with_capacity(keys.len());
        for key in keys.iter().filter(|k| !skip.contains(*k)) {
            match self.task_id(key) {
                Some(id) if !self.task(id).who_has.is_empty() => tasks.push(id),
                _ => plan.missing.push(key.clone()),
            }
        }
        if !plan.missing.is_empty() {
            return plan;
        }
        let mut seen = FxHashSet::default();
        tasks.retain(|id| seen.insert(*id) && !self.task(*id).actor);

        // By bytes held after what is planned, so that large sets of keys spread evenly.
        let mut by_load: BTreeSet<(i64, WorkerId)> = chosen
            .iter()
            .map(|w| (self.worker(*w).nbytes, *w))
            .collect();
        let mut deletions: BTreeMap<WorkerId, Vec<Key>> = BTreeMap::new();
        let mut copies: BTreeMap<WorkerId, Vec<Source>> = BTreeMap::new();
        for id in tasks {
            let task = self.task(id);
            let mut holders: Vec<WorkerId> = task.who_has.to_vec();
            holders.retain(|w| chosen.contains(w));
            if delete && holders.len() > n {
                holders.sort_by_key(|w| self.worker(*w).nbytes);
                for w in holders.drain(n..) {
                    deletions.entry(w).or_default().push(task.key.clone());
                }
            }
            let lacking = n.saturating_sub(holders.len());
            let count = lacking.min(branching.max(1).saturating_mul(task.who_has.len()));
            let targets: Vec<(i64, WorkerId)> = by_load
                .iter()
                .filter(|(_, w)| !task.who_has.contains(w))
                .take(count)
                .copied()
                .collect();
            let addresses = || self.holders(id).iter().map(|a| a.to_string()).collect();
            for (load, w) in targets {
                by_load.remove(&(load, w));
                by_load.insert((load + self.nbytes_of(id), w));
                let entry = (task.key.clone(), addresses());
                copies.entry(w).or_default().push(entry);
            }
        }
        let address = |w: WorkerId| self.worker(w).info.address.to_string();
        plan.deletions = deletions
            .into_iter()
            .map(|(w, k)| (address(w), k))
            .collect();
        plan.copies = copies.into_iter().map(|(w, k)| (address(w), k)).collect();
        plan
    }

    /// The workers of these addresses or names that take work; all of them by default.
    fn running_of(&self, workers: Option<&[String]>) -> FxHashSet<WorkerId> {
        match workers {
            None => self.running.iter().collect(),
            Some(list) => list
                .iter()
                .filter_map(|w| self.worker_id(w).or_else(|| self.worker_by_name(w)))
                .filter(|w| self.worker(*w).running())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use super::super::worker::Status;
    use super::*;

    fn cluster(n: usize) -> (Bed, Vec<WorkerId>) {
        let mut bed = Bed::new();
        let workers = (0..n).map(|_| bed.worker(1)).collect();
        (bed, workers)
    }

    fn plan(bed: &Bed, keys: &[&str], n: Option<usize>, delete: bool) -> ReplicatePlan {
        let keys: Vec<Key> = keys.iter().map(|k| Key::new_str(k)).collect();
        let skip: HashSet<Key> = HashSet::new();
        bed.state.plan_replicate(&keys, n, None, 2, delete, &skip)
    }

    /// Makes the planned copies; their number.
    fn carry_out(bed: &mut Bed, plan: &ReplicatePlan) -> usize {
        let mut n = 0;
        for (address, keys) in &plan.copies {
            let w = bed.state.worker_id(address).unwrap();
            for (key, who_has) in keys {
                assert!(!who_has.contains(address));
                let id = bed.state.task_id(key).unwrap();
                bed.state.add_replica(id, w);
                n += 1;
            }
        }
        n
    }

    #[test]
    fn copies_spread_like_a_tree() {
        let (mut bed, w) = cluster(10);
        let x = bed.data("x", 8, &w[..1]);
        let rounds: Vec<usize> = (0..4)
            .map(|_| {
                let p = plan(&bed, &["x"], None, true);
                carry_out(&mut bed, &p)
            })
            .collect();
        assert_eq!(rounds, [2, 6, 1, 0]);
        assert_eq!(bed.state.task(x).who_has.len(), 10);
    }

    #[test]
    fn surplus_copies_go() {
        let (mut bed, w) = cluster(4);
        bed.data("x", 8, &w);
        bed.data("y", 8, &w[..1]);
        let p = plan(&bed, &["x", "y"], Some(2), true);
        assert_eq!(p.deletions.len(), 2);
        assert_eq!(p.copies.len(), 1);
        assert!(plan(&bed, &["x"], Some(2), false).deletions.is_empty());
    }

    #[test]
    fn keys_without_data_stop_everything() {
        let (mut bed, w) = cluster(2);
        bed.data("x", 8, &w[..1]);
        let p = plan(&bed, &["x", "nothing"], None, true);
        assert_eq!(p.missing, [Key::new_str("nothing")]);
        assert!(p.copies.is_empty());
    }

    #[test]
    fn many_keys_spread_evenly_over_running_workers() {
        let (mut bed, w) = cluster(4);
        bed.state.set_worker_status(w[3], Status::Paused);
        let names: Vec<String> = (0..30).map(|i| format!("x-{i}")).collect();
        for name in &names {
            bed.data(name, 1000, &w[..1]);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let p = plan(&bed, &names, Some(2), true);
        let counts: Vec<usize> = p.copies.iter().map(|(_, k)| k.len()).collect();
        assert_eq!(counts, [15, 15]);
        for worker in &w {
            bed.state.set_worker_status(*worker, Status::Paused);
        }
        assert!(plan(&bed, &names, Some(2), true).no_workers);
    }
}
