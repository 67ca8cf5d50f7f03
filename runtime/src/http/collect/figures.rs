//! Sums: `/json/counts.json`, `/metrics`, the dashboard's progress bars.

use super::super::view::{Counts, Metrics, PrefixMetrics, PrefixProgress};
use super::tasks::prefix_nbytes;
use super::workers::positive;
use crate::scheduler::state::FIRE_AND_FORGET;
use crate::scheduler::task::TaskStateName;
use crate::scheduler::{State, Status};

/// Stock's counts; costs the number of tasks.
pub(in crate::http) fn counts(state: &State, desired_workers: u64) -> Counts {
    let mut counts = Counts {
        clients: state.all_clients().count() as u64,
        hosts: state.all_hosts().count() as u64,
        idle: state.idle_workers().len() as u64,
        saturated: state.saturated_workers().len() as u64,
        tasks: state.n_known_tasks() as u64,
        unrunnable: state.unrunnable_tasks().len() as u64,
        workers: state.n_workers() as u64,
        desired_workers,
        ..Counts::default()
    };
    for (_, task) in state.all_tasks() {
        if task.exception_blame().is_some() {
            counts.erred += 1;
        } else if task.state == TaskStateName::Released {
            counts.released += 1;
        }
        counts.waiting += u64::from(!task.waiting_on.is_empty());
        counts.waiting_data += u64::from(!task.waiters.is_empty());
    }
    for (_, worker) in state.all_workers() {
        counts.cores += u64::from(worker.info.nthreads);
        counts.memory += worker.has_what.len() as u64;
        counts.bytes += positive(worker.nbytes);
        counts.processing += worker.processing.len() as u64;
    }
    counts
}

/// What the state itself knows of the metrics; costs workers, prefixes and groups.
pub(in crate::http) fn metrics(state: &State) -> Metrics {
    let (idle, saturated) = (
        state.idle_workers().len() as u64,
        state.saturated_workers().len() as u64,
    );
    let running = state.running_workers().len() as u64;
    let paused = state
        .all_workers()
        .filter(|(_, worker)| worker.status == Status::Paused)
        .count() as u64;
    let mut by_state = [0u64; TaskStateName::ALL.len()];
    for prefix in state.all_prefixes() {
        for (sum, n) in by_state.iter_mut().zip(prefix.states) {
            *sum += u64::from(n);
        }
    }
    let named = |numbers: &[u64]| {
        TaskStateName::ALL
            .iter()
            .map(|s| s.as_str())
            .zip(numbers.iter().copied())
            .collect::<Vec<_>>()
    };
    Metrics {
        clients: state
            .all_clients()
            .filter(|(_, client)| &*client.name != FIRE_AND_FORGET)
            .count() as u64,
        client_connections_added: state.totals.clients_added,
        client_connections_removed: state.totals.clients_removed,
        workers_idle: idle,
        workers_partially_saturated: running.saturating_sub(idle + saturated),
        workers_saturated: saturated,
        workers_paused: paused,
        workers_retiring: (state.n_workers() as u64).saturating_sub(paused + running),
        workers_added: state.totals.workers_added,
        workers_removed: state.totals.workers_removed,
        tasks_forgotten: by_state[TaskStateName::Forgotten as usize],
        task_states: named(&by_state),
        task_groups: state.all_groups().count() as u64,
        prefixes: state
            .all_prefixes()
            .iter()
            .map(|prefix| PrefixMetrics {
                name: prefix.name.to_string(),
                suspicious: prefix.suspicious,
                compute_seconds: prefix.durations.get("compute"),
                transfer_seconds: prefix.durations.get("transfer"),
                nbytes: prefix_nbytes(state, prefix),
                state_counts: named(&prefix.state_totals),
            })
            .collect(),
        ..Metrics::default()
    }
}

/// Progress of the prefixes that have tasks; costs prefixes and groups.
pub(in crate::http) fn progress(state: &State) -> Vec<PrefixProgress> {
    let one = |prefix: &crate::scheduler::task::Prefix| {
        let count = |state: TaskStateName| u64::from(prefix.states[state as usize]);
        let progress = PrefixProgress {
            name: prefix.name.to_string(),
            memory: count(TaskStateName::Memory),
            released: count(TaskStateName::Released),
            processing: count(TaskStateName::Processing),
            waiting: count(TaskStateName::Waiting),
            queued: count(TaskStateName::Queued),
            no_worker: count(TaskStateName::NoWorker),
            erred: count(TaskStateName::Erred),
            nbytes: prefix_nbytes(state, prefix),
            duration: prefix.duration_average,
        };
        let p = &progress;
        let live =
            p.memory + p.released + p.processing + p.waiting + p.queued + p.no_worker + p.erred;
        (live > 0).then_some(progress)
    };
    state.all_prefixes().iter().filter_map(one).collect()
}
