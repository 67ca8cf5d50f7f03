//! Restarting, retiring and closing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Ctx, Reply, RpcError, arg, arg_bool, arg_seconds, arg_str, str_list};
use crate::protocol::Value;
use crate::scheduler::WorkerId;
use crate::scheduler::retire::RetireStep;

/// Interval at which returning workers are looked for.
const POLL: Duration = Duration::from_millis(50);

pub(super) async fn restart(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let timeout = arg_seconds(req, "timeout", 30.0);
    let wait = arg_bool(req, "wait_for_workers", true);
    tracing::info!("Restarting all workers, clearing all tasks");
    ctx.core.call(|core| core.state.forget_everything()).await?;
    ctx.python.restarted();
    restart_named(ctx, None, timeout, wait, true).await?;
    Ok(Value::Nil)
}

pub(super) async fn restart_workers(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let timeout = arg_seconds(req, "timeout", 30.0);
    let wait = arg_bool(req, "wait_for_workers", true);
    let raise = arg_str(req, "on_error").unwrap_or("raise") == "raise";
    restart_named(ctx, str_list(req, "workers"), timeout, wait, raise).await
}

/// Restarts workers through their nannies; those without one are removed.
pub(crate) async fn restart_named(
    ctx: &Arc<Ctx>,
    wanted: Option<Vec<String>>,
    timeout: f64,
    wait: bool,
    raise: bool,
) -> Reply {
    let deadline = Instant::now() + Duration::from_secs_f64(timeout.clamp(0.0, 1e6));
    let picked = ctx.core.call(move |core| {
        let state = &mut core.state;
        let list = super::query::pick(state, wanted.as_deref());
        let mut nannied = Vec::new();
        let mut bare = Vec::new();
        for (address, id) in list {
            let Some(id) = id else { continue };
            match state.worker(id).info.nanny.clone() {
                Some(nanny) => nannied.push((
                    address,
                    nanny.to_string(),
                    super::text_of(&state.worker(id).info.name),
                )),
                None => {
                    bare.push(address);
                    state.remove_worker(id, true, true);
                }
            }
        }
        (nannied, bare, state.n_workers())
    });
    let (nannied, bare, expected) = picked.await?;
    let mut out: HashMap<String, &'static str> =
        bare.iter().map(|a| (a.clone(), "removed")).collect();
    let (bad, kill_error) = kill_all(ctx, &nannied, deadline).await;
    let mut timed_out: Vec<String> = bad.clone();
    if wait && !nannied.is_empty() {
        let names: Vec<(String, String)> = nannied
            .iter()
            .filter(|(a, _, _)| !bad.contains(a))
            .map(|(a, _, n)| (a.clone(), n.clone()))
            .collect();
        timed_out.extend(wait_back(ctx, names, deadline).await?);
    }
    for (address, _, _) in &nannied {
        let word = if timed_out.contains(address) {
            "timed out"
        } else {
            "OK"
        };
        out.insert(address.clone(), word);
    }
    if raise && let Some(error) = kill_error {
        return Err(error);
    }
    if raise && !timed_out.is_empty() {
        let n = timed_out.len();
        if n == expected.max(1) || wait {
            let text = format!(
                "{n}/{} nanny worker(s) did not shut down within {timeout}s: {timed_out:?}",
                nannied.len()
            );
            return Err(RpcError::timeout(text));
        }
    }
    let words = Value::map(out.iter().map(|(k, v)| (k.clone(), Value::from(*v))));
    let msg = Value::map([("action", "restart-workers".into()), ("workers", words)]);
    ctx.core
        .post(move |core| core.state.log_event(&["all"], msg));
    Ok(Value::map(
        out.into_iter().map(|(k, v)| (k, Value::from(v))),
    ))
}

/// Tells nannies to kill their workers; the workers whose nanny did not answer.
async fn kill_all(
    ctx: &Arc<Ctx>,
    nannied: &[(String, String, String)],
    deadline: Instant,
) -> (Vec<String>, Option<RpcError>) {
    let mut set = JoinSet::new();
    for (address, nanny, _) in nannied.iter().cloned() {
        let ctx = ctx.clone();
        set.spawn(async move {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .as_secs_f64();
            let msg = Value::map([
                ("op", Value::from("kill")),
                ("reason", "scheduler-restart".into()),
                ("timeout", (left * 0.8).into()),
                ("reply", true.into()),
            ]);
            let reply = tokio::time::timeout_at(deadline.into(), ctx.pool.call(&nanny, &msg)).await;
            (address, reply)
        });
    }
    let mut bad = Vec::new();
    let mut error = None;
    while let Some(done) = set.join_next().await {
        let Ok((address, reply)) = done else { continue };
        match reply {
            Ok(Ok(v))
                if v.get("status")
                    .and_then(Value::as_str)
                    .is_some_and(|s| s.contains("error")) =>
            {
                tracing::error!(worker = %address, "nanny failed to restart its worker");
                error = Some(RpcError::Message(v));
                bad.push(address);
            }
            Ok(Ok(_)) => {}
            Ok(Err(e)) => {
                tracing::error!(worker = %address, error = %e, "nanny cannot be reached");
                bad.push(address);
            }
            Err(_) => bad.push(address),
        }
    }
    (bad, error)
}

/// Waits until workers of these names have registered again under a new identity; those that have not in time.
async fn wait_back(
    ctx: &Arc<Ctx>,
    names: Vec<(String, String)>,
    deadline: Instant,
) -> Result<Vec<String>, RpcError> {
    let names = Arc::new(names);
    loop {
        let asked = names.clone();
        let missing = ctx.core.call(move |core| {
            let state = &core.state;
            let back = |name: &str| {
                state
                    .worker_by_name(name)
                    .is_some_and(|id| state.worker(id).running())
            };
            asked
                .iter()
                .filter(|(_, n)| !back(n))
                .map(|(a, _)| a.clone())
                .collect::<Vec<_>>()
        });
        let missing = missing.await?;
        if missing.is_empty() || Instant::now() >= deadline {
            return Ok(missing);
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn retire_workers(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let workers = str_list(req, "workers");
    let names = str_list(req, "names");
    if workers.is_some() && names.is_some() {
        return Err(RpcError::type_error(
            "names and workers are mutually exclusive",
        ));
    }
    let chosen = match (workers, names) {
        (None, None) => {
            let closing = workers_to_close(ctx, req).await?;
            closing
                .as_array()
                .unwrap_or(&[])
                .iter()
                .map(super::text_of)
                .collect()
        }
        (Some(list), _) | (_, Some(list)) => list,
    };
    retire(
        ctx,
        chosen,
        arg_bool(req, "close_workers", false),
        arg_bool(req, "remove", true),
    )
    .await
}

/// Moves the data of workers away, then removes them. The identities of those that could be retired.
pub(crate) async fn retire(
    ctx: &Arc<Ctx>,
    chosen: Vec<String>,
    close: bool,
    remove: bool,
) -> Reply {
    let begun = ctx.core.call(move |core| {
        let ids: Vec<WorkerId> = super::query::pick(&core.state, Some(&chosen))
            .into_iter()
            .filter_map(|(_, id)| id)
            .collect();
        core.state.begin_retire(&ids);
        ids
    });
    let ids = begun.await?;
    tracing::info!(n = ids.len(), "Retiring workers");
    let mut set = JoinSet::new();
    for id in ids {
        let ctx = ctx.clone();
        set.spawn(async move { retire_one(&ctx, id, close, remove).await });
    }
    let mut retired = Vec::new();
    while let Some(done) = set.join_next().await {
        if let Ok(Ok(Some(entry))) = done {
            retired.push(entry);
        }
    }
    Ok(Value::map(retired))
}

async fn retire_one(
    ctx: &Arc<Ctx>,
    id: WorkerId,
    close: bool,
    remove: bool,
) -> Result<Option<(String, Value)>, RpcError> {
    loop {
        let step = ctx
            .core
            .call(move |core| core.state.poll_retire(id))
            .await?;
        match step {
            RetireStep::Pending { again_s } => {
                tokio::time::sleep(Duration::from_secs_f64(again_s)).await
            }
            RetireStep::Aborted { .. } => return Ok(None),
            RetireStep::Done => break,
        }
    }
    let entry = ctx.core.call(move |core| {
        let address = core.state.worker(id).info.address.to_string();
        let identity = super::register::worker_identity(&core.state, id, true);
        core.state.finish_retire(id, close, remove);
        (address, identity)
    });
    Ok(Some(entry.await?))
}

pub(super) async fn workers_to_close(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    if arg(req, "key").is_some() || ctx.python.host.has_a_say_in_downscaling().await {
        // A pickled function of the worker, or plugins with a say: only Python can call them.
        return match super::python::dispatch(ctx, "workers_to_close", req).await {
            Some(reply) => reply,
            None => Err(RpcError::value(
                "workers_to_close: `key` needs the Python host",
            )),
        };
    }
    let int = |name: &str| {
        arg(req, name)
            .and_then(Value::as_i64)
            .map(|n| n.max(0) as usize)
    };
    let ratio = arg(req, "memory_ratio").and_then(Value::as_f64);
    let (n, minimum, target) = (int("n"), int("minimum"), int("target"));
    let attribute = arg_str(req, "attribute").unwrap_or("address").to_string();
    let list = ctx.core.call(move |core| {
        let ids = core.state.workers_to_close(ratio, n, minimum, target);
        let value = |id: &WorkerId| {
            let w = core.state.worker(*id);
            match attribute.as_str() {
                "name" => w.info.name.clone(),
                "host" => (*w.info.host).into(),
                _ => (*w.info.address).into(),
            }
        };
        Value::Array(ids.iter().map(value).collect())
    });
    Ok(list.await?)
}

pub(super) async fn adaptive_target(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let default = ctx.config.adaptive_target_duration.0;
    let target = arg_seconds(req, "target_duration", default);
    let n = ctx
        .core
        .call(move |core| core.state.adaptive_target(target))
        .await?;
    Ok(Value::from(n as i64))
}

pub(super) async fn terminate(ctx: &Arc<Ctx>) -> Reply {
    ctx.shutdown.send_replace(Some("terminate".to_string()));
    Ok(Value::Nil)
}

pub(super) async fn amm(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let method = arg_str(req, "method").unwrap_or_default().to_string();
    let reply = ctx.core.call(move |core| -> Reply {
        match method.as_str() {
            "start" => core.state.amm_start(),
            "stop" => core.state.amm_stop(),
            "run_once" => core.state.amm_run_once(),
            "running" => return Ok(core.state.amm_running().into()),
            other => {
                return Err(RpcError::value(format!(
                    "unknown method {other:?} of the active memory manager"
                )));
            }
        }
        Ok(Value::Nil)
    });
    reply.await?
}
