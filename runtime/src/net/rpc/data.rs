//! Results moving between clients and workers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{
    Ctx, Reply, RpcError, arg, arg_bool, arg_keys, arg_seconds, arg_str, need_keys, str_list,
};
use crate::net::core::wall_time;
use crate::net::pool::CallError;
use crate::protocol::{Key, Value};

/// How long a busy worker is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(150);
/// Interval at which workers are looked for while none is there.
const POLL: Duration = Duration::from_millis(100);

/// Fetches results from one worker.
async fn get_data(
    ctx: &Arc<Ctx>,
    worker: &str,
    keys: &[Key],
    serializers: Option<Value>,
) -> Result<Value, CallError> {
    let mut request = vec![
        ("op", Value::from("get_data")),
        (
            "keys",
            Value::Array(keys.iter().map(Key::to_value).collect()),
        ),
        ("who", Value::Nil),
        ("reply", true.into()),
    ];
    if let Some(s) = serializers {
        request.push(("serializers", s));
    }
    let ok = Value::from("OK");
    let wanted = |reply: &Value| reply.get("status").and_then(Value::as_str) == Some("OK");
    loop {
        let reply = ctx
            .pool
            .exchange(worker, &Value::map(request.clone()), Some((&ok, wanted)))
            .await?;
        if reply.get("status").and_then(Value::as_str) != Some("busy") {
            return Ok(reply);
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}

/// Fetches results from whoever holds them; those that nobody gives are left out.
pub(crate) async fn fetch(
    ctx: &Arc<Ctx>,
    keys: &[Key],
    serializers: Option<Value>,
) -> Result<HashMap<Key, Value>, RpcError> {
    let mut found: HashMap<Key, Value> = HashMap::with_capacity(keys.len());
    let mut bad: HashSet<String> = HashSet::new();
    loop {
        let missing: Vec<Key> = keys
            .iter()
            .filter(|k| !found.contains_key(*k))
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let skip = bad.clone();
        let plan = ctx.core.call(move |core| {
            let mut plan: HashMap<Arc<str>, Vec<Key>> = HashMap::new();
            for (i, key) in missing.into_iter().enumerate() {
                let Some(id) = core.state.task_id(&key) else {
                    continue;
                };
                let holders = core.state.holders(id);
                let usable: Vec<_> = holders.iter().filter(|h| !skip.contains(&***h)).collect();
                if !usable.is_empty() {
                    plan.entry(usable[i % usable.len()].clone())
                        .or_default()
                        .push(key);
                }
            }
            plan
        });
        let plan = plan.await?;
        if plan.is_empty() {
            return Ok(found);
        }
        let mut set = JoinSet::new();
        for (worker, keys) in plan {
            let (ctx, serializers) = (ctx.clone(), serializers.clone());
            set.spawn(async move {
                let reply = get_data(&ctx, &worker, &keys, serializers).await;
                (worker, reply)
            });
        }
        while let Some(joined) = set.join_next().await {
            let Ok((worker, reply)) = joined else {
                continue;
            };
            let data = match reply {
                Ok(mut reply) => reply.take("data"),
                Err(e) => {
                    tracing::info!(worker = %worker, error = %e, "cannot fetch results");
                    None
                }
            };
            let before = found.len();
            if let Some(Value::Map(data)) = data {
                for (key, value) in data {
                    found.insert(Key::from_value(&key)?, value);
                }
            }
            if found.len() == before {
                // Nothing came: ask others for what this one was thought to hold.
                bad.insert(worker.to_string());
            }
        }
    }
}

pub(super) async fn gather(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = need_keys(req, "keys")?;
    let found = fetch(ctx, &keys, arg(req, "serializers").cloned()).await?;
    let missing: Vec<Key> = keys
        .iter()
        .filter(|k| !found.contains_key(*k))
        .cloned()
        .collect();
    let count = keys.len();
    if missing.is_empty() {
        log_all(
            ctx,
            Value::map([("action", "gather".into()), ("count", Value::from(count))]),
        );
        let data = found.into_iter().map(|(k, v)| (k.to_value(), v)).collect();
        return Ok(Value::map([
            ("status", "OK".into()),
            ("data", Value::Map(data)),
        ]));
    }
    tracing::info!(missing = missing.len(), "Couldn't gather some keys");
    let keys = Value::Array(missing.iter().map(Key::to_value).collect());
    Ok(Value::map([("status", "error".into()), ("keys", keys)]))
}

fn log_all(ctx: &Ctx, msg: Value) {
    ctx.core
        .post(move |core| core.state.log_event(&["all"], msg));
}

pub(super) async fn scatter(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let Some(Value::Map(data)) = req.get("data") else {
        return Err(RpcError::type_error("missing argument: 'data'"));
    };
    let wanted = str_list(req, "workers");
    let client = arg_str(req, "client").unwrap_or_default().to_string();
    let timeout = arg_seconds(req, "timeout", 2.0);
    let workers = running_workers(ctx, wanted.clone(), timeout).await?;
    // Round robin, going on where the last call ended.
    let start = ctx.scatter_turn.fetch_add(data.len(), Ordering::Relaxed);
    let mut parts: HashMap<String, Vec<(Value, Value)>> = HashMap::new();
    let mut holders: Vec<(Key, String)> = Vec::new();
    for (i, (key, value)) in data.iter().enumerate() {
        let worker = &workers[(start + i) % workers.len()];
        holders.push((Key::from_value(key)?, worker.clone()));
        parts
            .entry(worker.clone())
            .or_default()
            .push((key.clone(), value.clone()));
    }
    let mut set = JoinSet::new();
    for (worker, part) in parts {
        let ctx = ctx.clone();
        set.spawn(async move {
            let msg = Value::map([
                ("op", Value::from("update_data")),
                ("data", Value::Map(part)),
                ("stimulus_id", format!("scatter-{}", wall_time()).into()),
                ("reply", true.into()),
            ]);
            ctx.pool.call(&worker, &msg).await
        });
    }
    let mut nbytes: Vec<(Key, i64)> = Vec::new();
    while let Some(reply) = set.join_next().await {
        let reply = reply.map_err(|e| RpcError::runtime(e.to_string()))??;
        for (key, n) in reply.get("nbytes").and_then(Value::as_map).unwrap_or(&[]) {
            nbytes.push((Key::from_value(key)?, n.as_i64().unwrap_or(0)));
        }
    }
    let keys: Vec<Key> = holders.iter().map(|(k, _)| k.clone()).collect();
    let count = keys.len();
    let who_has: Vec<(Key, Vec<String>)> = holders.into_iter().map(|(k, w)| (k, vec![w])).collect();
    let done = ctx.core.call(move |core| {
        core.state.update_data(
            &who_has,
            &nbytes,
            Some(&client).filter(|c| !c.is_empty()).map(String::as_str),
        );
        let msg = Value::map([
            ("action", "scatter".into()),
            ("client", client.as_str().into()),
            ("count", count.into()),
        ]);
        core.state.log_event(&[&client, "all"], msg);
    });
    done.await?;
    let broadcast = req.get("broadcast");
    let copies = match broadcast {
        Some(Value::Bool(true)) => Some(workers.len()),
        Some(Value::Int(n)) if *n > 0 => Some(*n as usize),
        _ => None,
    };
    if let Some(n) = copies {
        replicate_keys(ctx, &keys, Some(n), wanted, 2, false).await?;
    }
    Ok(Value::Array(keys.iter().map(Key::to_value).collect()))
}

/// Addresses of running workers, sorted; waits for one to come.
async fn running_workers(
    ctx: &Arc<Ctx>,
    wanted: Option<Vec<String>>,
    timeout: f64,
) -> Result<Vec<String>, RpcError> {
    let deadline = Instant::now() + Duration::from_secs_f64(timeout.clamp(0.0, 1e6));
    loop {
        let wanted = wanted.clone();
        let list = ctx.core.call(move |core| {
            let state = &core.state;
            let mut list: Vec<String> = super::query::pick(state, wanted.as_deref())
                .into_iter()
                .filter(|(_, id)| id.is_some_and(|id| state.worker(id).running()))
                .map(|(a, _)| a)
                .collect();
            list.sort();
            list
        });
        let list = list.await?;
        if !list.is_empty() {
            return Ok(list);
        }
        if Instant::now() >= deadline {
            return Err(RpcError::timeout("No valid workers found"));
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn update_data(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let request = req.clone();
    let done = ctx
        .core
        .call(move |core| crate::net::messages::update_data(core, "", &request))
        .await?;
    done?;
    Ok(Value::Nil)
}

pub(super) async fn add_keys(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = need_keys(req, "keys")?;
    let worker = arg_str(req, "worker").unwrap_or_default().to_string();
    let known = ctx
        .core
        .call(move |core| match core.state.worker_id(&worker) {
            Some(id) => core.state.handle_add_keys(id, &keys),
            None => false,
        });
    Ok(if known.await? {
        "OK".into()
    } else {
        "not found".into()
    })
}

/// Tells a worker to fetch copies; the keys it could not get.
pub(super) async fn gather_on_worker(
    ctx: &Arc<Ctx>,
    worker: &str,
    who_has: &[(Key, Vec<String>)],
) -> Result<Vec<Key>, RpcError> {
    let map = who_has.iter().map(|(k, list)| {
        (
            k.to_value(),
            Value::Array(list.iter().map(|a| a.as_str().into()).collect()),
        )
    });
    let msg = Value::map([
        ("op", Value::from("gather")),
        ("who_has", Value::Map(map.collect())),
        ("reply", true.into()),
    ]);
    let reply = match ctx.pool.call(worker, &msg).await {
        Ok(reply) => reply,
        Err(e) => {
            tracing::warn!(worker, error = %e, "Communication with worker failed during replication");
            return Ok(who_has.iter().map(|(k, _)| k.clone()).collect());
        }
    };
    let mut failed: Vec<Key> = Vec::new();
    if reply.get("status").and_then(Value::as_str) == Some("partial-fail") {
        for key in reply.get("keys").and_then(Value::as_array).unwrap_or(&[]) {
            failed.push(Key::from_value(key)?);
        }
    }
    let got: Vec<Key> = who_has
        .iter()
        .map(|(k, _)| k.clone())
        .filter(|k| !failed.contains(k))
        .collect();
    let address = worker.to_string();
    let added = ctx.core.call(move |core| {
        if let Some(id) = core.state.worker_id(&address) {
            core.state.handle_add_keys(id, &got);
        }
    });
    added.await?;
    Ok(failed)
}

/// Tells a worker to drop copies.
pub(super) async fn delete_on_worker(
    ctx: &Arc<Ctx>,
    worker: &str,
    keys: &[Key],
) -> Result<(), RpcError> {
    let msg = Value::map([
        ("op", Value::from("free_keys")),
        (
            "keys",
            Value::Array(keys.iter().map(Key::to_value).collect()),
        ),
        ("stimulus_id", format!("delete-data-{}", wall_time()).into()),
        ("reply", true.into()),
    ]);
    if let Err(e) = ctx.pool.call(worker, &msg).await {
        tracing::warn!(worker, error = %e, "cannot delete copies");
        return Ok(());
    }
    let (address, keys) = (worker.to_string(), keys.to_vec());
    let done = ctx.core.call(move |core| {
        if let Some(id) = core.state.worker_id(&address) {
            for key in &keys {
                core.state.handle_release_worker_data(id, key.as_bytes());
            }
        }
    });
    Ok(done.await?)
}

pub(super) async fn replicate(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = need_keys(req, "keys")?;
    let n = arg(req, "n").and_then(Value::as_i64);
    if n == Some(0) {
        return Err(RpcError::value("Can not use replicate to delete data"));
    }
    let branching = arg(req, "branching_factor")
        .and_then(Value::as_i64)
        .unwrap_or(2)
        .max(1) as usize;
    let n = n.map(|n| n.max(1) as usize);
    replicate_keys(
        ctx,
        &keys,
        n,
        str_list(req, "workers"),
        branching,
        arg_bool(req, "delete", true),
    )
    .await
}

async fn replicate_keys(
    ctx: &Arc<Ctx>,
    keys: &[Key],
    n: Option<usize>,
    workers: Option<Vec<String>>,
    branching: usize,
    delete: bool,
) -> Reply {
    let _one_at_a_time = ctx.replication.lock().await;
    // Each round at least doubles the copies that can be made; a key that fails is dropped from the plan.
    let mut failed: HashSet<Key> = HashSet::new();
    for round in 0..64 {
        let (keys, workers) = (keys.to_vec(), workers.clone());
        let skip = failed.clone();
        let plan = ctx.core.call(move |core| {
            core.state.plan_replicate(
                &keys,
                n,
                workers.as_deref(),
                branching,
                delete && round == 0,
                &skip,
            )
        });
        let plan = plan.await?;
        if plan.no_workers {
            return Err(RpcError::value("Can not use replicate to delete data"));
        }
        if !plan.missing.is_empty() {
            if round > 0 {
                // Released by everyone while copies were made.
                failed.extend(plan.missing);
                continue;
            }
            let keys = Value::Array(plan.missing.iter().map(Key::to_value).collect());
            return Ok(Value::map([
                ("status", "partial-fail".into()),
                ("keys", keys),
            ]));
        }
        for (worker, keys) in &plan.deletions {
            delete_on_worker(ctx, worker, keys).await?;
        }
        if plan.copies.is_empty() {
            break;
        }
        let mut set = JoinSet::new();
        for (worker, who_has) in plan.copies {
            let ctx = ctx.clone();
            set.spawn(async move { gather_on_worker(&ctx, &worker, &who_has).await });
        }
        while let Some(done) = set.join_next().await {
            failed.extend(done.map_err(|e| RpcError::runtime(e.to_string()))??);
        }
    }
    Ok(Value::Nil)
}

pub(super) async fn rebalance(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = arg_keys(req, "keys")?;
    let workers = str_list(req, "workers");
    let _one_at_a_time = ctx.replication.lock().await;
    let asked = keys.clone();
    let plan = ctx
        .core
        .call(move |core| {
            core.state
                .plan_rebalance(asked.as_deref(), workers.as_deref())
        })
        .await?;
    if let Some(missing) = plan.missing {
        let keys = Value::Array(missing.iter().map(Key::to_value).collect());
        return Ok(Value::map([
            ("status", "partial-fail".into()),
            ("keys", keys),
        ]));
    }
    let mut by_recipient: HashMap<String, Vec<(Key, Vec<String>)>> = HashMap::new();
    let mut senders: HashMap<String, Vec<Key>> = HashMap::new();
    for m in &plan.moves {
        by_recipient
            .entry(m.recipient.to_string())
            .or_default()
            .push((m.key.clone(), vec![m.sender.to_string()]));
        senders
            .entry(m.sender.to_string())
            .or_default()
            .push(m.key.clone());
    }
    let mut failed: HashSet<Key> = HashSet::new();
    let mut set = JoinSet::new();
    for (worker, who_has) in by_recipient {
        let ctx = ctx.clone();
        set.spawn(async move { gather_on_worker(&ctx, &worker, &who_has).await });
    }
    while let Some(done) = set.join_next().await {
        failed.extend(done.map_err(|e| RpcError::runtime(e.to_string()))??);
    }
    for (sender, mut keys) in senders {
        keys.retain(|k| !failed.contains(k));
        if !keys.is_empty() {
            delete_on_worker(ctx, &sender, &keys).await?;
        }
    }
    log_all(
        ctx,
        Value::map([
            ("action", "rebalance".into()),
            ("moves", Value::from(plan.moves.len())),
        ]),
    );
    // As stock: without explicit keys a failure to move some is no failure.
    if failed.is_empty() || keys.is_none() {
        return Ok(Value::map([("status", "OK".into())]));
    }
    let keys = Value::Array(failed.iter().map(Key::to_value).collect());
    Ok(Value::map([
        ("status", "partial-fail".into()),
        ("keys", keys),
    ]))
}
