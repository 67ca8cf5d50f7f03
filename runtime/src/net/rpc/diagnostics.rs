//! Logs, events, profiles, stories, records of tasks: what people look at.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::broadcast::{OnError, ask_all, collect, targets};
use super::query::error_value;
use super::{Ctx, Reply, RpcError, arg, arg_bool, arg_keys, arg_seconds, arg_str, str_list};
use crate::net::core::wall_time;
use crate::protocol::{Key, Reader, Value};
use crate::scheduler::task_stream::Record;
use crate::scheduler::{State, TaskStateName};

pub(super) async fn ask_workers(
    ctx: &Arc<Ctx>,
    wanted: Option<Vec<String>>,
    msg: Value,
) -> Result<Vec<(String, Value)>, RpcError> {
    let known = ctx.core.call(|core| {
        core.state
            .all_workers()
            .map(|(_, w)| w.info.address.to_string())
            .collect::<Vec<_>>()
    });
    let known = known.await?;
    let wanted = wanted.map(|list| list.into_iter().filter(|w| known.contains(w)).collect());
    let list = targets(ctx, wanted, None, false).await?;
    let replies = ask_all(ctx, list, msg).await;
    Ok(replies
        .into_iter()
        .filter_map(|(w, r)| Some((w, r.ok()?)))
        .collect())
}

pub(super) async fn call_stack(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let keys = arg_keys(req, "keys")?;
    let plan = ctx
        .core
        .call(move |core| call_stack_plan(&core.state, keys))
        .await??;
    let mut out = Vec::new();
    for (worker, keys) in plan {
        let keys = keys.map_or(Value::Nil, |k| {
            Value::Array(k.iter().map(Key::to_value).collect())
        });
        let msg = Value::map([
            ("op", Value::from("call_stack")),
            ("keys", keys),
            ("reply", true.into()),
        ]);
        let reply = ctx.pool.call(&worker, &msg).await?;
        if reply.as_map().is_some_and(|m| !m.is_empty()) {
            out.push((Value::from(worker), reply));
        }
    }
    Ok(Value::Map(out))
}

type StackPlan = Vec<(String, Option<Vec<Key>>)>;

/// Which workers to ask for the stacks of which keys; a waiting task stands for what it waits for.
fn call_stack_plan(state: &State, keys: Option<Vec<Key>>) -> Result<StackPlan, RpcError> {
    let Some(keys) = keys else {
        return Ok(state
            .all_workers()
            .map(|(_, w)| (w.info.address.to_string(), None))
            .collect());
    };
    let mut plan: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    let mut seen = std::collections::HashSet::new();
    let mut stack = Vec::new();
    for key in keys {
        stack.push(
            state
                .task_id(&key)
                .ok_or_else(|| RpcError::key(key.to_string()))?,
        );
    }
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        let task = state.task(id);
        match task.state {
            TaskStateName::Waiting => stack.extend(task.dependencies.iter()),
            TaskStateName::Processing => {
                if let Some(w) = task.processing_on {
                    plan.entry(state.worker(w).info.address.to_string())
                        .or_default()
                        .push(task.key.clone());
                }
            }
            _ => {}
        }
    }
    Ok(plan.into_iter().map(|(w, k)| (w, Some(k))).collect())
}

pub(super) fn logs(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let start = arg(req, "start").and_then(Value::as_f64).unwrap_or(0.0);
    let n = arg(req, "n")
        .and_then(Value::as_i64)
        .map_or(usize::MAX, |n| n.max(0) as usize);
    let timestamps = arg_bool(req, "timestamps", false);
    let rows = ctx.logs.latest(start, n).into_iter().map(|r| {
        let mut row: Vec<Value> = Vec::new();
        if timestamps {
            row.push(r.time.into());
        }
        row.push(r.level.into());
        row.push(r.text.into());
        Value::Array(row)
    });
    Ok(Value::Array(rows.collect()))
}

pub(super) async fn worker_logs(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let nanny = arg_bool(req, "nanny", false);
    let n = req.get("n").cloned().unwrap_or(Value::Nil);
    let msg = Value::map([
        ("op", Value::from("get_logs")),
        ("n", n),
        ("reply", true.into()),
    ]);
    let list = targets(ctx, str_list(req, "workers"), None, nanny).await?;
    collect(ask_all(ctx, list, msg).await, OnError::Raise)
}

pub(super) async fn log_event(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let topics = str_list(req, "topic").unwrap_or_default();
    let msg = req.get("msg").cloned().unwrap_or(Value::Nil);
    let done = ctx.core.call(move |core| {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        core.state.log_event(&topics, msg);
    });
    done.await?;
    Ok(Value::Nil)
}

pub(super) async fn events(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let topic = arg_str(req, "topic").map(str::to_string);
    let reply = ctx.core.call(move |core| {
        let row = |e: &crate::scheduler::events::Event| {
            Value::Array(vec![e.time.into(), (*e.msg).clone()])
        };
        match topic {
            Some(topic) => Value::Array(core.state.events.topic(&topic).map(row).collect()),
            None => {
                let all = core.state.events.topics();
                Value::map(all.map(|(t, log)| (&**t, Value::Array(log.iter().map(row).collect()))))
            }
        }
    });
    Ok(reply.await?)
}

pub(super) async fn versions(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    match arg(req, "packages") {
        Some(_) => match super::python::dispatch(ctx, "versions", req).await {
            Some(reply) => reply,
            None => Ok(ctx.python.versions().await),
        },
        None => Ok(ctx.python.versions().await),
    }
}

// ---- task stream

/// A record as the stock plugin stores it.
fn record_value(record: &Record) -> Option<Value> {
    let mut r = Reader::new(&record.message);
    let Value::Map(mut map) = r.value().ok()? else {
        return None;
    };
    map.retain(|(k, _)| !matches!(k.as_str(), Some("op" | "run_id")));
    map.push(("worker".into(), (*record.worker).into()));
    if record.erred {
        let key = map
            .iter()
            .find(|(k, _)| k.as_str() == Some("key"))
            .map(|(_, v)| v.clone());
        map.push(("cause".into(), key.unwrap_or(Value::Nil)));
        for (k, v) in &mut map {
            // Placeholders of frames that were not kept.
            if matches!(k.as_str(), Some("exception" | "traceback")) {
                *v = Value::Nil;
            }
        }
    }
    Some(Value::Map(map))
}

/// Seconds since the epoch: a number, or a text such as "10s" ago.
fn moment(req: &Value, name: &str) -> Option<f64> {
    let v = arg(req, name)?;
    v.as_f64()
        .or_else(|| Some(wall_time() - crate::config::units::parse_timedelta(v.as_str()?).ok()?))
}

fn span(record: &Value) -> (f64, f64) {
    let list = record
        .get("startstops")
        .and_then(Value::as_array)
        .unwrap_or(&[]);
    let time = |v: &Value, name: &str| v.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let start = list
        .iter()
        .map(|s| time(s, "start"))
        .fold(f64::INFINITY, f64::min);
    let stop = list.iter().map(|s| time(s, "stop")).fold(0.0, f64::max);
    (start, stop)
}

pub(super) async fn task_stream(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let (start, stop) = (moment(req, "start"), moment(req, "stop"));
    let count = arg(req, "count")
        .and_then(Value::as_i64)
        .map(|n| n.max(0) as usize);
    let from = arg(req, "start_index").and_then(Value::as_u64).unwrap_or(0);
    let records: Vec<Record> = ctx
        .core
        .call(move |core| {
            core.state.task_stream.start();
            core.state.task_stream.since(from).cloned().collect()
        })
        .await?;
    let mut rows: Vec<Value> = records
        .iter()
        .filter_map(record_value)
        .filter(|r| {
            let (first, last) = span(r);
            start.is_none_or(|t| last >= t) && stop.is_none_or(|t| first <= t)
        })
        .collect();
    if let Some(n) = count {
        // With a start the first ones count, else the last ones.
        if start.is_some() || from > 0 {
            rows.truncate(n);
        } else if rows.len() > n {
            rows.drain(..rows.len() - n);
        }
    }
    Ok(Value::Array(rows))
}

pub(super) async fn task_stream_index(ctx: &Arc<Ctx>) -> Reply {
    let index = ctx.core.call(|core| {
        core.state.task_stream.start();
        core.state.task_stream.index
    });
    Ok(Value::from(index.await?))
}

pub(super) async fn start_task_metadata(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let name = arg_str(req, "name").unwrap_or_default().to_string();
    ctx.core
        .call(move |core| core.state.start_collecting_metadata(&name))
        .await?
        .map_err(|e| RpcError::value(e.to_string()))?;
    Ok(Value::Nil)
}

pub(super) async fn stop_task_metadata(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let name = arg_str(req, "name").unwrap_or_default().to_string();
    ctx.core
        .call(move |core| core.state.stop_collecting_metadata(&name))
        .await?
        .map_err(|e| RpcError::value(e.to_string()))
}

// ---- stories

pub(super) fn transition_value(t: &crate::scheduler::story::Transition) -> Value {
    let recs = t
        .recommendations
        .iter()
        .map(|(k, s)| (k.to_value(), Value::from(s.as_str())))
        .collect();
    Value::Array(vec![
        t.key.to_value(),
        t.start.as_str().into(),
        t.finish.as_str().into(),
        Value::Map(recs),
        t.stimulus.to_string().into(),
        t.time.into(),
    ])
}

pub(super) async fn story(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let mut names = Vec::new();
    for v in req
        .get("keys_or_stimuli")
        .and_then(Value::as_array)
        .unwrap_or(&[])
    {
        names.push(Key::from_value(v)?);
    }
    let reply = ctx.core.call(move |core| {
        Value::Array(
            core.state
                .transition_log
                .story(&names)
                .map(transition_value)
                .collect(),
        )
    });
    Ok(reply.await?)
}

pub(super) async fn benchmark_hardware(ctx: &Arc<Ctx>) -> Reply {
    let mut out: BTreeMap<&str, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    let add = |mode: &mut BTreeMap<String, Vec<f64>>, reply: &Value| {
        for (size, x) in reply.as_map().unwrap_or(&[]) {
            mode.entry(super::text_of(size))
                .or_default()
                .extend(x.as_f64());
        }
    };
    for mode in ["disk", "memory"] {
        let op = format!("benchmark_{mode}");
        let msg = Value::map([("op", Value::from(op)), ("reply", true.into())]);
        for (_, reply) in ask_workers(ctx, None, msg).await? {
            add(out.entry(mode).or_default(), &reply);
        }
    }
    let addresses = targets(ctx, None, None, false).await?;
    let network = out.entry("network").or_default();
    for pair in addresses.chunks_exact(2) {
        let msg = Value::map([
            ("op", Value::from("benchmark_network")),
            ("address", pair[1].0.as_str().into()),
            ("reply", true.into()),
        ]);
        add(network, &ctx.pool.call(&pair[0].0, &msg).await?);
    }
    let mean = |xs: Vec<f64>| Value::from(xs.iter().sum::<f64>() / xs.len().max(1) as f64);
    Ok(Value::map(out.into_iter().map(|(mode, sizes)| {
        (
            mode,
            Value::map(sizes.into_iter().map(|(s, xs)| (s, mean(xs)))),
        )
    })))
}

pub(super) async fn worker_monitor_info(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let recent = arg_bool(req, "recent", false);
    let starts = req.get("starts").cloned().unwrap_or(Value::Nil);
    let list = targets(ctx, None, None, false).await?;
    let mut out = Vec::new();
    for (worker, to) in list {
        let start = starts.get(&worker).cloned().unwrap_or(Value::from(0));
        let msg = Value::map([
            ("op", Value::from("get_monitor_info")),
            ("recent", recent.into()),
            ("start", start),
            ("reply", true.into()),
        ]);
        out.push((Value::from(worker), ctx.pool.call(&to, &msg).await?));
    }
    Ok(Value::Map(out))
}

pub(super) async fn memory_sampler_start(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let client = arg_str(req, "client").unwrap_or_default().to_string();
    let measure = arg_str(req, "measure").unwrap_or("process").to_string();
    let interval = arg_seconds(req, "interval", 0.5);
    let started = ctx
        .core
        .call(move |core| core.state.memory_sampler_start(&client, &measure, interval))
        .await?;
    started.map(Value::from).map_err(RpcError::value)
}

pub(super) async fn memory_sampler_stop(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let key = arg_str(req, "key").unwrap_or_default().to_string();
    let asked = key.clone();
    let samples = ctx
        .core
        .call(move |core| core.state.memory_sampler_stop(&asked))
        .await?;
    let samples = samples.ok_or_else(|| RpcError::key(key))?;
    Ok(Value::Array(
        samples
            .into_iter()
            .map(|(t, n)| Value::Array(vec![t.into(), n.into()]))
            .collect(),
    ))
}

/// The failure of a key, as its error payloads.
pub(crate) fn failure_values(state: &State, key: &Key) -> Option<(Value, Value)> {
    let blame = state.task(state.task_id(key)?).exception_blame()?;
    let (exception, traceback) = state.failure_of(blame);
    Some((error_value(exception), error_value(traceback)))
}
