//! Questions about the state, and small changes to it.

use std::sync::Arc;

use super::{Ctx, Reply, RpcError, arg, arg_bool, arg_keys, arg_str, need_keys, str_list};
use crate::net::core::Core;
use crate::protocol::{Key, Value};
use crate::scheduler::ids::IdSet;
use crate::scheduler::task::N_STATES;
use crate::scheduler::worker::Worker;
use crate::scheduler::{ErrorPayload, State, TaskId, TaskStateName, WorkerId};

pub(super) async fn identity(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let n = arg(req, "n_workers").and_then(Value::as_i64).unwrap_or(-1);
    let me = ctx.identity.clone();
    Ok(ctx
        .core
        .call(move |core| super::register::identity(&core.state, &me, n))
        .await?)
}

/// The workers meant by an argument (addresses or names); all if absent.
pub(super) fn pick(state: &State, wanted: Option<&[String]>) -> Vec<(String, Option<WorkerId>)> {
    match wanted {
        None => state
            .all_workers()
            .map(|(id, w)| (w.info.address.to_string(), Some(id)))
            .collect(),
        Some(list) => list
            .iter()
            .map(|name| {
                let id = state.worker_id(name).or_else(|| state.worker_by_name(name));
                let address = id.map_or_else(
                    || name.clone(),
                    |id| state.worker(id).info.address.to_string(),
                );
                (address, id)
            })
            .collect(),
    }
}

async fn per_worker(
    ctx: &Arc<Ctx>,
    req: &Value,
    f: impl Fn(&State, Option<WorkerId>) -> Value + Send + 'static,
) -> Reply {
    let wanted = str_list(req, "workers");
    let reply = ctx.core.call(move |core| {
        let list = pick(&core.state, wanted.as_deref());
        Value::map(
            list.into_iter()
                .map(|(address, id)| (address, f(&core.state, id))),
        )
    });
    Ok(reply.await?)
}

pub(super) async fn ncores(ctx: &Arc<Ctx>, req: &Value, running_only: bool) -> Reply {
    let wanted = str_list(req, "workers");
    let reply = ctx.core.call(move |core| {
        let list = pick(&core.state, wanted.as_deref())
            .into_iter()
            .filter_map(|(address, id)| {
                let w = core.state.worker(id?);
                (!running_only || w.running())
                    .then(|| (address, Value::from(i64::from(w.info.nthreads))))
            });
        Value::map(list)
    });
    Ok(reply.await?)
}

/// The keys of one set of tasks of each worker.
async fn keys_per_worker(
    ctx: &Arc<Ctx>,
    req: &Value,
    tasks: fn(&Worker) -> &IdSet<TaskId>,
) -> Reply {
    per_worker(ctx, req, move |state, id| {
        let tasks = id.map_or(&[][..], |id| tasks(state.worker(id)).as_slice());
        Value::Array(
            tasks
                .iter()
                .map(|t| state.task(*t).key.to_value())
                .collect(),
        )
    })
    .await
}

pub(super) async fn has_what(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    keys_per_worker(ctx, req, |w| &w.has_what).await
}

pub(super) async fn processing(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    keys_per_worker(ctx, req, |w| &w.processing).await
}

fn addresses(list: &[Arc<str>]) -> Value {
    Value::Array(list.iter().map(|a| Value::from(&**a)).collect())
}

pub(super) async fn who_has(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = arg_keys(req, "keys")?;
    let reply = ctx.core.call(move |core| {
        let state = &core.state;
        let entry = |key: &Key| {
            let holders = state
                .task_id(key)
                .map(|id| state.holders(id))
                .unwrap_or_default();
            (key.to_value(), addresses(&holders))
        };
        match keys {
            Some(keys) => Value::Map(keys.iter().map(entry).collect()),
            None => Value::Map(state.all_tasks().map(|(_, t)| entry(&t.key)).collect()),
        }
    });
    Ok(reply.await?)
}

pub(super) async fn nbytes(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = arg_keys(req, "keys")?;
    let summary = arg_bool(req, "summary", true);
    let reply =
        ctx.core.call(move |core| -> Reply {
            let state = &core.state;
            let mut sizes: Vec<(Key, String, i64)> = Vec::new();
            match keys {
                Some(keys) => {
                    for key in keys {
                        let id = state
                            .task_id(&key)
                            .ok_or_else(|| RpcError::key(key.to_string()))?;
                        let t = state.task(id);
                        sizes.push((key, state.prefix(t.prefix).name.to_string(), t.nbytes));
                    }
                }
                None => sizes.extend(state.all_tasks().filter(|(_, t)| t.nbytes >= 0).map(
                    |(_, t)| {
                        (
                            t.key.clone(),
                            state.prefix(t.prefix).name.to_string(),
                            t.nbytes,
                        )
                    },
                )),
            }
            if !summary {
                return Ok(Value::Map(
                    sizes
                        .into_iter()
                        .map(|(k, _, n)| (k.to_value(), n.into()))
                        .collect(),
                ));
            }
            let mut by_prefix = std::collections::BTreeMap::new();
            for (_, prefix, n) in sizes {
                *by_prefix.entry(prefix).or_insert(0) += n;
            }
            Ok(Value::map(
                by_prefix.into_iter().map(|(k, n)| (k, Value::from(n))),
            ))
        });
    reply.await?
}

pub(super) async fn task_status(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = need_keys(req, "keys")?;
    let reply = ctx.core.call(move |core| {
        let state = &core.state;
        let entry = |k: &Key| {
            let name = state
                .task_id(k)
                .map(|id| Value::from(state.task(id).state.as_str()));
            (k.to_value(), name.unwrap_or(Value::Nil))
        };
        Value::Map(keys.iter().map(entry).collect())
    });
    Ok(reply.await?)
}

pub(super) async fn task_prefix_states(ctx: &Arc<Ctx>) -> Reply {
    let reply = ctx.core.call(|core| {
        let live = core.state.all_prefixes().iter().filter(|p| {
            let counted = (0..N_STATES).filter(|s| *s != TaskStateName::Forgotten as usize);
            counted.map(|s| p.states[s]).sum::<u32>() > 0
        });
        Value::map(live.map(|p| {
            let count = |s: TaskStateName| Value::from(i64::from(p.states[s as usize]));
            let states = [
                TaskStateName::Memory,
                TaskStateName::Erred,
                TaskStateName::Released,
                TaskStateName::Processing,
                TaskStateName::Waiting,
            ];
            (
                p.name.to_string(),
                Value::map(states.map(|s| (s.as_str(), count(s)))),
            )
        }))
    });
    Ok(reply.await?)
}

fn path(req: &Value) -> Vec<Value> {
    match req.get("keys") {
        Some(v) => v
            .as_array()
            .map_or_else(|| vec![v.clone()], <[Value]>::to_vec),
        None => Vec::new(),
    }
}

pub(super) async fn get_metadata(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = path(req);
    // `no_default` travels as an enum marker.
    let default = req
        .get("default")
        .cloned()
        .filter(|d| d.get("__Enum__").is_none());
    let no_default = default.is_none();
    let found = ctx.core.call(move |core| {
        let mut at = &core.metadata;
        for key in &keys {
            let Value::Map(map) = at else {
                return Err(key.clone());
            };
            match map.iter().find(|(k, _)| k == key) {
                Some((_, v)) => at = v,
                None => return Err(key.clone()),
            }
        }
        Ok(at.clone())
    });
    match found.await? {
        Ok(v) => Ok(v),
        Err(_) if !no_default => Ok(default.unwrap_or(Value::Nil)),
        Err(key) => Err(RpcError::key(super::text_of(&key))),
    }
}

pub(super) async fn set_metadata(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = path(req);
    let value = req.get("value").cloned().unwrap_or(Value::Nil);
    let done = ctx.core.call(move |core: &mut Core| {
        let mut at = &mut core.metadata;
        for key in keys {
            if !matches!(at, Value::Map(_)) {
                *at = Value::Map(Vec::new());
            }
            let Value::Map(map) = at else { return };
            let place = match map.iter().position(|(k, _)| *k == key) {
                Some(i) => i,
                None => {
                    map.push((key, Value::Map(Vec::new())));
                    map.len() - 1
                }
            };
            at = &mut map[place].1;
        }
        *at = value;
    });
    done.await?;
    Ok(Value::Nil)
}

pub(super) async fn set_restrictions(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let mut changes = Vec::new();
    for (key, entries) in req.get("worker").and_then(Value::as_map).unwrap_or(&[]) {
        let list = match entries {
            Value::Nil => Vec::new(),
            v => v
                .as_array()
                .map_or_else(|| vec![v.clone()], <[Value]>::to_vec),
        };
        changes.push((Key::from_value(key)?, list));
    }
    let done = ctx
        .core
        .call(move |core| core.state.set_restrictions(&changes))
        .await?;
    done.map(|()| Value::Nil)
        .map_err(|k| RpcError::key(k.to_string()))
}

pub(super) async fn set_resources(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let worker = arg_str(req, "worker").unwrap_or_default().to_string();
    let resources = super::register::resources(req.get("resources"));
    let known = ctx
        .core
        .call(move |core| match core.state.worker_id(&worker) {
            Some(id) => {
                core.state.set_resources(id, &resources);
                Ok(())
            }
            None => Err(worker),
        });
    known.await?.map(|()| "OK".into()).map_err(RpcError::key)
}

pub(super) async fn retry(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = need_keys(req, "keys")?;
    let client = arg_str(req, "client").map(str::to_string);
    let done = ctx
        .core
        .call(move |core| core.state.retry(&keys, client.as_deref()))
        .await?;
    match done {
        Ok(keys) => Ok(Value::Array(keys.iter().map(Key::to_value).collect())),
        Err(key) => Err(RpcError::key(key.to_string())),
    }
}

pub(super) async fn error_cause(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = need_keys(req, "keys")?;
    let cause = ctx.core.call(move |core| {
        let state = &core.state;
        keys.iter().find_map(|k| {
            let blame = state.task(state.task_id(k)?).exception_blame()?;
            Some(state.live_task(blame)?.key.to_value())
        })
    });
    Ok(cause.await?.unwrap_or(Value::Nil))
}

pub(super) async fn runspec(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let Some(value) = req.get("key") else {
        return Err(RpcError::type_error("missing argument: 'key'"));
    };
    let key = Key::from_value(value)?;
    let text = key.to_string();
    let spec = ctx.core.call(move |core| {
        let task = core.state.task(core.state.task_id(&key)?);
        task.spec.as_ref().map(|s| s.to_payload())
    });
    spec.await?
        .map(Value::from)
        .ok_or_else(|| RpcError::key(text))
}

pub(super) async fn check_idle(ctx: &Arc<Ctx>) -> Reply {
    Ok(ctx
        .core
        .call(|core| core.state.check_idle().map_or(Value::Nil, Value::from))
        .await?)
}

/// An exception or traceback as a value.
pub(crate) fn error_value(e: ErrorPayload) -> Value {
    match e {
        ErrorPayload::Payload(p) => p.into(),
        ErrorPayload::Pickle(b) => Value::Bin(b),
        ErrorPayload::Nil => Value::Nil,
    }
}
