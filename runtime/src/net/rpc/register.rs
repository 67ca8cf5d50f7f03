//! Clients, workers and nannies arriving; heartbeats; who watches the set of workers.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Ctx, Identity, Reply, RpcError, arg, arg_bool, arg_str, lock, text_of};
use crate::net::conn::{ConnError, Connection};
use crate::net::core::{Registered, wall_time};
use crate::protocol::{Key, Value, versions};
use crate::scheduler::membership::RegisterError;
use crate::scheduler::{State, Status, WorkerId, WorkerInfo, WorkerMetrics, heartbeat_interval};

/// What `identity` answers; `n` limits the workers listed, −1 lists all.
pub(crate) fn identity(state: &State, me: &Identity, n: i64) -> Value {
    let limit = if n < 0 { usize::MAX } else { n as usize };
    let workers = state
        .all_workers()
        .take(limit)
        .map(|(id, w)| (&*w.info.address, worker_identity(state, id, true)));
    Value::map([
        ("type", "Scheduler".into()),
        ("id", me.id.as_str().into()),
        ("address", me.address.as_str().into()),
        ("services", me.services()),
        ("started", me.started.into()),
        ("n_workers", state.n_workers().into()),
        ("total_threads", i64::from(state.total_nthreads()).into()),
        ("total_memory", Value::from(state.total_memory())),
        ("workers", Value::map(workers)),
    ])
}

/// What `identity` says of one worker; `full` with its metrics.
pub(crate) fn worker_identity(state: &State, id: WorkerId, full: bool) -> Value {
    let w = state.worker(id);
    let resources = w
        .info
        .resources
        .iter()
        .map(|(n, a)| (&**n, Value::from(*a)));
    let mut map: Vec<(Value, Value)> = vec![
        ("type".into(), "Worker".into()),
        ("id".into(), w.info.name.clone()),
        ("host".into(), (*w.info.host).into()),
        ("resources".into(), Value::map(resources)),
        (
            "local_directory".into(),
            w.info.local_directory.as_str().into(),
        ),
        ("name".into(), w.info.name.clone()),
        ("nthreads".into(), i64::from(w.info.nthreads).into()),
        ("memory_limit".into(), Value::from(w.info.memory_limit)),
        ("services".into(), w.info.services.clone()),
        ("status".into(), w.status.as_str().into()),
        (
            "nanny".into(),
            w.info.nanny.as_deref().map_or(Value::Nil, Value::from),
        ),
    ];
    if full {
        map.push(("last_seen".into(), w.last_seen.into()));
        map.push(("metrics".into(), w.metrics.raw.clone()));
    }
    map.extend(w.info.extra.as_map().unwrap_or(&[]).iter().cloned());
    Value::Map(map)
}

/// `{name: amount}`.
pub(super) fn resources(value: Option<&Value>) -> Vec<(Arc<str>, f64)> {
    let map = value.and_then(Value::as_map).unwrap_or(&[]);
    map.iter()
        .filter_map(|(k, v)| Some((k.as_str()?.into(), v.as_f64()?)))
        .collect()
}

pub(super) async fn client(
    mut conn: Connection,
    ctx: Arc<Ctx>,
    req: &Value,
) -> Result<(), ConnError> {
    let Some(name) = arg_str(req, "client").map(str::to_string) else {
        tracing::warn!(peer = %conn.peer, "register-client without a client id; closing the connection");
        return Ok(());
    };
    let versions = req.get("versions").cloned().unwrap_or(Value::Nil);
    let warning = version_warning(&ctx, &versions, &name).await;
    conn.write(&Value::Array(vec![Value::map([
        ("op", "stream-start".into()),
        ("warning", warning.as_str().into()),
        ("error", "".into()),
    ])]))
    .await?;
    tracing::info!(client = %name, "Receive client connection");
    let detached = conn.detach()?;
    ctx.core.post(move |core| {
        if let Some(old) = core.state.client_id(&name)
            && core.state.client(old).connected
        {
            tracing::warn!(client = %name, "a client of this name is connected already; the old connection is closed");
            core.drop_client(old);
        }
        let id = core.state.add_client(&name, versions);
        core.adopt(detached, Registered::Client(id));
    });
    Ok(())
}

/// The text of a version mismatch between the scheduler, its workers and a new peer; empty if there is none.
async fn version_warning(ctx: &Arc<Ctx>, theirs: &Value, name: &str) -> String {
    let ours = ctx.python.versions().await;
    let workers = ctx.core.call(|core| {
        core.state
            .all_workers()
            .map(|(_, w)| w.info.versions.clone())
            .collect::<Vec<_>>()
    });
    let Ok(workers) = workers.await else {
        return String::new();
    };
    versions::error_message(&ours, &workers, theirs, name)
}

/// The host part of an address, resolved to an IP address if it is a name.
async fn resolve(address: &str) -> (String, String) {
    let (scheme, rest) = address.split_once("://").unwrap_or(("tcp", address));
    let Some((host, port)) = rest.rsplit_once(':') else {
        return (address.to_string(), rest.to_string());
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return (format!("{scheme}://{host}:{port}"), bare.to_string());
    }
    let found = tokio::net::lookup_host((bare, 0)).await.ok();
    let ip = found.and_then(|list| {
        let list: Vec<IpAddr> = list.map(|a| a.ip()).collect();
        list.iter().find(|a| a.is_ipv4()).or(list.first()).copied()
    });
    match ip {
        Some(IpAddr::V6(ip)) => (format!("{scheme}://[{ip}]:{port}"), ip.to_string()),
        Some(ip) => (format!("{scheme}://{ip}:{port}"), ip.to_string()),
        None => (address.to_string(), bare.to_string()),
    }
}

/// Whether a worker's address is `scheme://host:port`.
fn is_address(address: &str) -> bool {
    let rest = address.split_once("://").map(|(_, rest)| rest);
    rest.and_then(|r| r.rsplit_once(':'))
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

pub(super) async fn worker(
    mut conn: Connection,
    ctx: Arc<Ctx>,
    req: &Value,
) -> Result<(), ConnError> {
    let Some(address) = arg_str(req, "address") else {
        let error = RpcError::type_error("register-worker: missing argument 'address'");
        return conn.write(&error.into_reply()).await;
    };
    let threads = arg(req, "nthreads").map_or(Some(1), Value::as_i64);
    if !is_address(address) || threads.is_none_or(|n| n < 0) {
        tracing::warn!(worker = %address, "worker refused: no address with a port, or no number of threads");
        let error = RpcError::value("register-worker: 'address' or 'nthreads' makes no sense");
        return conn.write(&error.into_reply()).await;
    }
    let (address, host) = resolve(address).await;
    let text = |name: &str| arg_str(req, name).unwrap_or_default().to_string();
    let info = WorkerInfo {
        address: address.as_str().into(),
        host: host.as_str().into(),
        name: arg(req, "name")
            .cloned()
            .unwrap_or_else(|| address.as_str().into()),
        server_id: text("server_id"),
        nthreads: threads.unwrap_or(1).clamp(0, 100_000) as u32,
        memory_limit: arg(req, "memory_limit")
            .and_then(Value::as_u64)
            .unwrap_or(0),
        local_directory: text("local_directory"),
        nanny: arg_str(req, "nanny").map(Into::into),
        pid: arg(req, "pid").and_then(Value::as_i64).unwrap_or(0),
        services: req.get("services").cloned().unwrap_or(Value::Nil),
        versions: req.get("versions").cloned().unwrap_or(Value::Nil),
        extra: req.get("extra").cloned().unwrap_or(Value::Nil),
        resources: resources(req.get("resources")),
    };
    let versions = info.versions.clone();
    let (server_id, name) = (info.server_id.clone(), text_of(&info.name));
    let warning = version_warning(&ctx, &versions, &server_id).await;
    let status = Status::parse(arg_str(req, "status").unwrap_or("init"));
    let (metrics, bandwidth) = metrics(req.get("metrics"));
    let now = arg(req, "now").and_then(Value::as_f64);
    let plugins = plugins_map(&ctx);
    // The reply must be the first thing on the stream, so the worker starts as `init` and takes work once adopted.
    let added = ctx.core.call(move |core| {
        let id = core.state.add_worker(info, Status::Init)?;
        core.state.heartbeat(id, metrics, bandwidth, &[], now);
        Ok::<_, RegisterError>((id, core.state.n_workers()))
    });
    let (id, n) = match added.await {
        Ok(Ok(added)) => added,
        Ok(Err(error @ RegisterError::NameTaken(_))) => {
            tracing::warn!(worker = %address, "Worker tried to connect with a duplicate name: {name}");
            let reply = [
                ("status", "error".into()),
                ("message", Value::from(error.to_string())),
                ("time", wall_time().into()),
            ];
            conn.write(&Value::map(reply)).await?;
            // The worker decides what to do; its connection stays open for it.
            return Box::pin(super::serve(conn, ctx)).await;
        }
        Ok(Err(error)) => {
            tracing::warn!(worker = %address, %error, "worker refused");
            return conn
                .write(&RpcError::value(error.to_string()).into_reply())
                .await;
        }
        Err(_) => return Ok(()),
    };
    tracing::info!("Register worker addr: {address} name: {name}");
    let reply = Value::map([
        ("status", "OK".into()),
        ("time", wall_time().into()),
        ("heartbeat-interval", heartbeat_interval(n).into()),
        ("worker-plugins", plugins),
        ("warning", warning.as_str().into()),
        ("error", "".into()),
    ]);
    if let Err(e) = conn.write(&reply).await {
        ctx.core.post(move |core| {
            core.state.remove_worker(id, false, false);
        });
        return Err(e);
    }
    let detached = conn.detach()?;
    ctx.core.post(move |core| {
        if !core.state.is_registered(id) {
            return;
        }
        core.adopt(detached, Registered::Worker(id));
        core.state.set_worker_status(id, status);
    });
    Ok(())
}

fn plugins_map(ctx: &Ctx) -> Value {
    Value::map(
        lock(&ctx.worker_plugins)
            .iter()
            .map(|(n, p)| (n.clone(), p.clone())),
    )
}

/// The figures of a heartbeat, and the bandwidth the worker measured.
fn metrics(value: Option<&Value>) -> (WorkerMetrics, Option<f64>) {
    let Some(raw) = value else {
        return (WorkerMetrics::default(), None);
    };
    let int = |v: Option<&Value>| v.and_then(Value::as_f64).unwrap_or(0.0) as i64;
    let spilled = raw.get("spilled_bytes");
    let bandwidth = raw
        .get("bandwidth")
        .and_then(|b| b.get("total"))
        .and_then(Value::as_f64);
    let metrics = WorkerMetrics {
        memory: int(raw.get("memory")),
        spilled_memory: int(spilled.and_then(|s| s.get("memory"))),
        spilled_disk: int(spilled.and_then(|s| s.get("disk"))),
        raw: raw.clone(),
    };
    (metrics, bandwidth)
}

pub(super) async fn heartbeat(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let address = arg_str(req, "address").unwrap_or_default();
    let (address, _) = resolve(address).await;
    let (metrics, bandwidth) = metrics(req.get("metrics"));
    let now = arg(req, "now").and_then(Value::as_f64);
    let mut executing = Vec::new();
    for (key, seconds) in req.get("executing").and_then(Value::as_map).unwrap_or(&[]) {
        executing.push((Key::from_value(key)?, seconds.as_f64().unwrap_or(0.0)));
    }
    let supply = resources(req.get("resources"));
    let n = ctx.core.call(move |core| {
        let Some(id) = core.state.worker_id(&address) else {
            tracing::warn!(worker = %address, "Received heartbeat from unregistered worker");
            return None;
        };
        core.state
            .heartbeat(id, metrics, bandwidth, &executing, now);
        if !supply.is_empty() {
            core.state.set_resources(id, &supply);
        }
        Some(core.state.n_workers())
    });
    Ok(match n.await? {
        None => Value::map([("status", "missing".into())]),
        Some(n) => Value::map([
            ("status", "OK".into()),
            ("time", Value::from(wall_time())),
            ("heartbeat-interval", heartbeat_interval(n).into()),
        ]),
    })
}

pub(super) async fn unregister(ctx: &Arc<Ctx>, req: &Value) -> Reply {
    let (address, _) = resolve(arg_str(req, "address").unwrap_or_default()).await;
    let expected = arg_bool(req, "expected", false);
    let close = arg_bool(req, "close", true);
    let removed = ctx
        .core
        .call(move |core| match core.state.worker_id(&address) {
            Some(id) => core.state.remove_worker(id, expected, close),
            None => false,
        });
    Ok(if removed.await? {
        "OK".into()
    } else {
        "already-removed".into()
    })
}

/// A nanny starts its worker between our answer and its word that it is done.
pub(super) async fn nanny(
    mut conn: Connection,
    ctx: Arc<Ctx>,
    req: &Value,
) -> Result<(), ConnError> {
    let address = arg_str(req, "address").unwrap_or_default().to_string();
    ctx.starting_nannies.send_modify(|n| *n += 1);
    let plugins = Value::map(
        lock(&ctx.nanny_plugins)
            .iter()
            .map(|(n, p)| (n.clone(), p.clone())),
    );
    let reply = Value::map([("status", "OK".into()), ("nanny-plugins", plugins)]);
    let done = async {
        conn.write(&reply).await?;
        conn.read().await?.decode().map_err(ConnError::from)
    }
    .await;
    ctx.starting_nannies
        .send_modify(|n| *n = n.saturating_sub(1));
    match done {
        Ok(answer) => {
            tracing::debug!(nanny = %address, ?answer, "nanny started");
            Ok(())
        }
        Err(ConnError::Closed) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Cluster objects watch workers come and go.
pub(super) async fn worker_status(mut conn: Connection, ctx: Arc<Ctx>) -> Result<(), ConnError> {
    let mut changes = ctx.worker_changes.subscribe();
    let me = ctx.identity.clone();
    let ident = ctx.core.call(move |core| {
        let state = &core.state;
        let mut ident = identity(state, &me, 0);
        ident.take("workers");
        let workers = state
            .all_workers()
            .map(|(id, w)| (&*w.info.address, worker_identity(state, id, false)));
        let workers = Value::map(workers);
        if let Value::Map(map) = &mut ident {
            map.push(("workers".into(), workers));
        }
        ident
    });
    let Ok(ident) = ident.await else {
        return Ok(());
    };
    conn.write(&ident).await?;
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = conn.closed() => return Ok(()),
        };
        let (address, joined) = match change {
            Ok(change) => change,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
            Err(_) => return Ok(()),
        };
        let message = if joined {
            let asked = address.clone();
            let ident = ctx.core.call(move |core| {
                let id = core.state.worker_id(&asked)?;
                Some(worker_identity(&core.state, id, false))
            });
            let Ok(Some(ident)) = ident.await else {
                continue;
            };
            Value::Array(vec![
                "add".into(),
                Value::map([("workers", Value::map([(address, ident)]))]),
            ])
        } else {
            Value::Array(vec!["remove".into(), address.into()])
        };
        conn.write(&Value::Array(vec![message])).await?;
    }
}
