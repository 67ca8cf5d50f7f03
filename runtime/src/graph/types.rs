//! A graph as the helper returns it.

use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::{Key, Payload, Value, write};

/// Bit in [`Graph::flags`]: the task loads or makes data.
pub const DATA_PRODUCER: u8 = 1;
/// Bit in [`Graph::flags`]: the task is the barrier of a peer-to-peer shuffle.
pub const P2P_BARRIER: u8 = 2;

/// What the tasks of one `Client.map` share: the pickle of a task around the pickle of its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecTemplate {
    /// Pickle bytes before the arguments.
    pub before: Bytes,
    /// Pickle bytes after the arguments.
    pub after: Bytes,
}

impl SpecTemplate {
    /// The sub-header's bytes before the pickle, for arguments of `args` bytes.
    pub fn header_start(&self, args: usize) -> Vec<u8> {
        let mut b = Vec::with_capacity(24);
        write::map_len(&mut b, 3);
        write::str(&mut b, "pickled-obj");
        write::bin_len(&mut b, self.before.len() + args + self.after.len());
        b
    }

    /// The sub-header's bytes after the pickle: `compression` and `num-sub-frames`, both empty.
    pub const HEADER_END: &'static [u8] = b"\xabcompression\x90\xaenum-sub-frames\x00";
}

/// What a worker gets to run, pickled.
#[derive(Debug, Clone)]
pub enum RunSpec {
    /// A whole `__Pickled__` payload.
    Whole(Payload),
    /// A shared template around own arguments.
    Template(Arc<SpecTemplate>, Bytes),
}

impl RunSpec {
    /// Bytes held for this task alone.
    pub fn nbytes(&self) -> usize {
        match self {
            Self::Whole(p) => p.nbytes(),
            Self::Template(_, args) => args.len(),
        }
    }

    /// The payload as it is sent.
    pub fn to_payload(&self) -> Payload {
        match self {
            Self::Whole(p) => p.clone(),
            Self::Template(t, args) => Payload::pickled(&[&t.before[..], args, &t.after].concat()),
        }
    }
}

/// The tasks of one submitted expression.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Keys of the tasks.
    pub keys: Vec<Key>,
    /// `dep_offsets[i]..dep_offsets[i + 1]` are the places of task `i`'s dependencies in `deps`; one longer than `keys`.
    pub dep_offsets: Vec<u32>,
    /// Below `keys.len()`: a task of the graph; from there on: `externals[i - keys.len()]`.
    pub deps: Vec<u32>,
    /// Dependencies that are not in the graph.
    pub externals: Vec<Key>,
    /// What to run.
    pub specs: Vec<RunSpec>,
    /// [`DATA_PRODUCER`] and [`P2P_BARRIER`].
    pub flags: Vec<u8>,
    /// Per annotation the tasks that have it and its value; callables are already evaluated.
    pub annotations: Vec<(String, Vec<(u32, Value)>)>,
    /// Annotations of all tasks.
    pub global_annotations: Vec<(String, Value)>,
    /// Only what the requested keys need is wanted (`LLGExpr`).
    pub cull: bool,
    /// Seconds the helper took to make the tasks.
    pub materialize_seconds: f64,
}

impl Graph {
    /// The key of a dependency index.
    pub fn key(&self, i: u32) -> &Key {
        let i = i as usize;
        if i < self.keys.len() {
            &self.keys[i]
        } else {
            &self.externals[i - self.keys.len()]
        }
    }
}
