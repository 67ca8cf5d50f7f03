//! [`Backend`] over the handlers of remote procedure calls: what HTTP asks of workers, it asks as a client would.

use super::core_view::{Backend, Ticks};
use super::view::{Answer, RetireRequest, SemaphoreMetrics, StealingMetrics, ViewError};
use crate::ext;
use crate::net::core::Core;
use crate::net::rpc::{Ctx, dispatch};
use crate::protocol::{Key, Value};
use std::sync::Arc;
use std::time::Duration;

/// How long a page waits for a worker.
const WORKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of a worker's log.
const MAX_LOG_LINES: i64 = 5_000;

/// How a level of stealing is labelled: the ratio of compute to transfer cost that it stands for, as stock writes it.
fn cost_multiplier(level: usize) -> String {
    match i32::try_from(level) {
        Ok(level) if level > 0 => (1.0 + 2f64.powi(level - 6)).to_string(),
        _ => "1.0".to_owned(),
    }
}

/// The backend of a running scheduler.
pub struct CtxBackend {
    ctx: Arc<Ctx>,
}

impl CtxBackend {
    /// A backend that uses the handlers of `ctx`.
    #[must_use]
    pub fn new(ctx: Arc<Ctx>) -> Self {
        Self { ctx }
    }

    async fn ask_worker(&self, address: &str, request: Value) -> Result<Value, ViewError> {
        let failed = |text: String| ViewError(format!("worker {address} does not answer: {text}"));
        match tokio::time::timeout(WORKER_TIMEOUT, self.ctx.pool.call(address, &request)).await {
            Ok(Ok(reply))
                if reply.get("status").and_then(Value::as_str) == Some("uncaught-error") =>
            {
                let text = reply
                    .get("exception_text")
                    .and_then(Value::as_str)
                    .unwrap_or("error");
                Err(failed(text.to_owned()))
            }
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!(
                "no reply within {} s",
                WORKER_TIMEOUT.as_secs()
            ))),
        }
    }
}

impl Backend for CtxBackend {
    fn identity(&self, core: &Core) -> Value {
        crate::net::rpc::identity(&core.state, &self.ctx.identity, -1)
    }

    fn id(&self) -> String {
        self.ctx.identity.id.clone()
    }

    fn address(&self) -> String {
        self.ctx.identity.address.clone()
    }

    fn started(&self) -> f64 {
        self.ctx.identity.started
    }

    fn adaptive_target(&self, core: &Core) -> u64 {
        core.state
            .adaptive_target(self.ctx.config.adaptive_target_duration.0)
    }

    fn check_idle(&self, core: &mut Core) -> Option<f64> {
        core.state.check_idle()
    }

    fn stealing(&self, core: &Core) -> Vec<StealingMetrics> {
        if !core.state.config.work_stealing {
            return Vec::new();
        }
        let books = &core.state.stealing;
        let levels = books.request_count.iter().zip(&books.request_cost);
        levels
            .enumerate()
            .map(|(level, (requests, cost))| StealingMetrics {
                cost_multiplier: cost_multiplier(level),
                requests: *requests,
                cost: *cost,
            })
            .collect()
    }

    fn ticks(&self, core: &mut Core, reset: bool) -> Ticks {
        let longest = core.turns.recent();
        Ticks {
            maximum_seconds: if reset {
                core.turns.take_longest()
            } else {
                longest
            },
            count: core.turns.count,
        }
    }

    fn semaphores(&self) -> Vec<SemaphoreMetrics> {
        let one = |s: ext::SemaphoreMetrics| SemaphoreMetrics {
            name: s.name,
            max_leases: u64::try_from(s.max_leases).unwrap_or(0),
            active_leases: s.active_leases as u64,
            pending_leases: s.pending_leases as u64,
            acquired: s.acquire_total,
            released: s.release_total,
            average_pending_lease_time_seconds: s.average_pending_lease_time_s,
        };
        self.ctx
            .ext
            .semaphore_metrics()
            .into_iter()
            .map(one)
            .collect()
    }

    fn retire_workers(&self, which: RetireRequest) -> Answer<'_, Result<Value, ViewError>> {
        let request = match which {
            RetireRequest::Count(n) => Value::map([("n", Value::from(n))]),
            RetireRequest::Workers(list) => Value::map([("workers", Value::array(list))]),
        };
        Box::pin(async move {
            dispatch(&self.ctx, "retire_workers", &request)
                .await
                .map_err(|error| ViewError(error.text()))
        })
    }

    fn worker_logs(&self, address: String) -> Answer<'_, Result<Value, ViewError>> {
        let request = Value::map([
            ("op", Value::from("get_logs")),
            ("n", MAX_LOG_LINES.into()),
            ("reply", true.into()),
        ]);
        Box::pin(async move { self.ask_worker(&address, request).await })
    }

    fn call_stack(&self, address: String, keys: Vec<Key>) -> Answer<'_, Result<Value, ViewError>> {
        let keys = Value::Array(keys.iter().map(Key::to_value).collect());
        let request = Value::map([
            ("op", Value::from("call_stack")),
            ("keys", keys),
            ("reply", true.into()),
        ]);
        Box::pin(async move { self.ask_worker(&address, request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::cost_multiplier;

    #[test]
    fn levels_are_labelled_as_in_stock() {
        let labels: Vec<String> = [0, 1, 5, 6, 14].map(cost_multiplier).into();
        assert_eq!(labels, ["1.0", "1.03125", "1.5", "2", "257"]);
    }
}
