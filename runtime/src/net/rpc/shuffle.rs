//! Requests of workers about peer-to-peer shuffles.

use std::sync::Arc;
use std::time::Duration;

use super::broadcast::ask_all;
use super::host::pickled;
use super::{Ctx, Reply, RpcError, arg, arg_bool, arg_str};
use crate::protocol::pickle::write::p2p_consistency_error;
use crate::protocol::{Key, Value, error_message};
use crate::scheduler::shuffle::{Barrier, NewRun, ShuffleError};

/// Pause between two attempts to reach workers at a barrier.
const RETRY: Duration = Duration::from_millis(100);
/// Attempts that reach no further worker before the barrier fails.
const ATTEMPTS: u32 = 3;
/// Runs prepared for one request, while workers leave.
const PREPARATIONS: usize = 20;

/// Requests whose name begins with `shuffle_`; None if there is no such.
pub(super) async fn dispatch(ctx: &Arc<Ctx>, op: &str, req: &Value) -> Option<Reply> {
    Some(match op {
        "shuffle_get" => get(ctx, req).await,
        "shuffle_get_or_create" => get_or_create(ctx, req).await,
        "shuffle_barrier" => barrier(ctx, req).await,
        "shuffle_restrict_task" => restrict_task(ctx, req).await,
        _ => return None,
    })
}

fn text(req: &Value, name: &str) -> Result<String, RpcError> {
    let value = arg_str(req, name).map(str::to_string);
    value.ok_or_else(|| RpcError::type_error(format!("missing argument: '{name}'")))
}

fn run_id(req: &Value) -> Result<u64, RpcError> {
    let value = arg(req, "run_id").and_then(Value::as_u64);
    value.ok_or_else(|| RpcError::type_error("missing argument: 'run_id'"))
}

fn key(req: &Value) -> Result<Key, RpcError> {
    let key = arg(req, "key").ok_or_else(|| RpcError::type_error("missing argument: 'key'"))?;
    Ok(Key::from_value(key)?)
}

/// Inconsistencies are answered, the other errors are raised at the caller.
fn failed(e: ShuffleError) -> Reply {
    match e {
        ShuffleError::Consistency(text) => {
            let mut reply = error_message(p2p_consistency_error(&text), &text);
            if let Value::Map(fields) = &mut reply {
                fields.retain(|(k, _)| k.as_str() != Some("status"));
                fields.push(("status".into(), "error".into()));
            }
            Ok(reply)
        }
        ShuffleError::Unknown(text) => Err(RpcError::key(text)),
        ShuffleError::Value(text) => Err(RpcError::value(text)),
    }
}

fn given(spec: &[u8]) -> Reply {
    Ok(Value::map([
        ("status", "OK".into()),
        ("run_spec", pickled(spec)),
    ]))
}

async fn get(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let (id, worker) = (text(req, "id")?, text(req, "worker")?);
    let asked = id.clone();
    let found = ctx
        .core
        .call(move |core| core.state.shuffle_get(&asked, &worker));
    match found.await? {
        Ok(Some(spec)) => given(&spec),
        Ok(None) => failed(ShuffleError::Consistency(format!(
            "No active shuffle with id='{id}' found"
        ))),
        Err(e) => failed(e),
    }
}

/// The run's specification, made in Python by the first who asks; the others wait for it.
async fn get_or_create(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let (id, worker, key) = (text(req, "shuffle_id")?, text(req, "worker")?, key(req)?);
    let (asked, by) = (id.clone(), worker.clone());
    let get = move |core: &mut crate::net::core::Core| core.state.shuffle_get(&asked, &by);
    match ctx.core.call(get.clone()).await? {
        Ok(Some(spec)) => return given(&spec),
        Ok(None) => {}
        Err(e) => return failed(e),
    }
    let creating = ctx.python.shuffle_creation.lock().await;
    for _ in 0..PREPARATIONS {
        let (get, id, task) = (get.clone(), id.clone(), key.clone());
        let prepared = ctx.core.call(move |core| match get(core)? {
            Some(spec) => Ok(Err(spec)),
            None => core.state.shuffle_prepare(&id, &task).map(Ok),
        });
        let new = match prepared.await? {
            Ok(Ok(new)) => new,
            Ok(Err(spec)) => return given(&spec),
            Err(e) => return failed(e),
        };
        let made = ctx
            .python
            .host
            .call("shuffle_spec", spec_args(&new)?)
            .await?;
        let spec = made.get("run_spec").and_then(Value::as_bin).cloned();
        let spec = spec.ok_or_else(|| RpcError::runtime("the host made no specification"))?;
        let participants = super::str_list(&made, "participants").unwrap_or_default();
        let (task, worker) = (key.clone(), worker.clone());
        let activated = ctx.core.call(move |core| {
            core.state
                .shuffle_activate(&new, &task, &worker, spec, &participants)
        });
        match activated.await? {
            Ok(Some(spec)) => return given(&spec),
            Ok(None) => {}
            Err(e) => return failed(e),
        }
    }
    drop(creating);
    let text = format!("Workers keep leaving while shuffle {id} is initialized");
    failed(ShuffleError::Consistency(text))
}

fn spec_args(new: &NewRun) -> Result<Value, RpcError> {
    let parts = new.barrier.pickled_bytes()?;
    let parts = parts.ok_or_else(|| RpcError::runtime("the barrier task is not a pickle"))?;
    let mut barrier = vec![Value::Bin(parts.pickle)];
    barrier.extend(parts.buffers.into_iter().map(Value::Bin));
    let existing = new
        .existing
        .iter()
        .map(|spec| Value::Array(vec![Value::Bin(spec.clone())]));
    Ok(Value::map([
        ("barrier", Value::Array(barrier)),
        ("workers", Value::array(new.workers.iter().map(|w| &**w))),
        ("run_id", new.run_id.into()),
        ("existing", Value::Array(existing.collect())),
    ]))
}

async fn restrict_task(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let (id, worker) = (text(req, "id")?, text(req, "worker")?);
    let (run_id, key) = (run_id(req)?, key(req)?);
    let done = ctx
        .core
        .call(move |core| core.state.shuffle_restrict_task(&id, run_id, &key, &worker));
    match done.await? {
        Ok(()) => Ok(Value::map([("status", "OK".into())])),
        Err(e) => failed(e),
    }
}

/// All input was sent: every worker that takes part writes out what it holds back.
async fn barrier(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let (id, run_id) = (text(req, "id")?, run_id(req)?);
    let consistent = arg_bool(req, "consistent", true);
    let asked = id.clone();
    let step = ctx
        .core
        .call(move |core| core.state.shuffle_barrier(&asked, run_id, consistent));
    let mut workers: Vec<String> = match step.await? {
        Ok(Barrier::Tell(workers)) => workers.iter().map(|w| w.to_string()).collect(),
        Ok(Barrier::Restarted) => return Ok(Value::Nil),
        Err(e) => return failed(e),
    };
    let msg = Value::map([
        ("op", "shuffle_inputs_done".into()),
        ("shuffle_id", Value::from(id.as_str())),
        ("run_id", run_id.into()),
        ("close", false.into()),
        ("reply", true.into()),
    ]);
    let mut idle = 0;
    loop {
        let before = workers.len();
        workers = tell(ctx, workers, &msg).await?;
        if workers.is_empty() {
            return Ok(Value::Nil);
        }
        tracing::warn!(shuffle = %id, ?workers, "workers were not told of a barrier, trying again");
        still_there(ctx, &id, run_id, &workers).await?;
        tokio::time::sleep(RETRY).await;
        idle = if workers.len() == before { idle + 1 } else { 0 };
        if idle >= ATTEMPTS {
            return Err(RpcError::runtime(format!(
                "Broadcast not making progress for SchedulerShuffleState<{id}[{run_id}]>. Aborting. This is possibly \
                 due to overloaded workers. Increasing config `distributed.comm.timeouts.connect` timeout may help."
            )));
        }
    }
}

/// Tells workers; those that were not reached.
async fn tell(ctx: &Arc<Ctx>, workers: Vec<String>, msg: &Value) -> Result<Vec<String>, RpcError> {
    let targets = workers.into_iter().map(|w| (w.clone(), w)).collect();
    let mut missed = Vec::new();
    for (worker, reply) in ask_all(ctx, targets, msg.clone()).await {
        match reply {
            Ok(Value::Nil) => {}
            Ok(reply) => {
                let text = reply.get("exception_text").and_then(Value::as_str);
                return Err(RpcError::runtime(format!(
                    "Unexpected error encountered during P2P barrier: {}",
                    text.unwrap_or("an answer that is not None")
                )));
            }
            Err(_) => missed.push(worker),
        }
    }
    Ok(missed)
}

/// Fails if one of the workers has left: the shuffle starts again then.
async fn still_there(
    ctx: &Arc<Ctx>,
    id: &str,
    run_id: u64,
    workers: &[String],
) -> Result<(), RpcError> {
    let asked = workers.to_vec();
    let gone = ctx.core.call(move |core| {
        let known = |w: &String| core.state.worker_id(w).is_some();
        !asked.iter().all(known)
    });
    if gone.await? {
        let text =
            format!("Worker {workers:?} left during shuffle SchedulerShuffleState<{id}[{run_id}]>");
        return Err(RpcError::runtime(text));
    }
    Ok(())
}
