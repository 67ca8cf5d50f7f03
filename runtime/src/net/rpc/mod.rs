//! Remote procedure calls of clients, workers and nannies.

mod broadcast;
mod data;
mod diagnostics;
mod dump;
mod error;
mod host;
mod lifecycle;
mod plugins;
mod profile;
mod python;
mod query;
mod register;
mod shuffle;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast as channel, watch};

use super::conn::{ConnError, Connection};
use super::core::CoreHandle;
use super::pool::Pool;
use crate::config::SchedulerConfig;
use crate::config::logging::LogRing;
use crate::ext::Ext;
use crate::protocol::{Key, Limits, Value};

pub(crate) use diagnostics::failure_values;
pub use error::RpcError;
pub(crate) use host::Backend;
pub(crate) use lifecycle::restart_named;
pub(crate) use python::{Python, update_graph};
pub(crate) use register::identity;

/// The result of a handler.
pub type Reply = Result<Value, RpcError>;

/// What the scheduler says of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// "Scheduler-<uuid>".
    pub id: String,
    /// Contact address.
    pub address: String,
    /// Start, s since the epoch.
    pub started: f64,
    /// HTTP port, if served.
    pub dashboard: Option<u16>,
}

impl Identity {
    /// The services map of `identity`.
    pub fn services(&self) -> Value {
        let ports = self
            .dashboard
            .map(|port| ("dashboard", Value::from(i64::from(port))));
        Value::map(ports)
    }
}

/// A named plugin: the pickle as it came.
pub(crate) type Plugins = Vec<(String, Value)>;

/// What the handlers share.
pub struct Ctx {
    /// The core thread.
    pub core: CoreHandle,
    /// Connections to workers and nannies.
    pub pool: Pool,
    /// Settings.
    pub config: Arc<SchedulerConfig>,
    /// Limits of messages.
    pub limits: Limits,
    /// Recent log records.
    pub logs: LogRing,
    /// Who we are.
    pub identity: Identity,
    /// Queues, variables, locks and the like.
    pub ext: Ext,
    /// Everything in Python: graphs and the host.
    pub python: Python,
    /// Plugins for workers.
    pub worker_plugins: Mutex<Plugins>,
    /// Plugins for nannies.
    pub nanny_plugins: Mutex<Plugins>,
    /// Nannies that are starting their worker.
    pub starting_nannies: watch::Sender<usize>,
    /// Workers that joined (true) or left.
    pub worker_changes: channel::Sender<(String, bool)>,
    /// Asks the process to end.
    pub shutdown: watch::Sender<Option<String>>,
    /// Next worker for scattered data.
    pub scatter_turn: std::sync::atomic::AtomicUsize,
    /// One of replicate, rebalance at a time.
    pub replication: tokio::sync::Mutex<()>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection until it ends or becomes a stream.
///
/// # Errors
/// If the socket fails or the bytes make no sense.
pub async fn serve(mut conn: Connection, ctx: Arc<Ctx>) -> Result<(), ConnError> {
    loop {
        let message = match conn.read().await {
            Ok(m) => m,
            Err(ConnError::Closed) => return Ok(()),
            Err(e) => return Err(e),
        };
        let request = match message.decode() {
            Ok(v) => v,
            Err(e) => {
                tracing::warn!(peer = %conn.peer, error = %e, "request that cannot be understood");
                return conn.write(&RpcError::from(e).into_reply()).await;
            }
        };
        let Some(op) = request
            .get("op")
            .and_then(Value::as_str)
            .map(str::to_string)
        else {
            tracing::warn!(peer = %conn.peer, "message without an op; closing the connection");
            return Ok(());
        };
        match op.as_str() {
            "register-worker" => return register::worker(conn, ctx, &request).await,
            "register-client" => return register::client(conn, ctx, &request).await,
            "register_nanny" => return register::nanny(conn, ctx, &request).await,
            "subscribe_worker_status" => return register::worker_status(conn, ctx).await,
            "feed" => return host::feed(conn, ctx, &request).await,
            _ => {}
        }
        let wants_reply = request
            .get("reply")
            .and_then(Value::as_bool)
            .unwrap_or(true);
        let close = request
            .get("close")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let reply = if op == "close" {
            Ok("OK".into())
        } else {
            answer(&mut conn, &ctx, &op, &request).await?
        };
        if matches!(reply, Err(RpcError::Closing)) {
            return Ok(());
        }
        if wants_reply {
            let reply = reply.unwrap_or_else(|e| {
                tracing::debug!(op, error = %e.text(), "request failed");
                e.into_reply()
            });
            conn.write(&reply).await?;
        }
        if close || op == "close" {
            conn.shutdown().await;
            return Ok(());
        }
    }
}

/// Calls the handler; one that waits for others is given up when the caller goes away.
async fn answer(
    conn: &mut Connection,
    ctx: &Arc<Ctx>,
    op: &str,
    request: &Value,
) -> Result<Reply, ConnError> {
    if ctx.config.blocked_handlers.iter().any(|b| b == op) {
        let text = format!(
            "The '{op}' handler has been explicitly disallowed in Scheduler, possibly due to security concerns."
        );
        return Ok(Err(RpcError::value(text)));
    }
    if waits(op) {
        return tokio::select! {
            reply = dispatch(ctx, op, request) => Ok(reply),
            () = conn.closed() => Err(ConnError::Closed),
        };
    }
    Ok(dispatch(ctx, op, request).await)
}

/// Whether a handler may wait for what other clients do.
fn waits(op: &str) -> bool {
    matches!(
        op,
        "queue_get"
            | "queue_put"
            | "variable_get"
            | "variable_set"
            | "event_wait"
            | "semaphore_acquire"
            | "multi_lock_acquire"
    )
}

/// Calls the handler of an operation. Unknown ones are answered with nil, as stock does.
pub async fn dispatch(ctx: &Arc<Ctx>, op: &str, req: &Value) -> Reply {
    match op {
        "identity" => query::identity(ctx, req).await,
        "echo" => Ok(req.get("data").cloned().unwrap_or(Value::Nil)),
        "ncores" => query::ncores(ctx, req, false).await,
        "ncores_running" => query::ncores(ctx, req, true).await,
        "has_what" => query::has_what(ctx, req).await,
        "who_has" => query::who_has(ctx, req).await,
        "processing" => query::processing(ctx, req).await,
        "nbytes" => query::nbytes(ctx, req).await,
        "get_task_status" => query::task_status(ctx, req).await,
        "get_task_prefix_states" => query::task_prefix_states(ctx).await,
        "get_metadata" => query::get_metadata(ctx, req).await,
        "set_metadata" => query::set_metadata(ctx, req).await,
        "set_restrictions" => query::set_restrictions(ctx, req).await,
        "set_resources" => query::set_resources(ctx, req).await,
        "retry" => query::retry(ctx, req).await,
        "get_error_cause" => query::error_cause(ctx, req).await,
        "get_runspec" => query::runspec(ctx, req).await,
        "check_idle" => query::check_idle(ctx).await,

        "scatter" => data::scatter(ctx, req).await,
        "gather" => data::gather(ctx, req).await,
        "update_data" => data::update_data(ctx, req).await,
        "add_keys" => data::add_keys(ctx, req).await,
        "replicate" => data::replicate(ctx, req).await,
        "rebalance" => data::rebalance(ctx, req).await,

        "broadcast" => broadcast::broadcast(ctx, req).await,
        "proxy" => broadcast::proxy(ctx, req).await,

        "heartbeat_worker" => register::heartbeat(ctx, req).await,
        "unregister" => register::unregister(ctx, req).await,

        "restart" => lifecycle::restart(ctx, req).await,
        "restart_workers" => lifecycle::restart_workers(ctx, req).await,
        "retire_workers" => lifecycle::retire_workers(ctx, req).await,
        "workers_to_close" => lifecycle::workers_to_close(ctx, req).await,
        "adaptive_target" => lifecycle::adaptive_target(ctx, req).await,
        "terminate" => lifecycle::terminate(ctx).await,
        "amm_handler" => lifecycle::amm(ctx, req).await,

        "register_worker_plugin" => plugins::register_worker(ctx, req).await,
        "unregister_worker_plugin" => plugins::unregister_worker(ctx, req).await,
        "register_nanny_plugin" => plugins::register_nanny(ctx, req).await,
        "unregister_nanny_plugin" => plugins::unregister_nanny(ctx, req).await,

        "call_stack" => diagnostics::call_stack(ctx, req).await,
        "profile" => profile::profile(ctx, req).await,
        "profile_metadata" => profile::metadata(ctx, req).await,
        "get_logs" | "logs" => diagnostics::logs(ctx, req),
        "worker_logs" => diagnostics::worker_logs(ctx, req).await,
        "log_event" => diagnostics::log_event(ctx, req).await,
        "events" => diagnostics::events(ctx, req).await,
        "versions" => diagnostics::versions(ctx, req).await,
        "get_task_stream" => diagnostics::task_stream(ctx, req).await,
        "get_task_stream_index" => diagnostics::task_stream_index(ctx).await,
        "start_task_metadata" => diagnostics::start_task_metadata(ctx, req).await,
        "stop_task_metadata" => diagnostics::stop_task_metadata(ctx, req).await,
        "get_cluster_state" => dump::cluster_state(ctx, req).await,
        "dump_state" => dump::dump_state(ctx, req).await,
        "get_story" => diagnostics::story(ctx, req).await,
        "benchmark_hardware" => diagnostics::benchmark_hardware(ctx).await,
        "get_worker_monitor_info" => diagnostics::worker_monitor_info(ctx, req).await,
        "memory_sampler_start" => diagnostics::memory_sampler_start(ctx, req).await,
        "memory_sampler_stop" => diagnostics::memory_sampler_stop(ctx, req).await,

        _ => match other(ctx, op, req).await {
            Some(reply) => reply,
            None => {
                tracing::warn!(op, "No handler found; answering with None");
                Ok(Value::Nil)
            }
        },
    }
}

/// Operations of the extensions and of Python.
async fn other(ctx: &Arc<Ctx>, op: &str, req: &Value) -> Option<Reply> {
    let client = req.get("client").and_then(Value::as_str);
    if let Some(reply) = crate::ext::handle(&ctx.ext, &ctx.core, op, req, client).await {
        return Some(reply.map_err(|e| RpcError::Exception {
            pickle: e.exception,
            text: e.text,
        }));
    }
    if op.starts_with("shuffle_") {
        return shuffle::dispatch(ctx, op, req).await;
    }
    python::dispatch(ctx, op, req).await
}

// ---- arguments

pub(crate) fn arg<'a>(req: &'a Value, name: &str) -> Option<&'a Value> {
    req.get(name).filter(|v| !v.is_nil())
}

pub(crate) fn arg_str<'a>(req: &'a Value, name: &str) -> Option<&'a str> {
    arg(req, name).and_then(Value::as_str)
}

pub(crate) fn arg_bool(req: &Value, name: &str, default: bool) -> bool {
    arg(req, name).and_then(Value::as_bool).unwrap_or(default)
}

/// A list of keys; a single key counts as a list of one.
pub(crate) fn arg_keys(req: &Value, name: &str) -> Result<Option<Vec<Key>>, RpcError> {
    match arg(req, name) {
        None => Ok(None),
        Some(v) => match v.as_array() {
            Some(list) => Ok(Some(
                list.iter().map(Key::from_value).collect::<Result<_, _>>()?,
            )),
            None => Ok(Some(vec![Key::from_value(v)?])),
        },
    }
}

pub(crate) fn need_keys(req: &Value, name: &'static str) -> Result<Vec<Key>, RpcError> {
    arg_keys(req, name)?.ok_or_else(|| RpcError::type_error(format!("missing argument: {name:?}")))
}

/// Seconds: a number or a text such as "30 s".
pub(crate) fn arg_seconds(req: &Value, name: &str, default: f64) -> f64 {
    match arg(req, name) {
        Some(v) => v
            .as_f64()
            .or_else(|| crate::config::units::parse_timedelta(v.as_str()?).ok())
            .unwrap_or(default),
        None => default,
    }
}

pub(crate) fn str_list(req: &Value, name: &str) -> Option<Vec<String>> {
    let v = arg(req, name)?;
    match v.as_array() {
        Some(list) => Some(list.iter().map(text_of).collect()),
        None => Some(vec![text_of(v)]),
    }
}

/// A worker's address or name as text: names may be numbers.
pub(crate) fn text_of(v: &Value) -> String {
    match v {
        Value::Int(n) => n.to_string(),
        other => other.as_str().unwrap_or_default().to_string(),
    }
}
