//! The plan of `rebalance`: which results move so that all workers use about the same memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashSet;

use super::ids::{TaskId, WorkerId};
use super::state::State;
use crate::protocol::Key;

/// One result that moves.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// The result.
    pub key: Key,
    /// Address of the worker that drops it.
    pub sender: String,
    /// Address of the worker that fetches it.
    pub recipient: String,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RebalancePlan {
    /// Requested keys without data; then nothing moves.
    pub missing: Option<Vec<Key>>,
    /// The moves, the most urgent first.
    pub moves: Vec<Move>,
}

/// A worker that differs from the mean by `most` bytes and is to come closer than `most - least`. Both are negative:
/// the one farthest from the mean comes first. `at` is its place in a list of workers.
type Distance = Reverse<(i64, i64, usize)>;

impl State {
    /// Plans the moves among `workers` (default: all) of `keys` (default: all).
    pub fn plan_rebalance(
        &self,
        keys: Option<&[Key]>,
        workers: Option<&[String]>,
    ) -> RebalancePlan {
        let mut plan = RebalancePlan::default();
        let allowed = match keys {
            None => None,
            Some(keys) => {
                let has_data = |k: &&Key| {
                    self.task_id(k)
                        .is_some_and(|id| !self.task(id).who_has.is_empty())
                };
                let missing: Vec<Key> = keys.iter().filter(|k| !has_data(k)).cloned().collect();
                if !missing.is_empty() {
                    plan.missing = Some(missing);
                    return plan;
                }
                Some(
                    keys.iter()
                        .filter_map(|k| self.task_id(k))
                        .collect::<FxHashSet<_>>(),
                )
            }
        };
        let workers: Vec<WorkerId> = match workers {
            None => self.live_workers.iter().collect(),
            Some(list) => list
                .iter()
                .filter_map(|w| self.worker_id(w).or_else(|| self.worker_by_name(w)))
                .collect(),
        };
        if workers.is_empty() || allowed.as_ref().is_some_and(FxHashSet::is_empty) {
            return plan;
        }
        let (senders, recipients) = self.rebalance_sides(&workers);
        plan.moves = self.match_moves(&workers, senders, recipients, allowed.as_ref());
        plan
    }

    /// Workers far above and far below the mean.
    fn rebalance_sides(
        &self,
        workers: &[WorkerId],
    ) -> (BinaryHeap<Distance>, BinaryHeap<Distance>) {
        let c = &self.config;
        let memory = |w: &WorkerId| self.worker(*w).memory().get(c.rebalance_measure);
        let mean = workers.iter().map(memory).sum::<i64>() / workers.len() as i64;
        let (mut senders, mut recipients) = (BinaryHeap::new(), BinaryHeap::new());
        for (at, w) in workers.iter().enumerate() {
            let (used, limit) = (memory(w), self.worker(*w).info.memory_limit as f64);
            let (half_gap, sender_min, recipient_max) = if limit > 0.0 {
                (
                    (c.rebalance_gap / 2.0 * limit) as i64,
                    c.rebalance_sender_min * limit,
                    c.rebalance_recipient_max * limit,
                )
            } else {
                (0, 0.0, f64::INFINITY)
            };
            let has_data = !self.worker(*w).has_what.is_empty();
            if has_data && used >= mean + half_gap && used as f64 >= sender_min {
                senders.push(Reverse((mean - used, mean - used + half_gap, at)));
            } else if used < mean - half_gap && (used as f64) < recipient_max {
                recipients.push(Reverse((used - mean, used - mean + half_gap, at)));
            }
        }
        (senders, recipients)
    }

    fn match_moves(
        &self,
        workers: &[WorkerId],
        mut senders: BinaryHeap<Distance>,
        mut recipients: BinaryHeap<Distance>,
        allowed: Option<&FxHashSet<TaskId>>,
    ) -> Vec<Move> {
        let mut moves = Vec::new();
        // Results of each sender that were looked at, the oldest first.
        let mut cursors = vec![0usize; workers.len()];
        let address = |w: WorkerId| self.worker(w).info.address.to_string();
        while let Some(Reverse((most, least, at))) = senders.pop() {
            if recipients.is_empty() {
                break;
            }
            let sender = workers[at];
            let tasks = self.worker(sender).has_what.as_slice();
            let mut moved = None;
            while moved.is_none() && cursors[at] < tasks.len() {
                let id = tasks[cursors[at]];
                cursors[at] += 1;
                let nbytes = self.nbytes_of(id);
                // A sender must not fall below the mean: it could become a recipient of the next plan.
                if allowed.is_some_and(|a| !a.contains(&id))
                    || self.task(id).actor
                    || nbytes + most > 0
                {
                    continue;
                }
                if let Some(to) = self.take_recipient(workers, &mut recipients, id, nbytes) {
                    moved = Some(nbytes);
                    moves.push(Move {
                        key: self.task(id).key.clone(),
                        sender: address(sender),
                        recipient: address(to),
                    });
                }
            }
            if let Some(nbytes) = moved
                && least + nbytes < 0
            {
                senders.push(Reverse((most + nbytes, least + nbytes, at)));
            }
        }
        moves
    }

    /// The recipient farthest below the mean that has room for the result and no copy of it.
    fn take_recipient(
        &self,
        workers: &[WorkerId],
        recipients: &mut BinaryHeap<Distance>,
        id: TaskId,
        nbytes: i64,
    ) -> Option<WorkerId> {
        let mut skipped = Vec::new();
        let mut found = None;
        while let Some(Reverse((most, least, at))) = recipients.pop() {
            let entry = Reverse((most, least, at));
            if nbytes + most > 0 {
                // Those that follow have even less room.
                skipped.push(entry);
                break;
            }
            if self.task(id).who_has.contains(&workers[at]) {
                skipped.push(entry);
                continue;
            }
            if least + nbytes < 0 {
                skipped.push(Reverse((most + nbytes, least + nbytes, at)));
            }
            found = Some(workers[at]);
            break;
        }
        recipients.extend(skipped);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use super::*;

    const MB: i64 = 1_000_000;

    /// Workers of 1 GB, the first with `n` results of 100 MB.
    fn cluster(workers: usize, n: usize) -> (Bed, Vec<WorkerId>) {
        let mut bed = Bed::new();
        let ids: Vec<WorkerId> = (0..workers)
            .map(|_| bed.worker_with(1, |i| i.memory_limit = 1000 * MB as u64))
            .collect();
        for i in 0..n {
            bed.data(&format!("x-{i}"), 100 * MB, &ids[..1]);
        }
        heartbeats(&mut bed, &ids);
        (bed, ids)
    }

    fn heartbeats(bed: &mut Bed, ids: &[WorkerId]) {
        for w in ids {
            let nbytes = bed.state.worker(*w).nbytes;
            bed.heartbeat(*w, nbytes);
        }
    }

    #[test]
    fn data_spreads_until_all_are_near_the_mean() {
        let (bed, ids) = cluster(4, 8);
        let moves = bed.state.plan_rebalance(None, None).moves;
        assert_eq!(moves.len(), 6);
        let to = |w| {
            let address = bed.address(w);
            moves.iter().filter(|m| m.recipient == *address).count()
        };
        assert_eq!([to(ids[1]), to(ids[2]), to(ids[3])], [2, 2, 2]);
        assert!(moves.iter().all(|m| m.sender == *bed.address(ids[0])));
        assert_eq!(moves[0].key, Key::new_str("x-0"), "the oldest goes first");
    }

    #[test]
    fn little_data_stays() {
        let (bed, _) = cluster(2, 2);
        assert!(bed.state.plan_rebalance(None, None).moves.is_empty());
    }

    #[test]
    fn small_differences_stay() {
        let (mut bed, ids) = cluster(2, 4);
        for i in 0..4 {
            bed.data(&format!("y-{i}"), 95 * MB, &ids[1..]);
        }
        heartbeats(&mut bed, &ids);
        assert!(bed.state.plan_rebalance(None, None).moves.is_empty());
    }

    #[test]
    fn recipients_that_have_a_copy_are_passed_over() {
        let (mut bed, ids) = cluster(3, 8);
        for i in 0..8 {
            let id = bed.id(&format!("x-{i}"));
            bed.state.add_replica(id, ids[1]);
        }
        // The second worker has copies of everything but reports no memory.
        bed.heartbeat(ids[1], 0);
        let moves = bed.state.plan_rebalance(None, None).moves;
        assert!(!moves.is_empty());
        assert!(moves.iter().all(|m| m.recipient == *bed.address(ids[2])));
    }

    #[test]
    fn keys_and_workers_limit_the_plan() {
        let (bed, ids) = cluster(3, 8);
        let keys = [Key::new_str("x-5"), Key::new_str("x-6")];
        let moves = bed.state.plan_rebalance(Some(&keys), None).moves;
        assert_eq!(moves.len(), 2);
        let names = [
            bed.address(ids[0]).to_string(),
            bed.address(ids[2]).to_string(),
        ];
        let moves = bed.state.plan_rebalance(None, Some(&names)).moves;
        assert!(moves.iter().all(|m| m.recipient == names[1]));
        assert_eq!(moves.len(), 4);
        let missing = bed
            .state
            .plan_rebalance(Some(&[Key::new_str("nothing")]), None)
            .missing;
        assert_eq!(missing, Some(vec![Key::new_str("nothing")]));
        let nothing = bed.state.plan_rebalance(Some(&[]), None);
        assert_eq!(nothing, RebalancePlan::default());
    }
}
