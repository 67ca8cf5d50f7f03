//! Events for whoever wants to hear of every step: plugins written in Python.
//!
//! Off by default, and then it costs one comparison a step.

use std::sync::Arc;

use super::out::Stimulus;
use super::state::State;
use super::submit::Submission;
use super::task::TaskStateName;
use crate::graph::Graph;
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
        /// By annotation the annotated keys and their values.
        annotations: Value,
        /// Order of the tasks by key.
        priorities: Value,
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
    /// The worker and its message that the next failure comes from.
    pub(super) message: Option<(Arc<str>, Box<[u8]>)>,
}

impl State {
    /// A task changed its state; `message` is the worker's, if one is the cause.
    #[inline]
    pub(super) fn tap_transition(
        &mut self,
        key: &Key,
        start: TaskStateName,
        finish: TaskStateName,
        stimulus: Stimulus,
        message: Option<(&str, &[u8])>,
    ) {
        if self.tap.transitions.is_none() {
            return;
        }
        let own = (finish == TaskStateName::Erred).then(|| self.tap.message.take());
        if let Some(sink) = &self.tap.transitions {
            let own = own.flatten();
            let message = message.or(own.as_ref().map(|(w, raw)| (&**w, &**raw)));
            let task = self.task_id(key).map(|id| self.task(id));
            let mut extra = message.map_or_else(Vec::new, |(worker, raw)| fields(worker, raw));
            if finish == TaskStateName::Erred {
                extra.push(("exception".into(), true.into()));
                if message.is_none() {
                    let worker = task.and_then(|t| t.rare.as_ref()?.erred_on.last());
                    extra.push(("worker".into(), worker.map(|w| Value::from(&**w)).into()));
                }
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

    /// Tasks were added; they have their priorities already.
    #[inline]
    pub(super) fn tap_graph(&self, sub: &Submission, graph: &Graph, stimulus: Stimulus) {
        let Some(sink) = &self.tap.graphs else {
            return;
        };
        let global = graph.global_annotations.iter().map(|(name, value)| {
            let all = graph.keys.iter().map(|k| (k.to_value(), value.clone()));
            (Value::from(name), Value::Map(all.collect()))
        });
        let layered = graph.annotations.iter().map(|(name, tasks)| {
            let some = tasks
                .iter()
                .map(|(i, value)| (graph.key(*i).to_value(), value.clone()));
            (Value::from(name), Value::Map(some.collect()))
        });
        let priority = |key: &Key| {
            let p = self.task(self.task_id(key)?).priority?;
            let p = Value::Array(vec![p.user.into(), p.generation.into(), p.internal.into()]);
            Some((key.to_value(), p))
        };
        sink(TapEvent::Graph {
            client: self.client(sub.client).name.to_string(),
            tasks: graph.keys.clone(),
            keys: sub.keys.clone(),
            annotations: Value::Map(global.chain(layered).collect()),
            priorities: Value::Map(graph.keys.iter().filter_map(priority).collect()),
            stimulus: stimulus.to_string(),
        });
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
