//! Settings of the scheduler's core. The names are those of `distributed.scheduler.*`.

use super::memory::Measure;

/// Settings of the core, read once at start.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Workers that may die running a task before it is given up.
    pub allowed_failures: u32,
    /// First guess of bytes/s between workers.
    pub bandwidth: f64,
    /// Size assumed of results of unknown size, bytes.
    pub default_data_size: i64,
    /// Known durations by prefix, s.
    pub default_task_durations: Vec<(String, f64)>,
    /// Guess while nothing is known, s.
    pub unknown_task_duration: f64,
    /// Root tasks sent ahead per worker thread; infinite turns queuing off.
    pub worker_saturation: f64,
    /// Groups a root-like group may depend on (exclusive).
    pub rootish_taskgroup: usize,
    /// Tasks a root-like group may depend on (exclusive).
    pub rootish_taskgroup_dependencies: usize,
    /// Whether idle workers take work from busy ones.
    pub work_stealing: bool,
    /// Seconds between two rounds of stealing.
    pub work_stealing_interval: f64,
    /// `distributed.worker.memory.terminate` is on: tasks whose input cannot fit are refused.
    pub worker_terminate: bool,
    /// Entries kept of events and transitions.
    pub low_level_log_length: usize,
    /// Records of finished tasks kept.
    pub task_stream_length: usize,
    /// Seconds after which unmanaged memory counts as old.
    pub memory_recent_to_old: f64,
    /// Rebalance: senders hold more than this share of their limit.
    pub rebalance_sender_min: f64,
    /// Rebalance: recipients hold less than this share of their limit.
    pub rebalance_recipient_max: f64,
    /// Rebalance: half of this gap on each side of the mean is left alone.
    pub rebalance_gap: f64,
    /// Run the active memory manager from the start.
    pub amm_start: bool,
    /// Drop surplus replicas.
    pub amm_reduce_replicas: bool,
    /// Seconds between two runs of the active memory manager.
    pub amm_interval: f64,
    /// By which the active memory manager compares workers.
    pub amm_measure: Measure,
    /// By which `rebalance` compares workers.
    pub rebalance_measure: Measure,
    /// Seconds in which adaptive scaling wants the work done.
    pub adaptive_target_duration: f64,
    /// Seconds that events of a gone worker or client are kept.
    pub events_cleanup_delay: f64,
    /// Send more root tasks ahead while they are short and small.
    pub adaptive_window: bool,
    /// Seconds a task may wait for a worker that can run it.
    pub no_workers_timeout: Option<f64>,
    /// Seconds without work after which the scheduler ends.
    pub idle_timeout: Option<f64>,
    /// Seconds without a heartbeat after which a worker is given up.
    pub worker_ttl: Option<f64>,
}

impl Default for CoreConfig {
    fn default() -> Self {
        let tiny = [
            "rechunk-split",
            "split-shuffle",
            "split-taskshuffle",
            "split-stage",
        ];
        Self {
            allowed_failures: 3,
            bandwidth: 100e6,
            default_data_size: 1024,
            default_task_durations: tiny.iter().map(|n| (n.to_string(), 1e-6)).collect(),
            unknown_task_duration: 0.5,
            worker_saturation: 1.1,
            rootish_taskgroup: 5,
            rootish_taskgroup_dependencies: 5,
            work_stealing: true,
            work_stealing_interval: 1.0,
            worker_terminate: true,
            low_level_log_length: 1000,
            task_stream_length: 100_000,
            memory_recent_to_old: 30.0,
            rebalance_sender_min: 0.30,
            rebalance_recipient_max: 0.60,
            rebalance_gap: 0.10,
            amm_start: true,
            amm_reduce_replicas: true,
            amm_interval: 2.0,
            amm_measure: Measure::Optimistic,
            rebalance_measure: Measure::Optimistic,
            adaptive_target_duration: 5.0,
            events_cleanup_delay: 3600.0,
            adaptive_window: true,
            no_workers_timeout: None,
            idle_timeout: None,
            worker_ttl: Some(300.0),
        }
    }
}
