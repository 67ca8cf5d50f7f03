//! A task out of a submit's pickle.

use super::machine::{Id, Node, Place, Trace, follow};
use super::verified::Verified;
use crate::graph::answer::whole;
use crate::graph::types::{DATA_PRODUCER, Graph, GraphRequest};
use crate::protocol::pickle::read as read_plain;
use crate::protocol::{Key, Message, Payload, Value};
use bytes::Bytes;

/// Larger expressions go to a helper: their pickles have several frames, and the scan's time counts.
const MAX_PICKLE: usize = 60 << 10;
/// Values in one key: a pickle of some bytes can describe a huge tuple that holds the same one again and again.
const MAX_KEY_VALUES: usize = 256;
/// Where the name of a submit's class stands.
const CLASS_WITHIN: usize = 96;
/// Slots of `dask._task_spec.Task`, in the order of its pickled state.
const SLOTS: usize = 9;
const SUBIMPORT: Node<'static> = Node::Global("cloudpickle.cloudpickle", "subimport");
const TASK: Node<'static> = Node::Global("dask._task_spec", "Task");

/// What a submit's pickle says without being loaded.
pub(in crate::graph) struct Scan<'a> {
    trace: Trace<'a>,
    request: &'a GraphRequest,
    pickle: &'a [u8],
}

/// Looks into a request; `None` if it is no submit or none that can be read here.
pub(in crate::graph) fn scan(request: &GraphRequest) -> Option<Scan<'_>> {
    let pickle = request.expr.frames.first()?;
    let start = &pickle[..pickle.len().min(CLASS_WITHIN)];
    if pickle.len() > MAX_PICKLE
        || !start.windows(7).any(|w| w == b"LLGExpr")
        || !is_plain_pickle(&request.expr)
    {
        return None;
    }
    let trace = follow(pickle)?;
    Some(Scan {
        trace,
        request,
        pickle,
    })
}

/// Whether the payload's frames are a pickle and its buffers, as they are.
fn is_plain_pickle(payload: &Payload) -> bool {
    let message = Message {
        frames: vec![payload.header.clone()],
    };
    let Ok(header) = message.decode() else {
        return false;
    };
    let pickled = header.get("serializer").and_then(Value::as_str) == Some("pickle");
    let compressed = header
        .get("compression")
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().any(|name| !name.is_nil()));
    pickled
        && !compressed
        && header.get("split-num-sub-frames").is_none()
        && header.get("is-collection").is_none()
}

impl Scan<'_> {
    /// Remembers the names it imports: a helper has loaded it.
    pub fn verify(&self, verified: &Verified) {
        verified.insert(&self.trace.globals);
        let imports = self
            .trace
            .calls
            .iter()
            .filter(|(of, _)| self.node(*of) == Some(&SUBIMPORT));
        for &(_, args) in imports {
            if let Some(module) = self.imported(args) {
                verified.insert(&[(module, "")]);
            }
        }
    }

    /// The module that `subimport` is called with.
    fn imported(&self, args: Id) -> Option<&str> {
        match self.node(*self.tuple(args)?.first()?)? {
            Node::Str(module) => Some(module),
            _ => None,
        }
    }

    /// The graph of one task, if every name is known to be importable and nothing in it could fail to load.
    pub fn graph(&self, verified: &Verified) -> Option<Graph> {
        if !verified.all(&self.trace.globals) || !self.calls_are_harmless(verified) {
            return None;
        }
        let (key, task, place) = self.only_task()?;
        let Node::Made {
            of,
            state: Some(state),
            end,
        } = self.node(task)?
        else {
            return None;
        };
        if *self.node(*of)? != TASK {
            return None;
        }
        let state = self.tuple(*state)?;
        let [producer, dependencies, _, _, _, args, _, own_key, kwargs] =
            <[Id; SLOTS]>::try_from(state).ok()?;
        let (&Node::Bool(producer), Node::Frozen(dependencies)) =
            (self.node(producer)?, self.node(dependencies)?)
        else {
            return None;
        };
        let Node::Dict(..) = self.node(kwargs)? else {
            return None;
        };
        self.tuple(args)?;
        let key = self.key(key)?;
        if self.key(own_key)? != key {
            return None;
        }
        let externals = dependencies
            .iter()
            .map(|&d| self.key(d))
            .collect::<Option<Vec<_>>>()?;
        if externals.contains(&key) {
            return None;
        }
        let spec = self.slice(place, *end)?;
        let n = externals.len() as u32;
        Some(Graph {
            dep_offsets: vec![0, n],
            deps: (1..=n).collect(),
            externals,
            specs: vec![spec],
            flags: vec![if producer { DATA_PRODUCER } else { 0 }],
            global_annotations: self.annotations()?,
            span_metadata: self.plain(self.request.span_metadata.as_ref())?,
            cull: true,
            keys: vec![key],
            ..Graph::default()
        })
    }

    fn node(&self, id: Id) -> Option<&Node<'_>> {
        self.trace.nodes.get(id as usize)
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.node(id)? {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn calls_are_harmless(&self, verified: &Verified) -> bool {
        self.trace
            .calls
            .iter()
            .all(|&(of, args)| match self.node(of) {
                Some(node) if *node == SUBIMPORT => self
                    .imported(args)
                    .is_some_and(|module| verified.all(&[(module, "")])),
                Some(Node::Global(module, name)) => is_harmless(module, name),
                // `_builtin_type("CodeType")` is called itself.
                Some(Node::Made { of, .. }) => {
                    self.node(*of)
                        == Some(&Node::Global("cloudpickle.cloudpickle", "_builtin_type"))
                }
                _ => false,
            })
    }

    /// Of `Expr._reconstruct(LLGExpr, {key: task}, token, {})`: key, task, and where the dict's contents begin.
    fn only_task(&self) -> Option<(Id, Id, Place)> {
        let Node::Made {
            of, state: None, ..
        } = self.node(self.trace.root)?
        else {
            return None;
        };
        let args = self
            .trace
            .calls
            .iter()
            .rev()
            .find(|(callee, _)| callee == of)?
            .1;
        let &[class, operand, _, cache] = self.tuple(args)? else {
            return None;
        };
        let known = *self.node(*of)? == Node::Global("dask._expr", "Expr._reconstruct")
            && *self.node(class)? == Node::Global("dask._expr", "LLGExpr")
            && matches!(self.node(cache)?, Node::Dict(entries, _) if entries.is_empty());
        match self.node(operand)? {
            Node::Dict(entries, place) if known => match entries[..] {
                [(key, task)] => Some((key, task, *place)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The task's own pickle: what made it, after as many memo entries as there were before.
    fn slice(&self, from: Place, end: usize) -> Option<crate::graph::RunSpec> {
        let inside = |at: usize| (from.at..end).contains(&at);
        let self_contained = !self.trace.frames.iter().any(|&at| inside(at))
            && !self
                .trace
                .fetches
                .iter()
                .any(|&(index, at)| inside(at) && index < from.memo);
        // The next opcode puts the task into the dict: it is complete.
        if !self_contained || self.pickle.get(end) != Some(&b's') {
            return None;
        }
        let buffers: Vec<Bytes> = self.request.expr.frames[1..].to_vec();
        if buffers.len() != self.trace.buffers {
            return None;
        }
        let mut start = Vec::with_capacity(from.memo + 4);
        start.extend_from_slice(b"\x80\x05N");
        start.resize(start.len() + from.memo, 0x94);
        start.push(b'0');
        Some(whole(&[&start, &self.pickle[from.at..end], b"."], buffers))
    }

    fn key(&self, id: Id) -> Option<Key> {
        if let Node::Str(text) = self.node(id)? {
            return Some(Key::new_str(text));
        }
        let mut budget = MAX_KEY_VALUES;
        Key::from_value(&self.key_value(id, &mut budget)?).ok()
    }

    fn key_value(&self, id: Id, budget: &mut usize) -> Option<Value> {
        *budget = budget.checked_sub(1)?;
        Some(match self.node(id)? {
            Node::Str(text) => (*text).into(),
            Node::Int(v) => (*v).into(),
            Node::Float(v) => (*v).into(),
            Node::Tuple(items) => {
                let items = items.iter().map(|&i| self.key_value(i, budget));
                Value::Array(items.collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    fn annotations(&self) -> Option<Vec<(String, Value)>> {
        match self.plain(self.request.annotations.as_ref())? {
            Value::Nil => Some(Vec::new()),
            Value::Map(entries) => {
                let named =
                    |(name, value): (Value, Value)| Some((name.as_str()?.to_owned(), value));
                entries.into_iter().map(named).collect()
            }
            _ => None,
        }
    }

    /// A pickled value that holds nothing but plain ones.
    fn plain(&self, payload: Option<&Payload>) -> Option<Value> {
        let Some(payload) = payload else {
            return Some(Value::Nil);
        };
        let parts = payload.pickled_bytes().ok()??;
        if !parts.buffers.is_empty() {
            return None;
        }
        read_plain(&parts.pickle).ok()
    }
}

/// Callables that load whatever data their pickles hold.
fn is_harmless(module: &str, name: &str) -> bool {
    match module {
        "dask._expr" => name == "Expr._reconstruct",
        "dask._task_spec" => {
            matches!(
                name,
                "Task" | "Alias" | "DataNode" | "TaskRef" | "List" | "Tuple" | "Set" | "Dict"
            )
        }
        "cloudpickle.cloudpickle" => matches!(
            name,
            "_builtin_type"
                | "_make_function"
                | "_function_setstate"
                | "_make_cell"
                | "_make_empty_cell"
        ),
        "builtins" => matches!(
            name,
            "complex" | "bytearray" | "set" | "frozenset" | "range" | "slice"
        ),
        "datetime" => matches!(
            name,
            "datetime" | "date" | "time" | "timedelta" | "timezone"
        ),
        "functools" => name == "partial",
        "numpy" => name == "dtype",
        "numpy._core.numeric" | "numpy.core.numeric" => name == "_frombuffer",
        "numpy._core.multiarray" | "numpy.core.multiarray" => {
            matches!(name, "scalar" | "_reconstruct")
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::PayloadKind;
    use proptest::prelude::*;

    /// What `Client.submit(abs, x, pure=False)` with a future `x` sends, by protocol 5 of CPython 3.11.
    const SUBMIT: &[u8] = b"\x80\x05\x8c\x0adask._expr\x94\x8c\x11Expr._reconstruct\x94\x93\x94(h\x00\x8c\x07LLGExpr\
        \x94\x93\x94}\x94\x8c\x01a\x94\x8c\x0fdask._task_spec\x94\x8c\x04Task\x94\x93\x94)\x81\x94(\x89(\x8c\x01x\x94\x91\
        \x94NNNh\x07\x8c\x07TaskRef\x94\x93\x94h\x0b\x85\x94R\x94\x85\x94\x8c\x08builtins\x94\x8c\x03abs\x94\x93\x94h\x06\
        }\x94t\x94bsN}\x94t\x94R\x94.";

    fn request(pickle: &[u8]) -> GraphRequest {
        GraphRequest {
            expr: Payload {
                kind: PayloadKind::Serialized,
                header: Bytes::from_static(b"\x82\xaaserializer\xa6pickle\xaenum-sub-frames\x01"),
                frames: [Bytes::copy_from_slice(pickle)].into_iter().collect(),
            },
            annotations: None,
            span_metadata: None,
        }
    }

    #[test]
    fn a_submit_is_read_once_its_names_are_known() {
        let request = request(SUBMIT);
        let scan = scan(&request).unwrap();
        let verified = Verified::default();
        assert!(scan.graph(&verified).is_none());
        scan.verify(&verified);
        let graph = scan.graph(&verified).unwrap();
        assert_eq!(graph.keys, [Key::new_str("a")]);
        assert_eq!(graph.externals, [Key::new_str("x")]);
        let pickle = graph.specs[0]
            .to_payload()
            .pickled_bytes()
            .unwrap()
            .unwrap()
            .pickle;
        assert!(pickle.starts_with(b"\x80\x05N\x94\x94\x94\x94\x94\x940\x8c\x01a\x94"));
        assert!(pickle.ends_with(b"t\x94b."));
        verified.clear();
        assert!(scan.graph(&verified).is_none());
    }

    #[test]
    fn keys_cannot_explode() {
        let mut nested = b"\x80\x05K\x01\x94".to_vec();
        for i in 0..60u8 {
            nested.extend_from_slice(&[b'0', b'h', i, b'h', i, 0x86, 0x94]);
        }
        nested.push(b'.');
        let request = request(&nested);
        let trace = follow(&nested).unwrap();
        let root = trace.root;
        let scan = Scan {
            trace,
            request: &request,
            pickle: &nested,
        };
        assert!(scan.key(root).is_none());
    }

    proptest! {
        #[test]
        fn nothing_panics(mut at in prop::collection::vec((0usize..SUBMIT.len(), any::<u8>()), 0..6), cut in 0usize..400) {
            let mut pickle = SUBMIT.to_vec();
            for (at, byte) in at.drain(..) {
                pickle[at] = byte;
            }
            pickle.truncate(cut.max(1));
            let request = request(&pickle);
            let verified = Verified::default();
            verified.insert(&follow(SUBMIT).unwrap().globals);
            if let Some(scan) = scan(&request) {
                scan.graph(&verified);
            }
        }

        #[test]
        fn nothing_panics_on_noise(pickle in prop::collection::vec(any::<u8>(), 0..200)) {
            follow(&pickle);
        }
    }
}
