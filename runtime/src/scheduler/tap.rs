//! Events for whoever wants to hear of every step: plugins written in Python.
//!
//! Off by default, and then it costs one comparison a step.

use std::sync::Arc;

use super::out::Stimulus;
use super::state::State;
use super::task::TaskStateName;
use crate::protocol::{Key, Reader, Value};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum TapEvent {
    /// A task changed its state.
    Transition {
        /// The task.
        key: Key,
        /// State before.
        start: &'static str,
        /// State after.
        finish: &'static str,
        /// Cause.
        stimulus: String,
        /// Size of the result, −1 if unknown.
        nbytes: i64,
        /// What else plugins are given: fields of the worker's message, the failure.
        extra: Value,
    },
    /// Something was logged; workers and clients that come and go are, too.
    Log {
        /// Topic.
        topic: String,
        /// What.
        msg: Value,
    },
    /// Tasks were added.
    Graph {
        /// The client.
        client: String,
        /// Keys of the graph's tasks.
        tasks: Vec<Key>,
        /// Keys the client wants.
        keys: Vec<Key>,
        /// Cause.
        stimulus: String,
    },
}

/// Where events go.
pub type Sink = Arc<dyn Fn(TapEvent) + Send + Sync>;

/// Which events go where.
#[derive(Clone, Default)]
pub struct Tap {
    /// Transitions of tasks.
    pub transitions: Option<Sink>,
    /// Logged events.
    pub log: Option<Sink>,
    /// Graphs that were added.
    pub graphs: Option<Sink>,
}

impl State {
    /// A task changed its state; `message` is the worker's, if one is the cause.
    #[inline]
    pub(super) fn tap_transition(
        &self,
        key: &Key,
        start: TaskStateName,
        finish: TaskStateName,
        stimulus: Stimulus,
        message: Option<(&str, &[u8])>,
    ) {
        if let Some(sink) = &self.tap.transitions {
            let task = self.task_id(key).map(|id| self.task(id));
            let mut extra = message.map_or_else(Vec::new, |(worker, raw)| fields(worker, raw));
            if finish == TaskStateName::Erred {
                extra.push(("exception".into(), true.into()));
                let worker = task.and_then(|t| t.rare.as_ref()?.erred_on.last());
                extra.push(("worker".into(), worker.map(|w| Value::from(&**w)).into()));
            }
            sink(TapEvent::Transition {
                key: key.clone(),
                start: start.as_str(),
                finish: finish.as_str(),
                stimulus: stimulus.to_string(),
                nbytes: task.map_or(-1, |t| t.nbytes),
                extra: Value::Map(extra),
            });
        }
    }

    /// Something was logged.
    #[inline]
    pub(super) fn tap_log(&self, topics: &[&str], msg: &Value) {
        if let Some(sink) = &self.tap.log {
            for topic in topics {
                sink(TapEvent::Log {
                    topic: (*topic).to_string(),
                    msg: msg.clone(),
                });
            }
        }
    }
}

/// The fields of a worker's message that plugins are given.
fn fields(worker: &str, raw: &[u8]) -> Vec<(Value, Value)> {
    let mut map = match Reader::new(raw).value() {
        Ok(Value::Map(map)) => map,
        _ => Vec::new(),
    };
    let own = [
        "op",
        "key",
        "status",
        "run_id",
        "stimulus_id",
        "exception",
        "traceback",
        "worker",
    ];
    map.retain(|(k, _)| k.as_str().is_some_and(|k| !own.contains(&k)));
    map.push(("worker".into(), worker.into()));
    map
}
