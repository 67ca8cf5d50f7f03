//! What the HTTP server needs to know of the scheduler: one trait, plain owned answers.
//!
//! The state lives on another thread; an implementation collects an answer there and sends it over. Every answer is
//! bounded by the limits given with the question.

use serde::Serialize;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::broadcast;

/// A boxed future, so that [`StateView`] can be a trait object.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A question that could not be answered; the text goes to the log and, shortened, to the asker.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ViewError(pub String);

/// Read access to a scheduler, and the few actions that HTTP offers.
pub trait StateView: Send + Sync + 'static {
    /// Figures of `/json/counts.json`.
    fn counts(&self) -> Answer<'_, Counts>;
    /// `identity()` with all workers.
    fn identity(&self) -> Answer<'_, serde_json::Value>;
    /// Figures of `/metrics`. The tick maximum may be reset by the call.
    fn metrics(&self) -> Answer<'_, Metrics>;
    /// Cluster figures, workers and progress: what the dashboard polls. Must not cost more than workers + prefixes.
    fn overview(&self) -> Answer<'_, Overview>;
    /// One worker, with at most `limit` tasks of each kind.
    fn worker(&self, address: String, limit: usize) -> Answer<'_, Option<WorkerDetail>>;
    /// One task by the text of its key: the string itself, a tuple's JSON form or `str()` of it.
    fn task(&self, key: String, limit: usize) -> Answer<'_, Option<TaskDetail>>;
    /// Finished tasks from record number `since` on, the latest `limit` of them.
    fn task_stream(&self, since: u64, limit: usize) -> Answer<'_, StreamPage>;
    /// The task graph if it has at most `limit` tasks, else only its size.
    fn graph(&self, limit: usize) -> Answer<'_, GraphView>;
    /// The latest events of all topics, newest first.
    fn events(&self, limit: usize) -> Answer<'_, Vec<EventRow>>;
    /// The latest erred tasks, newest first.
    fn erred_tasks(&self, limit: usize) -> Answer<'_, Vec<ErredTask>>;
    /// The scheduler's log, newest first.
    fn logs(&self, limit: usize) -> Answer<'_, Vec<LogLine>>;
    /// A worker's log, newest first; `None` if there is no such worker.
    fn worker_logs(&self, address: String) -> Answer<'_, Result<Option<Vec<LogLine>>, ViewError>>;
    /// Call stacks of what runs; `None` if there is no such worker or task.
    fn call_stacks(&self, of: CallStackOf)
    -> Answer<'_, Result<Option<Vec<CallStack>>, ViewError>>;
    /// Retires workers; the answer is what stock's `retire_workers` returns: `{address: worker's identity}`.
    fn retire_workers(
        &self,
        which: RetireRequest,
    ) -> Answer<'_, Result<serde_json::Value, ViewError>>;
    /// Workers the scheduler would like to have.
    fn adaptive_target(&self) -> Answer<'_, Result<u64, ViewError>>;
    /// Since when the scheduler is idle, seconds since the epoch; `None` if it is not.
    fn check_idle(&self) -> Answer<'_, Result<Option<f64>, ViewError>>;
    /// Events for `/eventstream`. A receiver that lags loses events; the sender never waits.
    fn subscribe(&self) -> broadcast::Receiver<Arc<StreamEvent>>;
}

/// `/json/counts.json`, field for field.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub bytes: u64,
    pub clients: u64,
    pub cores: u64,
    pub erred: u64,
    pub hosts: u64,
    pub idle: u64,
    pub memory: u64,
    pub processing: u64,
    pub released: u64,
    pub saturated: u64,
    pub tasks: u64,
    pub unrunnable: u64,
    pub waiting: u64,
    pub waiting_data: u64,
    pub workers: u64,
    pub desired_workers: u64,
}

/// Figures of `/metrics`; see the help texts there.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Metrics {
    pub clients: u64,
    pub client_connections_added: u64,
    pub client_connections_removed: u64,
    pub desired_workers: u64,
    pub workers_idle: u64,
    pub workers_partially_saturated: u64,
    pub workers_saturated: u64,
    pub workers_paused: u64,
    pub workers_retiring: u64,
    pub workers_added: u64,
    pub workers_removed: u64,
    /// Tasks now in each state, by the state's name; `forgotten` counts those gone since the start.
    pub task_states: Vec<(&'static str, u64)>,
    pub tasks_forgotten: u64,
    pub task_groups: u64,
    pub prefixes: Vec<PrefixMetrics>,
    pub semaphores: Vec<SemaphoreMetrics>,
    pub stealing: Vec<StealingMetrics>,
    /// Longest turn of the core loop since the last scrape.
    pub tick_duration_maximum_seconds: f64,
    /// Turns of the core loop.
    pub tick_count: u64,
}

/// Figures of one task prefix.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct PrefixMetrics {
    pub name: String,
    pub suspicious: u64,
    pub compute_seconds: f64,
    pub transfer_seconds: f64,
    pub nbytes: u64,
    /// Transitions into each state so far.
    pub state_counts: Vec<(&'static str, u64)>,
}

/// Figures of one semaphore or lock.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct SemaphoreMetrics {
    pub name: String,
    pub max_leases: u64,
    pub active_leases: u64,
    pub pending_leases: u64,
    pub acquired: u64,
    pub released: u64,
    pub average_pending_lease_time_seconds: f64,
}

/// Stealing requests at one cost multiplier.
#[derive(Clone, Debug, Default)]
pub struct StealingMetrics {
    /// As the label says it: `"1.03125"`, `"17"`.
    pub cost_multiplier: String,
    /// Requests.
    pub requests: u64,
    /// Their cost, seconds.
    pub cost: f64,
}

/// What the dashboard shows at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Overview {
    /// The cluster as a whole.
    pub cluster: ClusterSummary,
    /// Its workers.
    pub workers: Vec<WorkerRow>,
    /// Tasks by prefix, in order of appearance.
    pub progress: Vec<PrefixProgress>,
}

/// The cluster as a whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClusterSummary {
    /// The scheduler's address.
    pub address: String,
    /// Its id.
    pub id: String,
    /// Start, seconds since the epoch.
    pub started: f64,
    /// Connected clients, without pseudo-clients.
    pub clients: u64,
    /// Workers idle.
    pub idle: u64,
    /// Workers saturated.
    pub saturated: u64,
    /// Workers wanted.
    pub desired_workers: u64,
    /// Expected seconds of work assigned, over all workers.
    pub occupancy: f64,
    /// Task groups known.
    pub task_groups: u64,
    /// State transitions so far.
    pub transitions: u64,
    /// Longest recent turn of the core loop, seconds.
    pub tick_seconds: f64,
}

/// One worker in the table.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct WorkerRow {
    pub address: String,
    /// Text or number.
    pub name: serde_json::Value,
    pub host: String,
    pub status: String,
    pub nthreads: u64,
    /// 0: none.
    pub memory_limit: u64,
    /// Memory of the process.
    pub memory: u64,
    /// Of which Dask's, in memory.
    pub managed: u64,
    /// Of which other memory that is not recent.
    pub unmanaged_old: u64,
    /// Of which other memory that is recent.
    pub unmanaged_recent: u64,
    /// Dask's, on disk.
    pub spilled: u64,
    /// Bytes of all its results.
    pub nbytes: u64,
    /// Percent of one core.
    pub cpu: f64,
    /// Expected seconds of the work assigned.
    pub occupancy: f64,
    pub processing: u64,
    pub executing: u64,
    pub in_memory: u64,
    /// Seconds since it was last heard of.
    pub last_seen_ago: f64,
    pub dashboard_port: Option<u16>,
    /// Bytes per second, as the worker measures.
    pub net_read: f64,
    pub net_write: f64,
    pub disk_read: f64,
    pub disk_write: f64,
    pub num_fds: u64,
}

/// One worker with its tasks.
#[derive(Clone, Debug, Default)]
pub struct WorkerDetail {
    /// As in the table.
    pub row: WorkerRow,
    /// Results it has: key, bytes.
    pub has_what: Vec<(String, u64)>,
    /// Tasks it works on: key, priority.
    pub processing: Vec<(String, String)>,
    /// Resources: name, used, total.
    pub resources: Vec<(String, f64, f64)>,
}

/// One task in detail.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct TaskDetail {
    pub key: String,
    pub state: String,
    pub processing_on: Option<String>,
    pub type_name: String,
    /// Unknown: `None`.
    pub nbytes: Option<u64>,
    pub waiting_on: Vec<String>,
    pub priority: String,
    /// Further attributes worth a row: name, value.
    pub attributes: Vec<(String, String)>,
    pub exception_text: String,
    pub traceback_text: String,
    /// Key, state.
    pub dependencies: Vec<(String, String)>,
    pub dependents: Vec<(String, String)>,
    pub who_has: Vec<WorkerRow>,
    pub who_wants: Vec<String>,
    pub story: Vec<StoryRow>,
}

/// One transition.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct StoryRow {
    pub key: String,
    pub start: String,
    pub finish: String,
    /// Key, state.
    pub recommendations: Vec<(String, String)>,
    pub stimulus_id: String,
    /// Seconds since the epoch.
    pub time: f64,
}

/// Tasks of one prefix, by state.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct PrefixProgress {
    pub name: String,
    pub memory: u64,
    pub released: u64,
    pub processing: u64,
    pub waiting: u64,
    pub queued: u64,
    pub no_worker: u64,
    pub erred: u64,
    /// Bytes in memory.
    pub nbytes: u64,
    /// Mean duration in seconds; negative if unknown.
    pub duration: f64,
}

/// Finished tasks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StreamPage {
    /// Ask for this number next.
    pub next: u64,
    /// The records.
    pub records: Vec<StreamRecord>,
}

/// A finished or failed task.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StreamRecord {
    /// Its key.
    pub key: String,
    /// Its prefix.
    pub name: String,
    /// Worker's address.
    pub worker: String,
    /// Id of the thread that ran it.
    pub thread: u64,
    /// Whether it failed.
    pub erred: bool,
    /// What it did.
    pub startstops: Vec<StartStop>,
}

/// A span of time in which a task did one thing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StartStop {
    /// `compute`, `transfer`, `disk-read`, `disk-write`, `deserialize`…
    pub action: String,
    /// Seconds since the epoch.
    pub start: f64,
    /// Seconds since the epoch.
    pub stop: f64,
}

/// The task graph.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GraphView {
    /// Tasks there are; `nodes` is empty if they are too many.
    pub total: u64,
    /// Tasks.
    pub nodes: Vec<GraphNode>,
    /// Pairs of indices into `nodes`: dependency, dependent.
    pub edges: Vec<(u32, u32)>,
}

/// One task of the graph.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GraphNode {
    /// Its key.
    pub key: String,
    /// Its prefix.
    pub name: String,
    /// Its state.
    pub state: &'static str,
}

/// One event.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EventRow {
    /// Seconds since the epoch.
    pub time: f64,
    /// Topic.
    pub topic: String,
    /// What happened, shortened.
    pub text: String,
}

/// One log record.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LogLine {
    /// `INFO`, `WARNING`…
    pub level: String,
    /// The whole line.
    pub text: String,
}

/// One failed task.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct ErredTask {
    pub key: String,
    /// Seconds since the epoch.
    pub time: f64,
    pub erred_on: Vec<String>,
    pub exception_text: String,
    pub traceback_text: String,
}

/// Whose call stacks.
#[derive(Clone, Debug)]
pub enum CallStackOf {
    /// All tasks of a worker.
    Worker(String),
    /// A task, by the text of its key.
    Task(String),
}

/// The call stack of a running task.
#[derive(Clone, Debug, Default)]
pub struct CallStack {
    /// Worker's address.
    pub worker: String,
    /// Key.
    pub key: String,
    /// Frames, outermost first.
    pub frames: Vec<String>,
}

/// Which workers to retire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetireRequest {
    /// As many, the scheduler chooses.
    Count(u64),
    /// These.
    Workers(Vec<String>),
}

/// What `/eventstream` tells.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// The cluster was restarted.
    Restart,
    /// A worker came.
    AddWorker(String),
    /// A worker went.
    RemoveWorker(String),
    /// A client came.
    AddClient(String),
    /// A client went.
    RemoveClient(String),
    /// A client sent a graph.
    UpdateGraph(String),
    /// A task made a transition that has start and stop times: it finished or failed.
    Transition {
        /// The task.
        record: StreamRecord,
        /// Further fields of the worker's message (`nbytes`, `typename`, `status`…), without binary ones.
        fields: serde_json::Map<String, serde_json::Value>,
    },
}
