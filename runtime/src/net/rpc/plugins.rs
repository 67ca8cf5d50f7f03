//! Plugins for workers and nannies. They are pickles to us; workers and nannies unpickle them.

use std::sync::{Arc, Mutex};

use super::broadcast::{OnError, ask_all, collect, targets};
use super::{Ctx, Plugins, Reply, RpcError, arg_bool, arg_str, lock};
use crate::protocol::Value;

fn name_of(req: &Value) -> String {
    arg_str(req, "name").unwrap_or_default().to_string()
}

async fn tell_all(ctx: &Arc<Ctx>, nanny: bool, msg: Value) -> Reply {
    let list = targets(ctx, None, None, nanny).await?;
    collect(ask_all(ctx, list, msg).await, OnError::Raise)
}

async fn register(ctx: &Arc<Ctx>, registry: &Mutex<Plugins>, nanny: bool, req: &Value) -> Reply {
    let name = name_of(req);
    let plugin = req.get("plugin").cloned().unwrap_or(Value::Nil);
    {
        let mut plugins = lock(registry);
        match plugins.iter().position(|(n, _)| *n == name) {
            Some(_) if arg_bool(req, "idempotent", false) => return Ok(Value::Map(Vec::new())),
            Some(at) => plugins[at].1 = plugin.clone(),
            None => plugins.push((name.clone(), plugin.clone())),
        }
    }
    let op = if nanny { "plugin_add" } else { "plugin-add" };
    let msg = Value::map([
        ("op", op.into()),
        ("plugin", plugin),
        ("name", name.into()),
        ("reply", true.into()),
    ]);
    tell_all(ctx, nanny, msg).await
}

async fn unregister(ctx: &Arc<Ctx>, registry: &Mutex<Plugins>, nanny: bool, req: &Value) -> Reply {
    let name = name_of(req);
    let known = {
        let mut plugins = lock(registry);
        let before = plugins.len();
        plugins.retain(|(n, _)| *n != name);
        plugins.len() < before
    };
    if !known {
        let kind = if nanny { "nanny" } else { "worker" };
        return Err(RpcError::value(format!(
            "The {kind} plugin {name} does not exist"
        )));
    }
    let op = if nanny {
        "plugin_remove"
    } else {
        "plugin-remove"
    };
    let msg = Value::map([
        ("op", op.into()),
        ("name", name.into()),
        ("reply", Value::from(true)),
    ]);
    tell_all(ctx, nanny, msg).await
}

pub(super) async fn register_worker(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    register(ctx, &ctx.worker_plugins, false, req).await
}

pub(super) async fn unregister_worker(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    unregister(ctx, &ctx.worker_plugins, false, req).await
}

/// Nannies that are starting have got the list already, or get it whole: wait for them, so that none is missed.
async fn nannies_started(ctx: &Ctx) {
    let mut starting = ctx.starting_nannies.subscribe();
    // The sender lives as long as the context.
    let _ = starting.wait_for(|n| *n == 0).await;
}

pub(super) async fn register_nanny(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    nannies_started(ctx).await;
    register(ctx, &ctx.nanny_plugins, true, req).await
}

pub(super) async fn unregister_nanny(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    nannies_started(ctx).await;
    unregister(ctx, &ctx.nanny_plugins, true, req).await
}
