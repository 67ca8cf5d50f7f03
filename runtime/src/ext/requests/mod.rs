//! Operations that come as requests.

mod locks;
mod publish;
mod queues;
mod variables;

use std::time::Duration;

use super::args::{Args, detached};
use super::core_access::CoreAccess;
use super::record::Record;
use super::waiting::Deadline;
use super::{Ext, ExtError, RpcError};
use crate::protocol::Value;

/// How often to look whether a key has come into being (the graph that makes it may still be on its way).
const KEY_POLL: Duration = Duration::from_millis(10);

/// Handles a request: `None` if the operation is none of the extensions'. `client` is who asks, where that is known.
///
/// Dropping the future withdraws the request.
///
/// # Errors
/// What stock Dask raises: unknown names, timeouts, contradictions.
pub async fn handle(
    ext: &Ext,
    core: &impl CoreAccess,
    op: &str,
    req: &Value,
    client: Option<&str>,
) -> Option<Result<Value, RpcError>> {
    let args = Args(req);
    let request = Request {
        ext,
        core,
        args,
        client: args.get("client").and_then(Value::as_str).or(client),
    };
    let result = match op {
        "queue_create" => request.queue_create().await,
        "queue_put" => request.queue_put().await,
        "queue_get" => request.queue_get().await,
        "queue_qsize" => request.queue_qsize(),
        "variable_set" => request.variable_set().await,
        "variable_get" => request.variable_get().await,
        "event_wait" => request.event_wait().await,
        "event_set" => request.event_set(),
        "event_clear" => request.event_clear(),
        "event_is_set" => request.event_is_set(),
        "multi_lock_acquire" => request.multi_lock_acquire().await,
        "multi_lock_release" => request.multi_lock_release(),
        "semaphore_register" => request.semaphore_register(),
        "semaphore_acquire" => request.semaphore_acquire().await,
        "semaphore_release" => request.semaphore_release(),
        "semaphore_refresh_leases" => request.semaphore_refresh_leases(),
        "semaphore_value" => request.semaphore_value(),
        "semaphore_close" => request.semaphore_close(),
        "publish_put" => request.publish_put().await,
        "publish_delete" => request.publish_delete().await,
        "publish_list" => Ok(Value::array(ext.read(|state| state.datasets.list()))),
        "publish_get" => request.publish_get(),
        _ => return None,
    };
    Some(result.map_err(RpcError::from))
}

struct Request<'a, C> {
    ext: &'a Ext,
    core: &'a C,
    args: Args<'a>,
    client: Option<&'a str>,
}

/// What an operation returns.
type Reply = Result<Value, ExtError>;

impl<C: CoreAccess> Request<'_, C> {
    /// The record to be stored: a future whose key the pseudo-client holds from now on, or data.
    async fn record(&self, holder: String, deadline: Deadline) -> Result<Record, ExtError> {
        let Some(key) = self.args.opt_key("key")? else {
            return Ok(Record::Data(
                self.args.get("data").map(detached).unwrap_or_default(),
            ));
        };
        while !self.core.desire_known(key.clone(), holder.clone()).await {
            tokio::time::sleep(KEY_POLL).await;
            if deadline.expired() {
                return Err(ExtError::Timeout {
                    text: Some(format!("Task {key} unknown to scheduler.")),
                });
            }
        }
        Ok(Record::Future(key))
    }
}
