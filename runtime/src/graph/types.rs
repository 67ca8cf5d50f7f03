//! A graph as the scheduler takes it.

use crate::protocol::pickle::write::runtime_error;
use crate::protocol::{Key, Payload, PayloadKind, Value};
use bytes::Bytes;
use std::sync::Arc;
use thiserror::Error;

/// The flag of a task that loads or makes data: its root tasks are queued, never spread by locality.
pub const DATA_PRODUCER: u8 = 1;
/// The flag of the barrier of a peer-to-peer shuffle.
pub const P2P_BARRIER: u8 = 2;

/// The part of the pickle that tasks of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecTemplate {
    /// Pickle bytes before a task's own.
    pub before: Bytes,
    /// Pickle bytes after a task's own.
    pub after: Bytes,
}

impl SpecTemplate {
    /// The sub-header's bytes after the pickle: `compression` and `num-sub-frames`, both empty.
    pub const HEADER_END: &'static [u8] = b"\xabcompression\x90\xaenum-sub-frames\x00";

    /// The sub-header's bytes before the pickle, for own bytes of the length `args`.
    pub fn header_start(&self, args: usize) -> [u8; 18] {
        let mut start = *b"\x83\xabpickled-obj\xc6\0\0\0\0";
        // A template is never used for a pickle that does not fit: see where specifications are read.
        let len = u32::try_from(self.before.len() + args + self.after.len()).unwrap_or(u32::MAX);
        start[14..].copy_from_slice(&len.to_be_bytes());
        start
    }

    /// The size of what tasks share.
    pub fn nbytes(&self) -> usize {
        self.before.len() + self.after.len()
    }
}

/// The task specification that a worker unpickles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunSpec {
    /// A payload of its own.
    Whole(Box<Payload>),
    /// A task's own bytes, between those that its kind shares.
    Template(Arc<SpecTemplate>, Bytes),
}

impl RunSpec {
    /// The same as a payload, ready to be sent.
    pub fn to_payload(&self) -> Payload {
        match self {
            RunSpec::Whole(payload) => (**payload).clone(),
            RunSpec::Template(template, args) => Payload {
                kind: PayloadKind::Pickled,
                header: [
                    &template.header_start(args.len())[..],
                    &template.before,
                    args,
                    &template.after,
                    SpecTemplate::HEADER_END,
                ]
                .concat()
                .into(),
                frames: Default::default(),
            },
        }
    }

    /// The size of what this task does not share.
    pub fn nbytes(&self) -> usize {
        match self {
            RunSpec::Whole(payload) => payload.nbytes(),
            RunSpec::Template(_, args) => args.len(),
        }
    }
}

/// Keys, edges and flags of a graph: what ordering needs, known before the specifications.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Structure {
    /// The tasks' keys.
    pub keys: Vec<Key>,
    /// Task `i` depends on `deps[dep_offsets[i]..dep_offsets[i + 1]]`.
    pub dep_offsets: Vec<u32>,
    /// Indices in `keys`, or beyond them in `externals`.
    pub deps: Vec<u32>,
    /// Keys that are depended upon, but not tasks of this graph.
    pub externals: Vec<Key>,
    /// A byte per task: 1 makes data, 2 is a shuffle's barrier, 4 is a value.
    pub flags: Vec<u8>,
    /// Whether tasks that the requested keys do not need must be left out (in other graphs they already are).
    pub cull: bool,
}

impl Structure {
    /// The dependencies of task `i`.
    pub fn deps_of(&self, i: usize) -> &[u32] {
        match (self.dep_offsets.get(i), self.dep_offsets.get(i + 1)) {
            (Some(&from), Some(&to)) => self.deps.get(from as usize..to as usize).unwrap_or(&[]),
            _ => &[],
        }
    }
}

/// Called with the structure while specifications are still on their way; gives the static order of each task.
pub type OrderFn = Box<dyn FnOnce(&Structure) -> Vec<u32> + Send>;

/// A materialised graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// See [`Structure::keys`].
    pub keys: Vec<Key>,
    /// See [`Structure::dep_offsets`].
    pub dep_offsets: Vec<u32>,
    /// See [`Structure::deps`].
    pub deps: Vec<u32>,
    /// See [`Structure::externals`].
    pub externals: Vec<Key>,
    /// What workers get, per task.
    pub specs: Vec<RunSpec>,
    /// See [`Structure::flags`].
    pub flags: Vec<u8>,
    /// Annotations of single tasks: per name the tasks and their values. Callables have been called, and a layer's value
    /// has won over the global one.
    pub annotations: Vec<(String, Vec<(u32, Value)>)>,
    /// Annotations of all tasks that have none of that name in `annotations`.
    pub global_annotations: Vec<(String, Value)>,
    /// See [`Structure::cull`].
    pub cull: bool,
    /// The span's metadata, if the request carried some.
    pub span_metadata: Value,
    /// What the request's [`OrderFn`] returned.
    pub ordered: Option<Vec<u32>>,
    /// Seconds from the request's arrival to the tasks' existence in the helper.
    pub materialize_seconds: f64,
    /// Seconds the [`OrderFn`] took.
    pub order_seconds: f64,
}

impl Graph {
    /// The key of a dependency as found in `deps`.
    pub fn key(&self, dep: u32) -> &Key {
        let i = dep as usize;
        if i < self.keys.len() {
            &self.keys[i]
        } else {
            &self.externals[i - self.keys.len()]
        }
    }
}

/// What a client sent with `update-graph`, as far as only Python can read it.
#[derive(Debug, Clone)]
pub struct GraphRequest {
    /// `expr_ser`: the expression.
    pub expr: Payload,
    /// `annotations`: those for all tasks.
    pub annotations: Option<Payload>,
    /// `span_metadata`.
    pub span_metadata: Option<Payload>,
}

/// A graph that did not come to be.
#[derive(Debug, Clone, Error)]
#[error("{text}")]
pub struct GraphError {
    /// What happened, to the log.
    pub text: String,
    /// The exception, pickled, for the client.
    pub exception: Bytes,
    /// Its traceback, pickled, if there is one that is not too long.
    pub traceback: Option<Bytes>,
    /// `repr` of the exception.
    pub exception_text: String,
    /// The traceback as text.
    pub traceback_text: String,
}

impl GraphError {
    /// A failure that is not an exception of Python: the client sees a `RuntimeError`.
    pub fn runtime(text: impl Into<String>) -> Self {
        let text = text.into();
        let exception = runtime_error(&text);
        GraphError {
            exception: exception.into(),
            traceback: None,
            exception_text: format!("RuntimeError({text:?})"),
            traceback_text: String::new(),
            text,
        }
    }
}
