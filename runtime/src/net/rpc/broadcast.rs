//! Requests passed on to workers and nannies.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::query::pick;
use super::{Ctx, Reply, RpcError, arg, arg_bool, arg_str, str_list};
use crate::net::pool::CallError;
use crate::protocol::Value;
use crate::protocol::pickle::write;

/// Peers asked at the same time.
const PARALLEL: usize = 256;

/// What to do with a peer that fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnError {
    Raise,
    Return,
    ReturnPickle,
    Ignore,
}

/// Addresses of workers (and of their nannies, if `nanny`), picked by address, name or host.
pub(super) async fn targets(
    ctx: &Arc<Ctx>,
    wanted: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
    nanny: bool,
) -> Result<Vec<(String, String)>, RpcError> {
    let list = ctx.core.call(move |core| {
        let state = &core.state;
        let mut picked = match (&wanted, &hosts) {
            (None, Some(_)) => Vec::new(),
            _ => pick(state, wanted.as_deref()),
        };
        if let Some(hosts) = hosts {
            for (host, info) in state.all_hosts() {
                if hosts.iter().any(|h| **h == **host) {
                    picked.extend(
                        info.addresses
                            .iter()
                            .map(|a| (a.to_string(), state.worker_id(a))),
                    );
                }
            }
        }
        let to = |(address, id): (String, Option<crate::scheduler::WorkerId>)| {
            if !nanny {
                return Some((address.clone(), address));
            }
            let nanny = state.worker(id?).info.nanny.as_deref()?.to_string();
            Some((address, nanny))
        };
        picked.into_iter().filter_map(to).collect::<Vec<_>>()
    });
    Ok(list.await?)
}

/// Sends one request to many peers; replies by worker address, in the order of the addresses.
pub(super) async fn ask_all(
    ctx: &Arc<Ctx>,
    targets: Vec<(String, String)>,
    msg: Value,
) -> Vec<(String, Result<Value, CallError>)> {
    let msg = Arc::new(msg);
    let mut results: Vec<Option<(String, Result<Value, CallError>)>> = Vec::new();
    results.resize_with(targets.len(), || None);
    let mut set = JoinSet::new();
    let mut waiting = targets.into_iter().enumerate();
    loop {
        while set.len() < PARALLEL
            && let Some((i, (worker, to))) = waiting.next()
        {
            let (ctx, msg) = (ctx.clone(), msg.clone());
            set.spawn(async move { (i, worker, ctx.pool.call(&to, &msg).await) });
        }
        match set.join_next().await {
            Some(Ok((i, worker, reply))) => results[i] = Some((worker, reply)),
            Some(Err(e)) => tracing::error!(error = %e, "a broadcast failed"),
            None => break,
        }
    }
    results.into_iter().flatten().collect()
}

/// The request as workers expect it.
fn prepare(msg: &Value) -> Value {
    let mut map = msg.as_map().unwrap_or(&[]).to_vec();
    map.retain(|(k, _)| !matches!(k.as_str(), Some("close" | "reply")));
    map.push(("close".into(), false.into()));
    map.push(("reply".into(), true.into()));
    Value::Map(map)
}

pub(super) async fn broadcast(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let Some(msg) = arg(req, "msg") else {
        return Err(RpcError::type_error("missing argument: 'msg'"));
    };
    let on_error = match arg_str(req, "on_error").unwrap_or("raise") {
        "raise" => OnError::Raise,
        "return" => OnError::Return,
        "return_pickle" => OnError::ReturnPickle,
        "ignore" => OnError::Ignore,
        other => {
            let text = format!(
                "on_error must be 'raise', 'return', 'return_pickle', or 'ignore'; got {other:?}"
            );
            return Err(RpcError::value(text));
        }
    };
    let nanny = arg_bool(req, "nanny", false);
    // `workers=True` means all, as does None.
    let wanted =
        str_list(req, "workers").filter(|_| arg(req, "workers").and_then(Value::as_bool).is_none());
    let list = targets(ctx, wanted, str_list(req, "hosts"), nanny).await?;
    collect(ask_all(ctx, list, prepare(msg)).await, on_error)
}

/// Replies as a map, with failed peers dealt with.
pub(super) fn collect(
    replies: Vec<(String, Result<Value, CallError>)>,
    on_error: OnError,
) -> Reply {
    let mut map = Vec::with_capacity(replies.len());
    for (worker, reply) in replies {
        let value = match (reply, on_error) {
            (Ok(value), _) => value,
            (Err(e), OnError::Raise) => return Err(e.into()),
            (Err(_), OnError::Ignore) => continue,
            (Err(e), OnError::Return) => RpcError::from(e).into_reply(),
            (Err(e), OnError::ReturnPickle) => {
                let pickle = write::generic("builtins", "OSError", &[e.to_string().into()]);
                Value::Bin(pickle.into())
            }
        };
        map.push((Value::from(worker), value));
    }
    Ok(Value::Map(map))
}

pub(super) async fn proxy(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let worker = arg_str(req, "worker").unwrap_or_default().to_string();
    let Some(msg) = arg(req, "msg") else {
        return Err(RpcError::type_error("missing argument: 'msg'"));
    };
    Ok(ctx.pool.call(&worker, &prepare(msg)).await?)
}
