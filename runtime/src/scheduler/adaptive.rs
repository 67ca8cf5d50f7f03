//! How many workers the work needs, and which ones it can do without.

use super::ids::WorkerId;
use super::state::State;

/// Ready tasks whose durations are added up; more are extrapolated.
const SAMPLED_TASKS: usize = 100;

/// Share of all memory in use above which more workers are asked for.
const MEMORY_IN_USE: f64 = 0.6;

/// Memory kept per byte of results, unless asked otherwise.
const MEMORY_RATIO: f64 = 2.0;

/// Largest answer, whatever durations were measured or asked for.
const MOST_WORKERS: f64 = 1e6;

impl State {
    /// Workers that would finish the present work in about `target_duration` seconds.
    pub fn adaptive_target(&self, target_duration: f64) -> u64 {
        let n_workers = self.live_workers.len();
        let ready = self.queued_len + self.unrunnable.len();
        let mut cores = (self.total_occupancy() + self.ready_seconds(ready)) / target_duration;
        cores = cores.ceil().clamp(0.0, MOST_WORKERS);

        // A few long tasks do not need many cores.
        let mut runnable = ready as f64;
        for (_, worker) in self.all_workers() {
            if runnable > cores {
                break;
            }
            runnable += worker.processing.len() as f64;
        }
        cores = cores.min(runnable);

        let mut wanted = if n_workers == 0 {
            cores
        } else {
            let nthreads = f64::from(self.total_nthreads.max(1));
            (cores / nthreads * n_workers as f64).ceil()
        };
        if n_workers == 0 && ready > 0 {
            wanted = wanted.max(1.0);
        }
        let used: i64 = self.all_workers().map(|(_, w)| w.nbytes).sum();
        if self.total_memory > 0 && used as f64 > MEMORY_IN_USE * self.total_memory as f64 {
            wanted = wanted.max(2.0 * n_workers as f64);
        }
        if wanted >= n_workers as f64 {
            return wanted as u64;
        }
        (n_workers - self.workers_to_close(None, None, None, None).len()) as u64
    }

    /// Estimated seconds of the tasks that are ready but on no worker.
    fn ready_seconds(&self, ready: usize) -> f64 {
        let sampled: f64 = self
            .queued_tasks()
            .chain(self.unrunnable.iter())
            .take(SAMPLED_TASKS)
            .map(|id| self.prefix_duration(self.task(id).prefix))
            .sum();
        sampled * (ready as f64 / SAMPLED_TASKS as f64).max(1.0)
    }

    /// Workers that may be closed at little cost: those that do nothing and store least. `memory_ratio` (2 if neither
    /// it nor a number is given): memory that must remain per byte of results. `n` workers to close, or `target`
    /// workers to keep; never fewer than `minimum`.
    pub fn workers_to_close(
        &self,
        memory_ratio: Option<f64>,
        n: Option<usize>,
        minimum: Option<usize>,
        target: Option<usize>,
    ) -> Vec<WorkerId> {
        let groups = self.live_workers.iter().map(|w| vec![w]).collect();
        self.groups_to_close(groups, memory_ratio, n, minimum, target)
    }

    /// As [`State::workers_to_close`], with workers that can only be closed together (those of a host, say).
    pub fn groups_to_close(
        &self,
        mut groups: Vec<Vec<WorkerId>>,
        memory_ratio: Option<f64>,
        n: Option<usize>,
        minimum: Option<usize>,
        target: Option<usize>,
    ) -> Vec<WorkerId> {
        let n_workers = self.live_workers.len();
        let n = n.or_else(|| target.map(|t| n_workers.saturating_sub(t)));
        let target = n.map(|n| n_workers.saturating_sub(n));
        let ratio = memory_ratio.or_else(|| n.is_none().then_some(MEMORY_RATIO));
        let busy = |w: &WorkerId| !self.worker(*w).processing.is_empty();
        if n.unwrap_or(0) == 0 && self.live_workers.as_slice().iter().all(busy) {
            return Vec::new();
        }
        // Long-running tasks usually run others; closing their worker would start all of it again, as would be the case
        // with a shuffle.
        let shuffling = self.shuffles.participants();
        for group in &mut groups {
            group.retain(|w| {
                let worker = self.worker(*w);
                self.is_registered(*w)
                    && worker.long_running.is_empty()
                    && !shuffling.contains(&worker.info.address)
            });
        }
        groups.retain(|g| !g.is_empty());
        let stored = |g: &[WorkerId]| g.iter().map(|w| self.worker(*w).nbytes).sum::<i64>();
        let memory =
            |g: &[WorkerId]| -> u64 { g.iter().map(|w| self.worker(*w).info.memory_limit).sum() };
        let mut limit: u64 = groups.iter().map(|g| memory(g)).sum();
        let total: i64 = groups.iter().map(|g| stored(g)).sum();
        groups.sort_by_cached_key(|g| (!g.iter().any(busy), -stored(g)));

        let mut closing = Vec::new();
        let mut remaining = n_workers;
        while let Some(group) = groups.pop() {
            if n.is_none() && group.iter().any(busy) {
                break;
            }
            let left = remaining.saturating_sub(group.len());
            if minimum.is_some_and(|m| left < m) {
                break;
            }
            limit -= memory(&group);
            let by_number = target.is_some_and(|t| remaining >= group.len() + t);
            let by_memory = ratio.is_some_and(|r| limit as f64 >= r * total as f64);
            if !by_number && !by_memory {
                break;
            }
            remaining = left;
            closing.extend(group);
        }
        closing
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Bed;
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn with_memory(bed: &mut Bed) -> WorkerId {
        bed.worker_with(1, |info| info.memory_limit = GB)
    }

    #[test]
    fn without_work_no_worker_is_needed() {
        let mut bed = Bed::new();
        assert_eq!(bed.state.adaptive_target(5.0), 0);
        bed.worker(1);
        assert_eq!(bed.state.adaptive_target(5.0), 0);
    }

    #[test]
    fn work_without_workers_needs_some() {
        let mut bed = Bed::new();
        bed.map("x", 1);
        assert_eq!(bed.state.adaptive_target(5.0), 1);
        bed.map("y", 1000);
        // 1001 tasks of unknown duration, 0.5 s each.
        assert_eq!(bed.state.adaptive_target(5.0), 101);
        assert_eq!(bed.state.adaptive_target(0.0), 1001);
    }

    #[test]
    fn durations_and_threads_count() {
        let mut bed = Bed::new();
        bed.worker(2);
        bed.map("x", 201);
        bed.finish_with("x-0", 8, 1.0);
        // 200 tasks of 1 s in 5 s take 40 cores.
        assert_eq!(bed.state.adaptive_target(5.0), 20);
        assert_eq!(bed.state.adaptive_target(1e9), 1);
    }

    #[test]
    fn a_few_long_tasks_need_few_workers() {
        let mut bed = Bed::new();
        for _ in 0..2 {
            bed.worker(1);
        }
        bed.map("x", 1);
        bed.finish_with("x-0", 8, 1000.0);
        let names = ["x-1", "x-2"];
        bed.graph(&[(names[0], &[]), (names[1], &[])]);
        assert_eq!(bed.state.adaptive_target(5.0), 2);
    }

    #[test]
    fn full_memory_needs_more_workers() {
        let mut bed = Bed::new();
        let a = with_memory(&mut bed);
        bed.data("x", 700_000_000, &[a]);
        assert_eq!(bed.state.adaptive_target(5.0), 2);
    }

    #[test]
    fn idle_workers_that_store_least_go_first() {
        let mut bed = Bed::new();
        let ids: Vec<WorkerId> = (0..4).map(|_| with_memory(&mut bed)).collect();
        bed.data("x", 300_000_000, &[ids[0]]);
        bed.data("y", 100_000_000, &[ids[1]]);
        let close = |bed: &Bed, n| bed.state.workers_to_close(None, n, None, None);
        assert_eq!(close(&bed, None), [ids[3], ids[2], ids[1]]);
        assert_eq!(close(&bed, Some(1)), [ids[3]]);
        let kept =
            |bed: &Bed, minimum, target| bed.state.workers_to_close(None, None, minimum, target);
        assert_eq!(kept(&bed, Some(2), None), [ids[3], ids[2]]);
        assert_eq!(kept(&bed, None, Some(1)).len(), 3);
        assert_eq!(kept(&bed, None, Some(9)).len(), 0);
    }

    #[test]
    fn busy_workers_stay_unless_a_number_is_asked_for() {
        let mut bed = Bed::new();
        bed.worker(1);
        bed.graph(&[("x", &[])]);
        assert!(
            bed.state
                .workers_to_close(None, None, None, None)
                .is_empty()
        );
        let b = bed.worker(1);
        assert_eq!(bed.state.workers_to_close(None, None, None, None), [b]);
        let both = bed.state.workers_to_close(None, Some(2), None, None);
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn groups_close_together() {
        let mut bed = Bed::new();
        let ids: Vec<WorkerId> = (0..4).map(|_| bed.worker(1)).collect();
        let groups = vec![vec![ids[0], ids[1], ids[2]], vec![ids[3]]];
        let close = |n| {
            bed.state
                .groups_to_close(groups.clone(), None, Some(n), None, None)
        };
        assert_eq!(close(1), [ids[3]]);
        assert_eq!(close(4).len(), 4);
        assert_eq!(close(3), [ids[3]], "the other group would be one too many");
    }
}
