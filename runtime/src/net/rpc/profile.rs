//! Profiles of the workers, merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostics::ask_workers;
use super::{Ctx, Reply, arg_bool, arg_seconds, str_list};
use crate::protocol::Value;

/// An empty profile tree.
fn empty_profile() -> Value {
    let description = [
        ("filename", "".into()),
        ("name", "".into()),
        ("line_number", Value::from(0)),
        ("line", "".into()),
    ];
    Value::map([
        ("count", 0.into()),
        ("children", Value::Map(Vec::new())),
        ("identifier", "root".into()),
        ("description", Value::map(description)),
    ])
}

/// Adds the counts of the same frames up, as `distributed.profile.merge`.
fn merge_profiles(trees: Vec<Value>, depth: usize) -> Value {
    let Some(first) = trees.first() else {
        return empty_profile();
    };
    let count: i64 = trees.iter().filter_map(|t| t.get("count")?.as_i64()).sum();
    let (description, identifier) = (
        first.get("description").cloned(),
        first.get("identifier").cloned(),
    );
    let mut children: Vec<(Value, Vec<Value>)> = Vec::new();
    let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    if depth < 200 {
        for tree in trees {
            let Value::Map(mut fields) = tree else {
                continue;
            };
            let Some(at) = fields
                .iter()
                .position(|(k, _)| k.as_str() == Some("children"))
            else {
                continue;
            };
            let Value::Map(list) = std::mem::replace(&mut fields[at].1, Value::Nil) else {
                continue;
            };
            for (name, child) in list {
                let text = super::text_of(&name);
                let place = *places.entry(text).or_insert_with(|| {
                    children.push((name, Vec::new()));
                    children.len() - 1
                });
                children[place].1.push(child);
            }
        }
    }
    let children = children
        .into_iter()
        .map(|(name, list)| (name, merge_profiles(list, depth + 1)))
        .collect();
    Value::map([
        ("description", description.unwrap_or(Value::Nil)),
        ("children", Value::Map(children)),
        ("count", count.into()),
        ("identifier", identifier.unwrap_or(Value::Nil)),
    ])
}

pub(super) async fn profile(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    if arg_bool(req, "scheduler", false) {
        // The scheduler runs no Python: there is nothing to sample.
        return Ok(empty_profile());
    }
    let copy = |name: &str| req.get(name).cloned().unwrap_or(Value::Nil);
    let msg = Value::map([
        ("op", Value::from("profile")),
        ("start", copy("start")),
        ("stop", copy("stop")),
        ("key", copy("key")),
        ("server", arg_bool(req, "server", false).into()),
        ("reply", true.into()),
    ]);
    let replies = ask_workers(ctx, str_list(req, "workers"), msg).await?;
    if !arg_bool(req, "merge_workers", true) {
        return Ok(Value::map(replies));
    }
    Ok(merge_profiles(
        replies.into_iter().map(|(_, v)| v).collect(),
        0,
    ))
}

pub(super) async fn metadata(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let copy = |name: &str, default: Value| req.get(name).cloned().unwrap_or(default);
    let dt = arg_seconds(req, "profile_cycle_interval", 1.0).max(1e-3);
    let msg = Value::map([
        ("op", Value::from("profile_metadata")),
        ("start", copy("start", 0.into())),
        ("stop", copy("stop", Value::Nil)),
        ("reply", true.into()),
    ]);
    let replies = ask_workers(ctx, str_list(req, "workers"), msg).await?;
    // Times are counted in whole intervals, so that they can be compared.
    let slot = |t: f64| (t / dt).floor() as i64;
    let mut counts: BTreeMap<i64, f64> = BTreeMap::new();
    let mut keys: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
    for (_, reply) in &replies {
        for pair in reply.get("counts").and_then(Value::as_array).unwrap_or(&[]) {
            if let Some([t, n]) = pair.as_array() {
                *counts.entry(slot(t.as_f64().unwrap_or(0.0))).or_default() +=
                    n.as_f64().unwrap_or(0.0);
            }
        }
        for pair in reply.get("keys").and_then(Value::as_array).unwrap_or(&[]) {
            let Some([t, map]) = pair.as_array() else {
                continue;
            };
            for (key, n) in map.as_map().unwrap_or(&[]) {
                let at = slot(t.as_f64().unwrap_or(0.0));
                *keys
                    .entry(super::text_of(key))
                    .or_default()
                    .entry(at)
                    .or_default() += n.as_f64().unwrap_or(0.0);
            }
        }
    }
    let rows = |m: BTreeMap<i64, f64>| {
        Value::Array(
            m.into_iter()
                .map(|(t, n)| Value::Array(vec![(t as f64 * dt).into(), n.into()]))
                .collect(),
        )
    };
    Ok(Value::map([
        ("counts", rows(counts)),
        (
            "keys",
            Value::map(keys.into_iter().map(|(k, m)| (k, rows(m)))),
        ),
    ]))
}
