//! What needs Python: graphs, functions that run on the scheduler, its plugins.

use std::sync::{Arc, OnceLock};

use super::{Ctx, Reply, RpcError, arg, arg_seconds};
use crate::graph::{Graph, GraphError, GraphPool, GraphRequest, OrderFn, P2P_BARRIER, Structure};
use crate::host::{Host, HostEvent};
use crate::net::core::{Core, wall_time};
use crate::protocol::{Key, Value};
use crate::scheduler::{Actors, ClientId, ErrorPayload, Failure, Submission, order};

/// The Python side of the scheduler.
pub struct Python {
    /// Helpers that make tasks of expressions.
    pub graphs: GraphPool,
    /// The process for everything else.
    pub host: Host,
    /// One specification of a shuffle is made at a time.
    pub shuffle_creation: tokio::sync::Mutex<()>,
}

impl Python {
    /// Versions of the packages in the helpers' environment, as `distributed.versions.get_versions` gives them.
    pub async fn versions(&self) -> Value {
        match self.graphs.versions().await {
            Ok(v) => v,
            Err(e) => {
                tracing::warn!(error = %e, "no Python with dask for the scheduler; graphs will fail");
                Value::map([
                    ("host", Value::Map(Vec::new())),
                    ("packages", Value::Map(Vec::new())),
                ])
            }
        }
    }

    /// All tasks were cleared.
    pub fn restarted(&self) {
        let msg = Value::map([("action", "restart".into())]);
        let topic = "all".to_string();
        self.host.event(HostEvent::Log { topic, msg });
    }
}

/// Operations that only Python can answer; None if the operation is unknown.
pub(super) async fn dispatch(ctx: &Arc<Ctx>, op: &str, req: &Value) -> Option<Reply> {
    match op {
        "run_function"
        | "register_scheduler_plugin"
        | "unregister_scheduler_plugin"
        | "performance_report"
        | "dump_cluster_state_to_url"
        | "workers_to_close" => Some(super::host::call(ctx, op, req).await),
        _ => None,
    }
}

/// Makes the tasks of a client's graph and hands them to the core thread.
pub(crate) async fn update_graph(ctx: Arc<Ctx>, client: ClientId, message: Value) {
    let start = wall_time();
    let outcome = match submission(client, &message, start) {
        Ok(sub) => {
            let made = materialize(&ctx, &message, sub.internal_priority.is_none()).await;
            Ok((sub, made))
        }
        Err(e) => Err(e),
    };
    ctx.core.post(move |core| {
        core.state.active_graph_updates -= 1;
        if core.state.live_client(client) {
            match outcome {
                Ok((sub, Ok((graph, order)))) => {
                    core.state.update_graph(&sub, graph, &order);
                }
                Ok((sub, Err(e))) => fail(core, &sub, &e),
                Err(e) => {
                    tracing::error!(error = %e.text(), "a graph message that cannot be understood")
                }
            }
            core.graph_done(client);
        }
    });
}

fn fail(core: &mut Core, sub: &Submission, e: &GraphError) {
    tracing::error!("{}", e.text);
    let failure = Failure {
        exception: ErrorPayload::Pickle(e.exception.clone()),
        traceback: e
            .traceback
            .clone()
            .map_or(ErrorPayload::Nil, ErrorPayload::Pickle),
        exception_text: e.exception_text.clone(),
        traceback_text: e.traceback_text.clone(),
    };
    core.state.fail_keys(sub.client, &sub.keys, &failure);
}

async fn materialize(
    ctx: &Ctx,
    message: &Value,
    need_order: bool,
) -> Result<(Graph, Vec<u32>), GraphError> {
    let Some(expr) = message.get("expr_ser").and_then(Value::as_payload).cloned() else {
        return Err(GraphError::runtime(
            "update-graph without `expr_ser`; is the client's version of Dask supported?",
        ));
    };
    let request = GraphRequest {
        expr,
        annotations: message
            .get("annotations")
            .and_then(Value::as_payload)
            .cloned(),
        span_metadata: message
            .get("span_metadata")
            .and_then(Value::as_payload)
            .cloned(),
    };
    let cycle: Arc<OnceLock<String>> = Arc::default();
    let found = cycle.clone();
    let order_fn: Option<OrderFn> = need_order.then(|| {
        let order: OrderFn = Box::new(move |s| {
            static_order(s).unwrap_or_else(|text| {
                let _ = found.set(text);
                Vec::new()
            })
        });
        order
    });
    let mut graph = ctx
        .python
        .graphs
        .materialize_ordered(request, order_fn)
        .await?;
    if let Some(text) = cycle.get() {
        return Err(GraphError::runtime(text.clone()));
    }
    // A shuffle's workers ask for its specification as soon as its first tasks run.
    if graph.flags.iter().any(|f| f & P2P_BARRIER != 0) {
        ctx.python.host.warm_up();
    }
    let order = graph.ordered.take().unwrap_or_default();
    Ok((graph, order))
}

/// The static order of a graph's tasks; a text for the client if there is none.
fn static_order(s: &Structure) -> Result<Vec<u32>, String> {
    let n = s.keys.len();
    let name = |i: u32| {
        s.keys
            .get(i as usize)
            .map(Key::to_string)
            .unwrap_or_default()
    };
    if n <= 1 && !s.deps.contains(&0) {
        return Ok(vec![0; n]);
    }
    let ordered = order::order(
        n,
        &s.dep_offsets,
        &s.deps,
        &s.flags,
        s.externals.len(),
        &name,
    );
    ordered.map_err(|e| {
        let mut path: Vec<String> = e.tasks.iter().take(20).map(|t| name(*t)).collect();
        path.extend(e.tasks.first().map(|t| name(*t)));
        format!("Cycle detected in Dask: {}", path.join("->"))
    })
}

fn submission(client: ClientId, message: &Value, start: f64) -> Result<Submission, RpcError> {
    let keys = super::need_keys(message, "keys")?;
    let internal_priority = match arg(message, "internal_priority").and_then(Value::as_map) {
        None => None,
        Some([]) => None,
        Some(map) => {
            let mut list = Vec::with_capacity(map.len());
            for (key, p) in map {
                list.push((Key::from_value(key)?, p.as_f64().unwrap_or(0.0) as i64));
            }
            Some(list)
        }
    };
    let actors = match arg(message, "actors") {
        Some(Value::Bool(true)) => Actors::All,
        Some(v) => match v.as_array() {
            Some(list) => Actors::Keys(list.iter().map(Key::from_value).collect::<Result<_, _>>()?),
            None => Actors::None,
        },
        None => Actors::None,
    };
    let submitting_task = arg(message, "submitting_task")
        .map(Key::from_value)
        .transpose()?;
    Ok(Submission {
        client,
        keys,
        internal_priority,
        submitting_task,
        user_priority: arg(message, "user_priority")
            .and_then(Value::as_f64)
            .unwrap_or(0.0),
        fifo_timeout: arg_seconds(message, "fifo_timeout", 0.0),
        actors,
        start,
    })
}
