//! Parts of the state as plain values, for Python code that looks at the scheduler.
//!
//! Every function here is a pure look; what it costs is proportional to what is asked.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocol::{Key, Value};
use crate::scheduler::ids::{IdSet, TaskId, WorkerId};
use crate::scheduler::out::ToClient;
use crate::scheduler::state::State;
use crate::scheduler::task::{Durations, ErrorPayload, N_STATES, Task};

/// Tasks of which one request gives more than it asked for.
const MAX_MORE: usize = 4096;

/// A part of the state. Unknown names give nil.
///
/// | name             | arguments      | value |
/// |------------------|----------------|-------|
/// | `info`           |                | figures about the whole |
/// | `keys`           |                | keys of all tasks |
/// | `tasks`          | `keys`, `more` | records of these tasks (all without `keys`), and of up to `more` they depend on |
/// | `run_spec`       | `key`          | the task as a worker gets it |
/// | `workers`        |                | records of all workers |
/// | `worker_tasks`   | `address`      | keys of a worker's tasks, by role |
/// | `groups`, `prefixes` |            | records |
/// | `clients`        |                | records |
/// | `client_keys`    | `client`       | keys a client wants |
/// | `hosts`          |                | by host: threads and workers |
/// | `queued`         |                | keys of tasks held back |
/// | `transition_log` |                | recent transitions |
/// | `erred_tasks`    |                | keys of recent failures |
/// | `shuffle_workers`|                | workers that take part in a shuffle |
pub fn snapshot(state: &State, what: &str, args: &Value) -> Value {
    match what {
        "info" => info(state),
        "keys" => Value::Array(state.all_tasks().map(|(_, t)| t.key.to_value()).collect()),
        "tasks" => tasks(state, args),
        "run_spec" => run_spec(state, args).unwrap_or_default(),
        "workers" => Value::Array(
            state
                .all_workers()
                .map(|(id, _)| worker(state, id))
                .collect(),
        ),
        "worker_tasks" => worker_tasks(state, args.get("address").and_then(Value::as_str)),
        "groups" => groups(state),
        "prefixes" => prefixes(state),
        "clients" => clients(state),
        "client_keys" => client_keys(state, args).unwrap_or_default(),
        "hosts" => hosts(state),
        "queued" => {
            let queued = state
                .all_tasks()
                .filter(|(_, t)| t.state == crate::scheduler::TaskStateName::Queued);
            Value::Array(queued.map(|(_, t)| t.key.to_value()).collect())
        }
        "transition_log" => transition_log(state),
        "erred_tasks" => Value::Array(state.erred_tasks.iter().map(|e| e.key.to_value()).collect()),
        "shuffle_workers" => {
            let mut workers: Vec<_> = state.shuffles.participants().into_iter().collect();
            workers.sort_unstable();
            texts(&workers)
        }
        _ => Value::Nil,
    }
}

fn texts(list: &[Arc<str>]) -> Value {
    Value::Array(list.iter().map(|t| Value::from(&**t)).collect())
}

fn keys(state: &State, ids: &IdSet<TaskId>) -> Value {
    let live = ids.iter().filter_map(|id| state.live_task(id));
    Value::Array(live.map(|t| t.key.to_value()).collect())
}

fn address(state: &State, id: WorkerId) -> Value {
    Value::from(&*state.worker(id).info.address)
}

fn addresses(state: &State, ids: impl IntoIterator<Item = WorkerId>) -> Value {
    Value::Array(ids.into_iter().map(|id| address(state, id)).collect())
}

fn info(state: &State) -> Value {
    let unrunnable = state.unrunnable.iter().map(|id| {
        let task = state.task(id);
        Value::Array(vec![task.key.to_value(), task.unrunnable_since.into()])
    });
    let resources = state.resources.iter().map(|(name, supply)| {
        let supply = supply
            .iter()
            .map(|(w, amount)| (address(state, *w), Value::from(*amount)));
        (Value::from(&**name), Value::Map(supply.collect()))
    });
    let aliases = state
        .all_workers()
        .map(|(_, w)| (w.info.name.clone(), Value::from(&*w.info.address)));
    let done = |states: &[u32; N_STATES]| {
        use crate::scheduler::TaskStateName::{NoWorker, Processing, Queued, Waiting};
        [Waiting, NoWorker, Queued, Processing]
            .iter()
            .all(|s| states[*s as usize] == 0)
    };
    Value::map([
        ("n_tasks_known", Value::from(state.n_known_tasks())),
        ("n_tasks", state.n_tasks.into()),
        ("total_nthreads", state.total_nthreads.into()),
        ("total_memory", state.total_memory.into()),
        ("total_occupancy", state.total_occupancy().into()),
        ("bandwidth", state.bandwidth.into()),
        ("transition_counter", state.transition_counter.into()),
        ("idle", addresses(state, state.idle.iter())),
        (
            "idle_task_count",
            addresses(state, state.idle_task_count.iter()),
        ),
        ("saturated", addresses(state, state.saturated.iter())),
        ("unrunnable", Value::Array(unrunnable.collect())),
        ("resources", Value::Map(resources.collect())),
        ("aliases", Value::Map(aliases.collect())),
        ("idle_since", state.idle_since.into()),
        (
            "is_idle",
            state.all_groups().all(|g| done(&g.states)).into(),
        ),
    ])
}

fn tasks(state: &State, args: &Value) -> Value {
    let Some(wanted) = args.get("keys").and_then(Value::as_array) else {
        return Value::Array(state.all_tasks().map(|(_, t)| task(state, t)).collect());
    };
    let more = args.get("more").and_then(Value::as_u64).unwrap_or(0);
    let mut seen = IdSet::default();
    let mut waiting: VecDeque<TaskId> = VecDeque::new();
    for key in wanted.iter().filter_map(|k| Key::from_value(k).ok()) {
        if let Some(id) = state.task_id(&key)
            && seen.insert(id)
        {
            waiting.push_back(id);
        }
    }
    let limit = seen.len() + usize::try_from(more).unwrap_or(MAX_MORE).min(MAX_MORE);
    while let Some(id) = waiting.pop_front() {
        for dependency in state.task(id).dependencies.iter() {
            if seen.len() >= limit {
                waiting.clear();
                break;
            }
            if seen.insert(dependency) {
                waiting.push_back(dependency);
            }
        }
    }
    Value::Array(seen.iter().map(|id| task(state, state.task(id))).collect())
}

fn error(payload: &ErrorPayload) -> Value {
    match payload {
        ErrorPayload::Payload(p) => p.clone().into(),
        ErrorPayload::Pickle(bytes) => Value::Bin(bytes.clone()),
        ErrorPayload::Nil => Value::Nil,
    }
}

/// A task's record, in the order of `TASK_FIELDS` in `oxidask.host.views`.
fn task(state: &State, task: &Task) -> Value {
    let priority = task
        .priority
        .map(|p| Value::Array(vec![p.user.into(), p.generation.into(), p.internal.into()]));
    let client = |id: &crate::scheduler::ClientId| Value::from(&*state.client(*id).name);
    let rare = task.rare.as_deref();
    let restrictions = task.restrictions();
    let list = |list: Option<&Vec<Arc<str>>>| match list {
        Some(list) if !list.is_empty() => texts(list),
        _ => Value::Nil,
    };
    let resources = restrictions.filter(|r| !r.resources.is_empty()).map(|r| {
        let amounts = r
            .resources
            .iter()
            .map(|(name, n)| (Value::from(&**name), Value::from(*n)));
        Value::Map(amounts.collect())
    });
    let failure = rare.and_then(|r| r.failure.as_deref());
    let text = |f: fn(&crate::scheduler::Failure) -> &String| {
        Value::from(failure.map(|e| Value::from(f(e))))
    };
    let blame = task.exception_blame().and_then(|id| state.live_task(id));
    let annotations = rare
        .and_then(|r| r.annotations.as_ref())
        .map(|list| Value::Map(list.iter().map(|(k, v)| (k.into(), v.clone())).collect()));
    let metadata = rare
        .filter(|r| !r.metadata.is_empty())
        .map(|r| Value::Map(r.metadata.clone()));
    Value::Array(vec![
        task.key.to_value(),
        task.state.as_str().into(),
        (*state.group(task.group).name).into(),
        (*state.prefix(task.prefix).name).into(),
        task.nbytes.into(),
        task.typename.as_ref().map(|t| Value::from(&**t)).into(),
        priority.into(),
        addresses(state, task.who_has.iter().copied()),
        task.processing_on.map(|w| address(state, w)).into(),
        keys(state, &task.dependencies),
        keys(state, &task.dependents),
        keys(state, &task.waiting_on),
        keys(state, &task.waiters),
        Value::Array(task.who_wants.iter().map(client).collect()),
        rare.map_or(0, |r| r.retries).into(),
        rare.map_or(0, |r| r.suspicious).into(),
        list(restrictions.map(|r| &r.workers)),
        list(restrictions.map(|r| &r.hosts)),
        resources.into(),
        task.loose_restrictions().into(),
        task.actor.into(),
        task.spec.is_some().into(),
        failure.map_or(Value::Nil, |f| error(&f.exception)),
        failure.map_or(Value::Nil, |f| error(&f.traceback)),
        text(|f| &f.exception_text),
        text(|f| &f.traceback_text),
        blame.map(|t| t.key.to_value()).into(),
        rare.map_or(Value::Array(Vec::new()), |r| texts(&r.erred_on)),
        task.has_lost_dependencies.into(),
        task.run_id.into(),
        annotations.into(),
        metadata.into(),
        task.queueable.into(),
    ])
}

fn run_spec(state: &State, args: &Value) -> Option<Value> {
    let key = Key::from_value(args.get("key")?).ok()?;
    let task = state.task(state.task_id(&key)?);
    Some(task.spec.as_ref()?.to_payload().into())
}

fn amounts(list: &[(Arc<str>, f64)]) -> Value {
    Value::Map(
        list.iter()
            .map(|(name, n)| (Value::from(&**name), Value::from(*n)))
            .collect(),
    )
}

fn worker(state: &State, id: WorkerId) -> Value {
    let w = state.worker(id);
    let info = &w.info;
    let prefixes = w
        .prefix_count
        .iter()
        .map(|(p, n)| (Value::from(&*state.prefix(*p).name), Value::from(*n)));
    Value::map([
        ("address", Value::from(&*info.address)),
        ("host", (*info.host).into()),
        ("name", info.name.clone()),
        ("server_id", (&info.server_id).into()),
        ("status", w.status.as_str().into()),
        ("pid", info.pid.into()),
        ("nthreads", info.nthreads.into()),
        ("memory_limit", info.memory_limit.into()),
        ("local_directory", (&info.local_directory).into()),
        ("services", info.services.clone()),
        ("versions", info.versions.clone()),
        ("nanny", info.nanny.as_deref().into()),
        ("extra", info.extra.clone()),
        ("nbytes", w.nbytes.into()),
        ("metrics", w.metrics.raw.clone()),
        ("last_seen", w.last_seen.into()),
        ("time_delay", w.time_delay.into()),
        ("bandwidth", state.bandwidth.into()),
        ("resources", amounts(&info.resources)),
        ("used_resources", amounts(&w.used_resources)),
        ("occupancy", state.occupancy(id).into()),
        ("network_occ", w.network_occ.into()),
        ("unmanaged_old", w.unmanaged_old.into()),
        ("prefix_count", Value::Map(prefixes.collect())),
    ])
}

fn worker_tasks(state: &State, address: Option<&str>) -> Value {
    let worker = address
        .and_then(|a| state.worker_id(a))
        .map(|id| state.worker(id));
    let pair = |id: TaskId, v: Value| {
        let key = state.live_task(id)?.key.to_value();
        Some(Value::Array(vec![key, v]))
    };
    let set = |f: fn(&crate::scheduler::worker::Worker) -> &IdSet<TaskId>| {
        worker.map_or(Value::Array(Vec::new()), |w| keys(state, f(w)))
    };
    let executing = worker
        .iter()
        .flat_map(|w| &w.executing)
        .filter_map(|(id, s)| pair(*id, (*s).into()));
    let needs = worker
        .iter()
        .flat_map(|w| &w.needs_what)
        .filter_map(|(id, n)| pair(*id, (*n).into()));
    Value::map([
        ("processing", set(|w| &w.processing)),
        ("long_running", set(|w| &w.long_running)),
        ("has_what", set(|w| &w.has_what)),
        ("actors", set(|w| &w.actors)),
        ("executing", Value::Array(executing.collect())),
        ("needs_what", Value::Array(needs.collect())),
    ])
}

fn counts<N: Copy + Into<Value>>(states: &[N; N_STATES]) -> Value {
    Value::Array(states.iter().map(|n| (*n).into()).collect())
}

fn durations(d: &Durations) -> Value {
    let pair = |(a, s): &(Arc<str>, f64)| Value::Array(vec![Value::from(&**a), (*s).into()]);
    Value::Array(d.0.iter().map(pair).collect())
}

fn groups(state: &State) -> Value {
    let record = |g: &crate::scheduler::task::Group| {
        let dependencies = g
            .dependencies
            .iter()
            .map(|id| Value::from(&*state.group(id).name));
        Value::map([
            ("name", Value::from(&*g.name)),
            ("prefix", (*state.prefix(g.prefix).name).into()),
            ("states", counts(&g.states)),
            ("nbytes_total", g.nbytes_total.into()),
            ("durations", durations(&g.durations)),
            ("start", g.start.into()),
            ("stop", g.stop.into()),
            ("dependencies", Value::Array(dependencies.collect())),
        ])
    };
    Value::Array(state.all_groups().map(record).collect())
}

fn prefixes(state: &State) -> Value {
    let record = |p: &crate::scheduler::task::Prefix| {
        let nbytes: i64 = p.groups.iter().map(|g| state.group(g).nbytes_total).sum();
        Value::map([
            ("name", Value::from(&*p.name)),
            ("states", counts(&p.states)),
            ("state_counts", counts(&p.state_totals)),
            ("nbytes_total", nbytes.into()),
            ("durations", durations(&p.durations)),
            ("duration_average", p.duration_average.into()),
            ("max_exec_time", p.max_exec_time.into()),
            ("suspicious", p.suspicious.into()),
        ])
    };
    Value::Array(state.all_prefixes().iter().map(record).collect())
}

fn clients(state: &State) -> Value {
    let record = |(_, c): (
        crate::scheduler::ClientId,
        &crate::scheduler::client::Client,
    )| {
        Value::map([
            ("name", Value::from(&*c.name)),
            ("last_seen", c.last_seen.into()),
            ("versions", c.versions.clone()),
        ])
    };
    Value::Array(state.all_clients().map(record).collect())
}

fn client_keys(state: &State, args: &Value) -> Option<Value> {
    let id = state.client_id(args.get("client")?.as_str()?)?;
    Some(keys(state, &state.client(id).wants_what))
}

fn hosts(state: &State) -> Value {
    let record = |host: &crate::scheduler::state::HostInfo| {
        let workers = host.addresses.iter().filter_map(|a| state.worker_id(a));
        let nthreads: u32 = workers.map(|id| state.worker(id).info.nthreads).sum();
        Value::map([
            (
                "addresses",
                Value::Set(host.addresses.iter().map(|a| Value::from(&**a)).collect()),
            ),
            ("nthreads", nthreads.into()),
        ])
    };
    Value::Map(
        state
            .all_hosts()
            .map(|(name, host)| (Value::from(&**name), record(host)))
            .collect(),
    )
}

fn transition_log(state: &State) -> Value {
    let entry = |t: &crate::scheduler::story::Transition| {
        let recs = t
            .recommendations
            .iter()
            .map(|(k, s)| (k.to_value(), Value::from(s.as_str())));
        Value::Array(vec![
            t.key.to_value(),
            t.start.as_str().into(),
            t.finish.as_str().into(),
            Value::Map(recs.collect()),
            t.stimulus.to_string().into(),
            t.time.into(),
        ])
    };
    Value::Array(state.transition_log.iter().map(entry).collect())
}

impl State {
    /// Sends messages on the streams of clients and workers, as Python code asked for it. Unknown ones are left out.
    pub fn send_raw(&mut self, to_clients: &Value, to_workers: &Value) {
        let messages = |v: &Value| v.as_array().map(<[Value]>::to_vec).unwrap_or_default();
        for (name, list) in to_clients.as_map().unwrap_or(&[]) {
            let Some(id) = name.as_str().and_then(|n| self.client_id(n)) else {
                continue;
            };
            for msg in messages(list) {
                self.send_client(id, ToClient::Raw(Arc::new(msg)));
            }
        }
        for (name, list) in to_workers.as_map().unwrap_or(&[]) {
            let Some(id) = name.as_str().and_then(|n| self.worker_id(n)) else {
                continue;
            };
            for msg in messages(list) {
                self.send_to_worker(id, msg);
            }
        }
    }
}
