//! Workers.

use super::super::view::{WorkerDetail, WorkerRow};
use super::json::to_json;
use super::tasks::priority_text;
use crate::protocol::Value;
use crate::scheduler::{State, WorkerId};

/// Rows of all workers; costs the number of workers.
pub(in crate::http) fn worker_rows(state: &State) -> Vec<WorkerRow> {
    state
        .all_workers()
        .map(|(id, _)| worker_row(state, id))
        .collect()
}

/// One worker's row.
pub(in crate::http) fn worker_row(state: &State, id: WorkerId) -> WorkerRow {
    let worker = state.worker(id);
    let metrics = &worker.metrics.raw;
    let rate = |section: &str, name: &str| {
        metrics
            .get(section)
            .and_then(|m| m.get(name))
            .and_then(Value::as_f64)
            .unwrap_or(0.0)
    };
    // The parts come from different moments; like stock, cut them so that they add up.
    let process = positive(worker.metrics.memory);
    let managed = process.min(positive(worker.managed_in_memory()));
    let unmanaged_old = positive(worker.unmanaged_old).min(process - managed);
    let port = worker
        .info
        .services
        .get("dashboard")
        .and_then(Value::as_i64);
    WorkerRow {
        address: worker.info.address.to_string(),
        name: to_json(&worker.info.name),
        host: worker.info.host.to_string(),
        status: worker.status.as_str().to_owned(),
        nthreads: u64::from(worker.info.nthreads),
        memory_limit: worker.info.memory_limit,
        memory: process,
        managed,
        unmanaged_old,
        unmanaged_recent: process - managed - unmanaged_old,
        spilled: positive(worker.metrics.spilled_memory),
        nbytes: positive(worker.nbytes),
        cpu: metrics.get("cpu").and_then(Value::as_f64).unwrap_or(0.0),
        occupancy: state.occupancy(id),
        processing: worker.processing.len() as u64,
        executing: worker.executing.len() as u64,
        in_memory: worker.has_what.len() as u64,
        last_seen_ago: (state.clock.wall - worker.last_seen).max(0.0),
        dashboard_port: port.and_then(|port| u16::try_from(port).ok()),
        net_read: rate("host_net_io", "read_bps"),
        net_write: rate("host_net_io", "write_bps"),
        disk_read: rate("host_disk_io", "read_bps"),
        disk_write: rate("host_disk_io", "write_bps"),
        num_fds: metrics.get("num_fds").and_then(Value::as_u64).unwrap_or(0),
    }
}

/// One worker with at most `limit` of its tasks.
pub(in crate::http) fn worker_detail(state: &State, id: WorkerId, limit: usize) -> WorkerDetail {
    let worker = state.worker(id);
    let mut processing: Vec<_> = worker
        .processing
        .as_slice()
        .iter()
        .map(|task| state.task(*task))
        .collect();
    processing.sort_by(|a, b| match (&a.priority, &b.priority) {
        (Some(a), Some(b)) => a.order(b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    let used = |name: &str| {
        worker
            .used_resources
            .iter()
            .find(|(n, _)| &**n == name)
            .map_or(0.0, |(_, amount)| *amount)
    };
    WorkerDetail {
        row: worker_row(state, id),
        has_what: worker
            .has_what
            .as_slice()
            .iter()
            .take(limit)
            .map(|task| state.task(*task))
            .map(|task| (task.key.to_string(), positive(task.nbytes)))
            .collect(),
        processing: processing
            .into_iter()
            .take(limit)
            .map(|task| (task.key.to_string(), priority_text(task)))
            .collect(),
        resources: worker
            .info
            .resources
            .iter()
            .map(|(name, total)| (name.to_string(), used(name), *total))
            .collect(),
    }
}

pub(super) fn positive(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
