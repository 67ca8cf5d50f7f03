//! What runs in the host process, and what that process may ask of the scheduler.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::{Ctx, Reply, RpcError, arg_bool, arg_keys, arg_str, lock};
use crate::host::{BoxFuture, EventQueue, HostBackend, HostError, Wants};
use crate::net::conn::{ConnError, Connection};
use crate::protocol::{Key, Payload, Value};
use crate::scheduler::snapshot::snapshot;
use crate::scheduler::tap::{Sink, Tap};

impl From<HostError> for RpcError {
    fn from(e: HostError) -> Self {
        Self::Message(e.into_reply())
    }
}

/// Runs an operation in the host.
pub(super) async fn call(ctx: &Arc<Ctx>, op: &str, req: &Value) -> Reply {
    if op == "run_function" {
        let function = req.get("function").cloned().unwrap_or(Value::Nil);
        let event = Value::map([("action", "run-function".into()), ("function", function)]);
        ctx.core
            .post(move |core| core.state.log_event(&["all"], event));
    }
    let mut args = req.as_map().unwrap_or(&[]).to_vec();
    args.retain(|(k, _)| !matches!(k.as_str(), Some("op" | "reply" | "close" | "serializers")));
    Ok(ctx.python.host.call(op, Value::Map(args)).await?)
}

/// Writes a feed's values to its connection until either ends.
pub(super) async fn feed(
    mut conn: Connection,
    ctx: Arc<Ctx>,
    req: &Value,
) -> Result<(), ConnError> {
    let mut feed = match ctx.python.host.feed(req).await {
        Ok(feed) => feed,
        Err(e) => return conn.write(&e.into_reply()).await,
    };
    loop {
        tokio::select! {
            value = feed.next() => match value {
                Ok(Some(value)) => conn.write(&value).await?,
                Ok(None) => return Ok(()),
                Err(e) => return conn.write(&e.into_reply()).await,
            },
            () = conn.closed() => return Ok(()),
        }
    }
}

/// The scheduler, as the host sees it.
pub struct Backend(pub Weak<Ctx>);

impl Backend {
    fn with<T: Default + 'static, F>(&self, f: impl FnOnce(Arc<Ctx>) -> F) -> BoxFuture<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        match self.0.upgrade() {
            Some(ctx) => Box::pin(f(ctx)),
            None => Box::pin(async { T::default() }),
        }
    }
}

impl HostBackend for Backend {
    fn rpc(&self, op: String, kwargs: Value) -> BoxFuture<Result<Value, Value>> {
        let Some(ctx) = self.0.upgrade() else {
            let e = RpcError::runtime("the scheduler is closing");
            return Box::pin(async { Err(e.into_reply()) });
        };
        Box::pin(async move {
            let reply = match op.as_str() {
                "oxidask_send" => send(&ctx, kwargs).await,
                "oxidask_cancel" => cancel(&ctx, &kwargs).await,
                _ => super::dispatch(&ctx, &op, &kwargs).await,
            };
            reply.map_err(RpcError::into_reply)
        })
    }

    fn snapshot(&self, what: String, args: Value) -> BoxFuture<Value> {
        self.with(|ctx| async move {
            let plugins = |list: &std::sync::Mutex<super::Plugins>| {
                Value::map(lock(list).iter().map(|(n, p)| (n.as_str(), p.clone())))
            };
            match what.as_str() {
                "worker_plugins" => return plugins(&ctx.worker_plugins),
                "nanny_plugins" => return plugins(&ctx.nanny_plugins),
                _ => {}
            }
            let asked = what.clone();
            let part = ctx
                .core
                .call(move |core| snapshot(&core.state, &asked, &args));
            let mut part = part.await.unwrap_or_default();
            if let (Value::Map(map), "info") = (&mut part, what.as_str()) {
                let me = &ctx.identity;
                map.push(("id".into(), (&me.id).into()));
                map.push(("address".into(), (&me.address).into()));
                map.push(("started".into(), me.started.into()));
                map.push(("services".into(), me.services()));
                map.push(("tls".into(), tls_settings(&ctx)));
            }
            part
        })
    }

    fn tap(&self, wants: Wants, queue: Arc<EventQueue>) -> BoxFuture<()> {
        self.with(|ctx| async move {
            let sink: Sink = Arc::new(move |event| queue.push(event));
            let mut tap = Tap::default();
            tap.transitions = wants.transitions.then(|| sink.clone());
            tap.log = wants.log.then(|| sink.clone());
            tap.graphs = wants.graphs.then_some(sink);
            // Fails only when the scheduler closes, and there is nothing to hear of then.
            let _ = ctx.core.call(move |core| core.state.tap = tap).await;
        })
    }

    fn upload(&self, filename: String, data: Bytes) -> BoxFuture<Result<(), String>> {
        let Some(ctx) = self.0.upgrade() else {
            return Box::pin(async { Ok(()) });
        };
        Box::pin(async move {
            let graphs = &ctx.python.graphs;
            let done = graphs.upload_file(&filename, &data).await;
            done.map_err(|e| e.text)
        })
    }

    fn add_sys_path(&self, path: String) -> BoxFuture<Result<(), String>> {
        let Some(ctx) = self.0.upgrade() else {
            return Box::pin(async { Ok(()) });
        };
        Box::pin(async move {
            let done = ctx.python.graphs.add_sys_path(path).await;
            done.map_err(|e| e.text)
        })
    }
}

/// Certificates, by Dask's names of the settings: they may have come by flags, which the host has not seen.
fn tls_settings(ctx: &Ctx) -> Value {
    let settings = [
        ("distributed.comm.tls.ca-file", &ctx.config.tls_ca_file),
        ("distributed.comm.tls.scheduler.cert", &ctx.config.tls_cert),
        ("distributed.comm.tls.scheduler.key", &ctx.config.tls_key),
    ];
    let given = settings
        .into_iter()
        .filter_map(|(k, v)| Some((k, Value::from(v.as_ref()?))));
    Value::map(given)
}

async fn send(ctx: &Ctx, args: Value) -> Reply {
    let sent = ctx.core.call(move |core| {
        let of = |name: &str| args.get(name).cloned().unwrap_or_default();
        core.state.send_raw(&of("clients"), &of("workers"));
    });
    sent.await?;
    Ok(Value::Nil)
}

async fn cancel(ctx: &Ctx, args: &Value) -> Reply {
    let keys: Vec<Key> = arg_keys(args, "keys")?.unwrap_or_default();
    let client = arg_str(args, "client").unwrap_or_default().to_string();
    let reason = arg_str(args, "reason").unwrap_or_default().to_string();
    let force = arg_bool(args, "force", false);
    let done = ctx.core.call(move |core| {
        core.state.cancel_keys(&client, &keys, force, &reason, None);
    });
    done.await?;
    Ok(Value::Nil)
}

/// A pickled object as every receiver unpickles it.
pub(super) fn pickled(pickle: &[u8]) -> Value {
    Payload::pickled(pickle).into()
}
