//! [`StateView`] over the core thread.

use super::collect::{self, to_json};
use super::relay::Relay;
use super::view::*;
use crate::config::logging::{LogRecord, LogRing};
use crate::net::core::{Core, CoreHandle};
use crate::protocol::{Key, Value};
use crate::scheduler::state::FIRE_AND_FORGET;
use crate::scheduler::task::TaskStateName;
use crate::scheduler::{State, TaskId};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Tasks whose call stacks one page asks for.
const MAX_STACKS: usize = 1_000;

/// Turns of the core loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticks {
    /// Longest turn: since the last reset if that is asked for, else of the last few seconds.
    pub maximum_seconds: f64,
    /// Turns so far.
    pub count: u64,
}

/// What [`CoreView`] needs besides the state: figures kept elsewhere, and requests to workers.
///
/// Methods with `&Core` or `&mut Core` run on the core thread.
pub trait Backend: Send + Sync + 'static {
    /// `identity()` with all workers.
    fn identity(&self, core: &Core) -> Value;
    /// The scheduler's id.
    fn id(&self) -> String;
    /// The scheduler's contact address.
    fn address(&self) -> String;
    /// Start of the scheduler, seconds since the epoch.
    fn started(&self) -> f64;
    /// Workers wanted.
    fn adaptive_target(&self, core: &Core) -> u64;
    /// Since when the scheduler is idle.
    fn check_idle(&self, core: &mut Core) -> Option<f64>;
    /// Figures of work stealing.
    fn stealing(&self, core: &Core) -> Vec<StealingMetrics>;
    /// Turns of the core loop; `reset` asks for the maximum since the last reset.
    fn ticks(&self, core: &mut Core, reset: bool) -> Ticks;
    /// Figures of semaphores.
    fn semaphores(&self) -> Vec<SemaphoreMetrics>;
    /// Retires workers; answers what the RPC of that name answers.
    fn retire_workers(&self, which: RetireRequest) -> Answer<'_, Result<Value, ViewError>>;
    /// A worker's answer to `get_logs`: a list of (level, line), newest first.
    fn worker_logs(&self, address: String) -> Answer<'_, Result<Value, ViewError>>;
    /// A worker's answer to `call_stack` for these keys: `{key: [frame, …]}`.
    fn call_stack(&self, address: String, keys: Vec<Key>) -> Answer<'_, Result<Value, ViewError>>;
}

/// The view of a running scheduler.
pub struct CoreView {
    core: CoreHandle,
    backend: Arc<dyn Backend>,
    log: LogRing,
    relay: Relay,
}

impl CoreView {
    /// A view of `core`.
    #[must_use]
    pub fn new(core: CoreHandle, backend: Arc<dyn Backend>, log: LogRing) -> Self {
        Self {
            relay: Relay::new(core.clone()),
            core,
            backend,
            log,
        }
    }

    /// Asks the core; a core that has ended answers with nothing.
    async fn ask<R: Default + Send + 'static>(
        &self,
        f: impl FnOnce(&mut Core, &dyn Backend) -> R + Send + 'static,
    ) -> R {
        let backend = self.backend.clone();
        self.core
            .call(move |core| f(core, &*backend))
            .await
            .unwrap_or_default()
    }
}

impl StateView for CoreView {
    fn counts(&self) -> Answer<'_, Counts> {
        Box::pin(
            self.ask(|core, backend| collect::counts(&core.state, backend.adaptive_target(core))),
        )
    }

    fn identity(&self) -> Answer<'_, Json> {
        Box::pin(async { to_json(&self.ask(|core, backend| backend.identity(core)).await) })
    }

    fn metrics(&self) -> Answer<'_, Metrics> {
        Box::pin(async {
            let semaphores = self.backend.semaphores();
            let metrics = self.ask(|core, backend| {
                let ticks = backend.ticks(core, true);
                Metrics {
                    desired_workers: backend.adaptive_target(core),
                    stealing: backend.stealing(core),
                    tick_duration_maximum_seconds: ticks.maximum_seconds,
                    tick_count: ticks.count,
                    ..collect::metrics(&core.state)
                }
            });
            Metrics {
                semaphores,
                ..metrics.await
            }
        })
    }

    fn overview(&self) -> Answer<'_, Overview> {
        Box::pin(self.ask(|core, backend| {
            let tick_seconds = backend.ticks(core, false).maximum_seconds;
            Overview {
                cluster: cluster(core, backend, tick_seconds),
                workers: collect::worker_rows(&core.state),
                progress: collect::progress(&core.state),
            }
        }))
    }

    fn worker(&self, address: String, limit: usize) -> Answer<'_, Option<WorkerDetail>> {
        Box::pin(self.ask(move |core, _| {
            Some(collect::worker_detail(
                &core.state,
                core.state.worker_id(&address)?,
                limit,
            ))
        }))
    }

    fn task(&self, key: String, limit: usize) -> Answer<'_, Option<TaskDetail>> {
        Box::pin(self.ask(move |core, _| {
            Some(collect::task_detail(
                &core.state,
                collect::find_task(&core.state, &key)?,
                limit,
            ))
        }))
    }

    fn task_stream(&self, since: u64, limit: usize) -> Answer<'_, StreamPage> {
        Box::pin(async move {
            let ask = self.ask(move |core, _| {
                // Recording begins with the first who looks.
                core.state.task_stream.start();
                collect::records(&core.state, since, limit)
            });
            let (next, records) = ask.await;
            StreamPage {
                next,
                records: records.iter().filter_map(collect::record).collect(),
            }
        })
    }

    fn graph(&self, limit: usize) -> Answer<'_, GraphView> {
        Box::pin(self.ask(move |core, _| collect::graph(&core.state, limit)))
    }

    fn events(&self, limit: usize) -> Answer<'_, Vec<EventRow>> {
        Box::pin(async move {
            let events = self
                .ask(move |core, _| collect::events(&core.state, limit))
                .await;
            collect::event_rows(events, limit)
        })
    }

    fn erred_tasks(&self, limit: usize) -> Answer<'_, Vec<ErredTask>> {
        Box::pin(self.ask(move |core, _| collect::erred_tasks(&core.state, limit)))
    }

    fn logs(&self, limit: usize) -> Answer<'_, Vec<LogLine>> {
        let line = |record: LogRecord| LogLine {
            level: record.level.to_owned(),
            text: record.text,
        };
        let lines: Vec<LogLine> = self.log.latest(0.0, limit).into_iter().map(line).collect();
        Box::pin(std::future::ready(lines))
    }

    fn worker_logs(&self, address: String) -> Answer<'_, Result<Option<Vec<LogLine>>, ViewError>> {
        Box::pin(async move {
            let name = address.clone();
            if self
                .ask(move |core, _| core.state.worker_id(&name))
                .await
                .is_none()
            {
                return Ok(None);
            }
            Ok(Some(log_lines(&self.backend.worker_logs(address).await?)))
        })
    }

    fn call_stacks(
        &self,
        of: CallStackOf,
    ) -> Answer<'_, Result<Option<Vec<CallStack>>, ViewError>> {
        Box::pin(async move {
            let Some(by_worker) = self
                .ask(move |core, _| running_tasks(&core.state, &of))
                .await
            else {
                return Ok(None);
            };
            let mut stacks = Vec::new();
            for (worker, keys) in by_worker {
                let answer = self.backend.call_stack(worker.clone(), keys).await?;
                stacks.extend(worker_stacks(&worker, &answer));
            }
            Ok(Some(stacks))
        })
    }

    fn retire_workers(&self, which: RetireRequest) -> Answer<'_, Result<Json, ViewError>> {
        Box::pin(async {
            self.backend
                .retire_workers(which)
                .await
                .map(|answer| to_json(&answer))
        })
    }

    fn adaptive_target(&self) -> Answer<'_, Result<u64, ViewError>> {
        Box::pin(async {
            Ok(self
                .ask(|core, backend| backend.adaptive_target(core))
                .await)
        })
    }

    fn check_idle(&self) -> Answer<'_, Result<Option<f64>, ViewError>> {
        Box::pin(async { Ok(self.ask(|core, backend| backend.check_idle(core)).await) })
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<StreamEvent>> {
        self.relay.subscribe()
    }
}

fn cluster(core: &Core, backend: &dyn Backend, tick_seconds: f64) -> ClusterSummary {
    let state = &core.state;
    ClusterSummary {
        address: backend.address(),
        id: backend.id(),
        started: backend.started(),
        clients: state
            .all_clients()
            .filter(|(_, client)| client.connected && &*client.name != FIRE_AND_FORGET)
            .count() as u64,
        idle: state.idle_workers().len() as u64,
        saturated: state.saturated_workers().len() as u64,
        desired_workers: backend.adaptive_target(core),
        occupancy: state.total_occupancy(),
        task_groups: state.all_groups().count() as u64,
        transitions: state.transition_counter,
        tick_seconds,
    }
}

/// Keys running for a worker or towards a task, by worker: a task that waits stands for what it waits on, as in stock.
fn running_tasks(state: &State, of: &CallStackOf) -> Option<BTreeMap<String, Vec<Key>>> {
    let mut pending: Vec<TaskId> = match of {
        CallStackOf::Worker(address) => state
            .worker(state.worker_id(address)?)
            .processing
            .as_slice()
            .to_vec(),
        CallStackOf::Task(text) => vec![collect::find_task(state, text)?],
    };
    let mut seen = std::collections::HashSet::new();
    let mut running: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    while let Some(id) = pending.pop() {
        if seen.len() >= MAX_STACKS || !seen.insert(id) {
            continue;
        }
        let task = state.task(id);
        match (task.state, task.processing_on) {
            (TaskStateName::Waiting, _) => pending.extend(task.dependencies.as_slice()),
            (TaskStateName::Processing, Some(worker)) => {
                running
                    .entry(state.worker(worker).info.address.to_string())
                    .or_default()
                    .push(task.key.clone());
            }
            _ => {}
        }
    }
    Some(running)
}

/// `[(level, line), …]`, as `get_logs` answers.
fn log_lines(answer: &Value) -> Vec<LogLine> {
    let line = |row: &Value| {
        let row = row.as_array()?;
        Some(LogLine {
            level: row.first()?.as_str()?.to_owned(),
            text: row.get(1)?.as_str()?.to_owned(),
        })
    };
    answer
        .as_array()
        .unwrap_or_default()
        .iter()
        .filter_map(line)
        .collect()
}

/// `{key: [frame, …]}`, as `call_stack` answers.
fn worker_stacks(worker: &str, answer: &Value) -> Vec<CallStack> {
    let stack = |(key, frames): &(Value, Value)| CallStack {
        worker: worker.to_owned(),
        key: Key::from_value(key)
            .map(|key| key.to_string())
            .unwrap_or_default(),
        frames: frames
            .as_array()
            .unwrap_or_default()
            .iter()
            .filter_map(|frame| frame.as_str().map(str::to_owned))
            .collect(),
    };
    answer
        .as_map()
        .unwrap_or_default()
        .iter()
        .map(stack)
        .collect()
}
