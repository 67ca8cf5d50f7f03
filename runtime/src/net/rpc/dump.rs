//! Everything the scheduler knows, for `Client.dump_cluster_state`.

use std::sync::Arc;

use super::broadcast::{ask_all, targets};
use super::diagnostics::transition_value;
use super::{Ctx, Reply};
use crate::protocol::{Value, repr};
use crate::scheduler::State;

pub(super) async fn cluster_state(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let exclude = req
        .get("exclude")
        .cloned()
        .unwrap_or(Value::Array(Vec::new()));
    let scheduler = dump_state(ctx, req).await?;
    let list = targets(ctx, None, None, false).await?;
    let dump = Value::map([
        ("op", Value::from("dump_state")),
        ("exclude", exclude),
        ("reply", true.into()),
    ]);
    let ask = Value::map([("op", Value::from("versions")), ("reply", true.into())]);
    let by_worker = |replies: Vec<(String, Result<Value, crate::net::pool::CallError>)>| {
        Value::map(
            replies
                .into_iter()
                .map(|(w, r)| (w, r.unwrap_or_else(|e| e.to_string().into()))),
        )
    };
    let workers = by_worker(ask_all(ctx, list.clone(), dump).await);
    let worker_versions = by_worker(ask_all(ctx, list, ask).await);
    let versions = Value::map([
        ("scheduler", ctx.python.versions().await),
        ("workers", worker_versions),
    ]);
    Ok(Value::map([
        ("scheduler", scheduler),
        ("workers", workers),
        ("versions", versions),
    ]))
}

pub(super) async fn dump_state(ctx: &Arc<Ctx>, _req: &Value) -> Reply {
    let me = ctx.identity.clone();
    let dumped = ctx.core.call(move |core| dump(&core.state, &me)).await?;
    Ok(with_text_keys(dumped))
}

fn dump(state: &State, me: &super::Identity) -> Value {
    let tasks = state.all_tasks().map(|(id, t)| {
        let keys = |list: &[crate::scheduler::TaskId]| {
            Value::Array(
                list.iter()
                    .map(|d| state.task(*d).key.to_string().into())
                    .collect(),
            )
        };
        let holders = state.holders(id);
        let entry = Value::map([
            ("key", Value::from(t.key.to_string())),
            ("state", t.state.as_str().into()),
            ("group", (*state.group(t.group).name).into()),
            ("prefix", (*state.prefix(t.prefix).name).into()),
            ("dependencies", keys(t.dependencies.as_slice())),
            ("dependents", keys(t.dependents.as_slice())),
            ("waiting_on", keys(t.waiting_on.as_slice())),
            ("waiters", keys(t.waiters.as_slice())),
            (
                "who_has",
                Value::Array(holders.iter().map(|a| Value::from(&**a)).collect()),
            ),
            (
                "processing_on",
                t.processing_on
                    .map_or(Value::Nil, |w| (*state.worker(w).info.address).into()),
            ),
            ("nbytes", t.nbytes.into()),
            ("run_id", Value::from(t.run_id)),
            (
                "priority",
                t.priority.map_or(Value::Nil, |p| {
                    Value::Array(vec![p.user.into(), p.generation.into(), p.internal.into()])
                }),
            ),
            ("actor", t.actor.into()),
            (
                "retries",
                i64::from(t.rare.as_ref().map_or(0, |r| r.retries)).into(),
            ),
            (
                "suspicious",
                i64::from(t.rare.as_ref().map_or(0, |r| r.suspicious)).into(),
            ),
            (
                "type",
                t.typename.as_deref().map_or(Value::Nil, Value::from),
            ),
        ]);
        (t.key.to_string(), entry)
    });
    // A dump in msgpack can be read back only if all keys of its maps are text.
    let log = state.transition_log.iter().map(|t| {
        let mut value = transition_value(t);
        if let Value::Array(fields) = &mut value
            && let Some(recs) = fields.get_mut(3)
        {
            let recommended = t.recommendations.iter();
            *recs = Value::map(recommended.map(|(k, s)| (k.to_string(), Value::from(s.as_str()))));
        }
        value
    });
    let mut map = super::register::identity(state, me, -1);
    let clients = state.all_clients().map(|(_, c)| {
        let wants = c
            .wants_what
            .iter()
            .map(|t| Value::from(state.task(t).key.to_string()));
        (
            &*c.name,
            Value::map([("wants_what", Value::Array(wants.collect()))]),
        )
    });
    let clients = Value::map(clients.collect::<Vec<_>>());
    let extra = [
        ("clients", clients),
        ("tasks", Value::map(tasks.collect::<Vec<_>>())),
        ("transition_log", Value::Array(log.collect())),
        ("transition_counter", Value::from(state.transition_counter)),
        ("total_occupancy", state.total_occupancy().into()),
        ("bandwidth", state.bandwidth.into()),
    ];
    if let Value::Map(map) = &mut map {
        map.extend(extra.into_iter().map(|(k, v)| (k.into(), v)));
    }
    map
}

/// Replaces keys that are lists by their text: files of the dump's formats cannot have them. As in stock, where tuples
/// have become lists by then.
fn with_text_keys(value: Value) -> Value {
    match value {
        Value::Map(map) => Value::Map(
            map.into_iter()
                .map(|(k, v)| (text_key(k), with_text_keys(v)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(with_text_keys).collect()),
        other => other,
    }
}

fn text_key(key: Value) -> Value {
    match &key {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(repr::repr).collect();
            Value::from(format!("[{}]", items.join(", ")))
        }
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_text() {
        let key = Value::Array(vec!["execute".into(), 1.into()]);
        let dumped = Value::Array(vec![Value::Map(vec![
            (key, 2.5.into()),
            ("plain".into(), Value::Nil),
        ])]);
        let expected = Value::Array(vec![Value::map([
            ("['execute', 1]", 2.5.into()),
            ("plain", Value::Nil),
        ])]);
        assert_eq!(with_text_keys(dumped), expected);
    }
}
