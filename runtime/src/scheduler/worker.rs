//! Workers as the scheduler sees them.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::ids::{IdSet, PrefixId, TaskId};
use crate::protocol::Value;

/// A worker's status, as in `distributed.core.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Registered, does not take work yet.
    Init,
    /// Takes work.
    Running,
    /// Over its memory limit; takes no new work.
    Paused,
    /// On its way out, hands over its data.
    ClosingGracefully,
    /// Closing.
    Closing,
    /// Gone.
    Closed,
    /// Any other name a peer may send.
    Other,
}

impl Status {
    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ClosingGracefully => "closing_gracefully",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Other => "undefined",
        }
    }

    /// From the name on the wire.
    pub fn parse(name: &str) -> Self {
        match name {
            "init" => Self::Init,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "closing_gracefully" => Self::ClosingGracefully,
            "closing" => Self::Closing,
            "closed" => Self::Closed,
            _ => Self::Other,
        }
    }
}

/// What a worker tells about itself when it registers.
#[derive(Clone, Debug)]
pub struct WorkerInfo {
    /// Contact address, e.g. `tcp://10.0.0.1:40001`.
    pub address: Arc<str>,
    /// Host part of the address.
    pub host: Arc<str>,
    /// Name: a string, or an integer with LocalCluster.
    pub name: Value,
    /// Identity of the process.
    pub server_id: String,
    /// Threads that run tasks.
    pub nthreads: u32,
    /// Memory limit in bytes, 0 if none.
    pub memory_limit: u64,
    /// Directory for spilled data.
    pub local_directory: String,
    /// Address of its nanny.
    pub nanny: Option<Arc<str>>,
    /// Process id.
    pub pid: i64,
    /// HTTP services and their ports.
    pub services: Value,
    /// Versions of its packages.
    pub versions: Value,
    /// Further start-up information, shown in `identity`.
    pub extra: Value,
    /// Supply of named resources.
    pub resources: Vec<(Arc<str>, f64)>,
}

/// The figures of a heartbeat that the scheduler itself uses.
#[derive(Clone, Debug, Default)]
pub struct WorkerMetrics {
    /// All of it, as sent; shown in `identity`.
    pub raw: Value,
    /// Resident bytes.
    pub memory: i64,
    /// Bytes of spilled data as they were in memory.
    pub spilled_memory: i64,
    /// Bytes of spilled data on disk.
    pub spilled_disk: i64,
}

/// A worker.
#[derive(Debug)]
pub struct Worker {
    /// As registered.
    pub info: WorkerInfo,
    /// Status; change it only through `State`.
    pub status: Status,
    /// Tasks sent to it, long-running ones included.
    pub processing: IdSet<TaskId>,
    /// Tasks that have left its thread pool (`secede`).
    pub long_running: IdSet<TaskId>,
    /// Results it holds.
    pub has_what: IdSet<TaskId>,
    /// Actors on it.
    pub actors: IdSet<TaskId>,
    /// Dependencies of its processing tasks that it does not hold, with the number of tasks that need each.
    pub needs_what: FxHashMap<TaskId, u32>,
    /// Bytes of those.
    pub network_occ: i64,
    /// Bytes of results it holds.
    pub nbytes: i64,
    /// Processing tasks by prefix, long-running ones not counted.
    pub prefix_count: SmallVec<[(PrefixId, u32); 4]>,
    /// Resources in use, accounting only.
    pub used_resources: Vec<(Arc<str>, f64)>,
    /// Running tasks and their seconds, from the last heartbeat.
    pub executing: Vec<(TaskId, f64)>,
    /// Last heartbeat.
    pub metrics: WorkerMetrics,
    /// Wall time of the last heartbeat, s since the epoch.
    pub last_seen: f64,
    /// Scheduler's clock less worker's clock, s.
    pub time_delay: f64,
    /// Bytes used outside of results, lowest of the last 30 s.
    pub unmanaged_old: i64,
    /// (wall time, unmanaged bytes) of recent heartbeats.
    pub unmanaged_history: VecDeque<(f64, i64)>,
}

impl Worker {
    /// A worker that has just registered.
    pub fn new(info: WorkerInfo, status: Status) -> Self {
        Self {
            info,
            status,
            processing: IdSet::default(),
            long_running: IdSet::default(),
            has_what: IdSet::default(),
            actors: IdSet::default(),
            needs_what: FxHashMap::default(),
            network_occ: 0,
            nbytes: 0,
            prefix_count: SmallVec::new(),
            used_resources: Vec::new(),
            executing: Vec::new(),
            metrics: WorkerMetrics::default(),
            last_seen: 0.0,
            time_delay: 0.0,
            unmanaged_old: 0,
            unmanaged_history: VecDeque::new(),
        }
    }

    /// Whether it takes work.
    pub fn running(&self) -> bool {
        self.status == Status::Running
    }

    /// Bytes the process uses that are neither results nor recent growth, plus results in memory:
    /// the "optimistic" measure of `distributed.scheduler.MemoryState`.
    pub fn optimistic_memory(&self) -> i64 {
        self.managed_in_memory() + self.unmanaged_old
    }

    /// Bytes of results in memory, spilled ones excluded.
    pub fn managed_in_memory(&self) -> i64 {
        (self.nbytes - self.metrics.spilled_memory).max(0)
    }
}
