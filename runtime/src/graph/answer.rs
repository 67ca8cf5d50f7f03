//! Decoding what a helper sends for one graph: the head, then the specifications in chunks.

use super::opcodes::{MARK, TUPLE, push_plain, push_str};
use super::types::{Graph, GraphError, RunSpec, SpecTemplate, Structure};
use crate::protocol::{DecodeError, Key, Message, Payload, PayloadKind, Reader, Value, write};
use bytes::Bytes;
use std::sync::Arc;
use thiserror::Error;

/// Own parts of plain maps are written in blocks of about this size, so that memory goes as tasks are forgotten.
const BLOCK: usize = 256 << 10;
/// Number of the template of a task that stands alone.
const WHOLE: u32 = u32::MAX;
/// What ends the pickle of a templated task: BUILD, STOP.
const BUILD_STOP: &[u8] = b"b.";
/// Columns at the end of the head's message.
const COLUMNS: usize = 5;

/// An answer that is not what a helper sends.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// The msgpack in it.
    #[error("the graph helper's answer cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// Its shape.
    #[error("the graph helper's answer is inconsistent: {0}")]
    Shape(&'static str),
}

type Result<T> = std::result::Result<T, AnswerError>;

fn shape<T>(value: Option<T>, what: &'static str) -> Result<T> {
    value.ok_or(AnswerError::Shape(what))
}

/// One message of a helper, by its `t`.
pub enum Incoming {
    /// Structure and annotations.
    Head(Box<Head>),
    /// Specifications.
    Specs(Value, Vec<Bytes>),
    /// Columns of a plain map.
    Map(Value, Vec<Bytes>),
    /// The graph's failure.
    Error(Box<GraphError>),
    /// Anything else: greetings and acknowledgements.
    Other(Value),
}

/// What comes before the specifications.
pub struct Head {
    /// Keys, edges, flags.
    pub structure: Structure,
    /// Annotations and the like, as in [`Graph`].
    pub rest: Graph,
}

/// Sorts a message by its kind.
pub fn incoming(frames: Vec<Bytes>) -> Result<Incoming> {
    let (kind, count) = kind_of(&frames)?;
    if kind == "head" {
        return Ok(Incoming::Head(Box::new(head(frames, count)?)));
    }
    let mut frames = frames;
    let value = Message {
        frames: vec![frames.remove(0)],
    }
    .decode()?;
    Ok(match kind.as_str() {
        "specs" => Incoming::Specs(value, frames),
        "map" => Incoming::Map(value, frames),
        "error" => Incoming::Error(Box::new(failure(&value, frames)?)),
        _ => Incoming::Other(value),
    })
}

/// The message's kind and, for a head, its number of tasks, without decoding the rest.
fn kind_of(frames: &[Bytes]) -> Result<(String, usize)> {
    let mut reader = Reader::new(shape(frames.first(), "no frame")?);
    let (mut kind, mut count) = (String::new(), 0);
    for _ in 0..reader.map_len()? {
        match reader.str()? {
            "t" => kind = reader.str()?.to_owned(),
            "n" => count = reader.u64()?,
            _ => reader.skip()?,
        }
    }
    Ok((kind, usize::try_from(count).unwrap_or(0)))
}

fn failure(head: &Value, frames: Vec<Bytes>) -> Result<GraphError> {
    let text = |name: &str| {
        head.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let [exception, traceback] = shape(frames.try_into().ok(), "an error without its pickles")?;
    let (exception_text, hint) = (text("exception_text"), text("hint"));
    let dot = if hint.is_empty() { "" } else { " " };
    Ok(GraphError {
        text: format!("{exception_text}{dot}{hint}"),
        exception,
        traceback: (!traceback.is_empty()).then_some(traceback),
        exception_text,
        traceback_text: text("traceback_text"),
    })
}

fn head(mut frames: Vec<Bytes>, n: usize) -> Result<Head> {
    let at = shape(
        frames.len().checked_sub(COLUMNS),
        "a head without its columns",
    )?;
    let columns = frames.split_off(at);
    let [keys, counts, deps, flags, externals]: [Bytes; COLUMNS] =
        shape(columns.try_into().ok(), "columns")?;
    let mut value = Message { frames }.decode()?;
    let structure = Structure {
        keys: read_keys(&keys)?,
        dep_offsets: offsets(&counts),
        deps: u32s(&deps).collect(),
        externals: read_keys(&externals)?,
        flags: if flags.is_empty() {
            vec![0; n]
        } else {
            flags.to_vec()
        },
        cull: value.get("cull").and_then(Value::as_bool).unwrap_or(false),
    };
    check(&structure, n)?;
    let rest = Graph {
        annotations: per_task(value.take("annotations"), n)?,
        global_annotations: entries(value.take("global")),
        span_metadata: value.take("spans").unwrap_or_default(),
        ..Graph::default()
    };
    Ok(Head { structure, rest })
}

fn check(s: &Structure, n: usize) -> Result<()> {
    let known = n + s.externals.len();
    let consistent = s.keys.len() == n
        && s.flags.len() == n
        && s.dep_offsets.len() == n + 1
        && s.dep_offsets
            .last()
            .is_some_and(|&end| end as usize == s.deps.len())
        && s.deps.iter().all(|&d| (d as usize) < known);
    shape(consistent.then_some(()), "columns of different lengths")
}

fn read_keys(bytes: &[u8]) -> Result<Vec<Key>> {
    let mut reader = Reader::new(bytes);
    let n = reader.array_len()?;
    let mut keys = Vec::with_capacity(n.min(bytes.len()));
    let mut scratch = Vec::new();
    for _ in 0..n {
        keys.push(Key::from_canonical(reader.key(&mut scratch)?));
    }
    reader.finish()?;
    Ok(keys)
}

fn u32s(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes
        .chunks_exact(4)
        .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
}

fn u64s(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
}

fn offsets(counts: &[u8]) -> Vec<u32> {
    let mut out = Vec::with_capacity(counts.len() / 4 + 1);
    let mut at = 0u32;
    out.push(0);
    for count in u32s(counts) {
        at = at.saturating_add(count);
        out.push(at);
    }
    out
}

fn entries(value: Option<Value>) -> Vec<(String, Value)> {
    let Some(Value::Map(entries)) = value else {
        return Vec::new();
    };
    entries
        .into_iter()
        .filter_map(|(name, value)| Some((name.as_str()?.to_owned(), value)))
        .collect()
}

/// An annotation and the tasks that have it.
type Annotated = (String, Vec<(u32, Value)>);

fn per_task(value: Option<Value>, n: usize) -> Result<Vec<Annotated>> {
    let mut out = Vec::new();
    for (name, columns) in entries(value) {
        let Value::Array(mut columns) = columns else {
            return Err(AnswerError::Shape("annotations"));
        };
        let (Some(Value::Array(values)), Some(Value::Array(tasks))) =
            (columns.pop(), columns.pop())
        else {
            return Err(AnswerError::Shape("annotations"));
        };
        let mut list = Vec::with_capacity(tasks.len());
        for (task, value) in tasks.iter().zip(values) {
            let i = shape(task.as_u64().filter(|&i| i < n as u64), "an annotated task")?;
            list.push((i as u32, value));
        }
        out.push((name, list));
    }
    Ok(out)
}

/// Collects the specifications of one graph.
#[derive(Default)]
pub struct Specs {
    specs: Vec<RunSpec>,
    templates: Vec<Arc<SpecTemplate>>,
    /// Seconds that the helper reported.
    pub seconds: f64,
}

impl Specs {
    /// Room for `n` tasks.
    pub fn new(n: usize) -> Self {
        Specs {
            specs: Vec::with_capacity(n),
            ..Specs::default()
        }
    }

    /// The specifications, one per task.
    pub fn finish(self, n: usize) -> Result<Vec<RunSpec>> {
        shape(
            (self.specs.len() == n).then_some(()),
            "another number of specifications than tasks",
        )?;
        Ok(self.specs)
    }

    fn note(&mut self, head: &Value) {
        self.seconds = head.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
    }

    /// Takes a chunk; whether it was the last one.
    pub fn chunk(&mut self, head: &Value, frames: Vec<Bytes>) -> Result<bool> {
        self.note(head);
        let mut frames = frames.into_iter();
        let mut next = || shape(frames.next(), "a chunk without its columns");
        let (ids, ends, nbuffers, blob) = (next()?, next()?, next()?, next()?);
        for _ in 0..head.get("templates").and_then(Value::as_u64).unwrap_or(0) {
            self.templates.push(Arc::new(SpecTemplate {
                before: next()?,
                after: Bytes::from_static(BUILD_STOP),
            }));
        }
        let mut nbuffers = u32s(&nbuffers);
        let mut start = 0;
        for (id, end) in u32s(&ids).zip(u64s(&ends)) {
            let end = usize::try_from(end).unwrap_or(usize::MAX);
            let inside = start < end && end <= blob.len();
            shape(inside.then_some(()), "a specification outside its chunk")?;
            let buffers = (0..nbuffers.next().unwrap_or(0))
                .map(|_| next())
                .collect::<Result<Vec<_>>>()?;
            let at = blob.slice(start..end);
            self.push(id, at, buffers)?;
            start = end;
        }
        Ok(head.get("last").and_then(Value::as_bool).unwrap_or(true))
    }

    fn push(&mut self, id: u32, piece: Bytes, buffers: Vec<Bytes>) -> Result<()> {
        if id == WHOLE {
            self.specs.push(whole(&[&piece], buffers));
            return Ok(());
        }
        let template = shape(self.templates.get(id as usize), "an unknown template")?;
        // The own part's STOP makes way for the template's BUILD and STOP.
        let own = piece.slice(..piece.len() - 1);
        let fits = u32::try_from(template.nbytes() + own.len()).is_ok();
        let spec = if buffers.is_empty() && fits {
            RunSpec::Template(template.clone(), own)
        } else {
            whole(&[&template.before, &own, &template.after], buffers)
        };
        self.specs.push(spec);
        Ok(())
    }

    /// Writes the tasks of a plain map: `before ( args t middle key after`.
    pub fn plain_map(&mut self, head: &Value, frames: Vec<Bytes>, keys: &[Key]) -> Result<()> {
        self.note(head);
        let ncolumns = head.get("ncolumns").and_then(Value::as_u64).unwrap_or(0);
        let mut frames = frames.into_iter();
        let mut next = || shape(frames.next(), "a map without its columns");
        let (before, middle, after) = (next()?, next()?, next()?);
        let template = Arc::new(SpecTemplate { before, after });
        let columns = (0..ncolumns).map(|_| next()).collect::<Result<Vec<_>>>()?;
        let mut readers: Vec<_> = columns.iter().map(|c| Reader::new(c)).collect();
        for reader in &mut readers {
            shape(
                (reader.array_len()? == keys.len()).then_some(()),
                "a map's column of another length",
            )?;
        }
        let mut block = Vec::with_capacity(BLOCK + 1024);
        let mut ends = Vec::new();
        for key in keys {
            block.push(MARK);
            for reader in &mut readers {
                push_plain(reader, &mut block)?;
            }
            block.push(TUPLE);
            block.extend_from_slice(&middle);
            push_str(
                shape(key.as_str(), "a map's key that is not a text")?,
                &mut block,
            );
            ends.push(block.len());
            if block.len() >= BLOCK {
                self.push_block(&template, &mut block, &mut ends);
            }
        }
        self.push_block(&template, &mut block, &mut ends);
        Ok(())
    }

    fn push_block(
        &mut self,
        template: &Arc<SpecTemplate>,
        block: &mut Vec<u8>,
        ends: &mut Vec<usize>,
    ) {
        let bytes = Bytes::copy_from_slice(block);
        block.clear();
        let mut start = 0;
        for end in ends.drain(..) {
            self.specs
                .push(RunSpec::Template(template.clone(), bytes.slice(start..end)));
            start = end;
        }
    }
}

/// A specification with a payload of its own, as `ToPickle` sends it.
pub(super) fn whole(pickle: &[&[u8]], buffers: Vec<Bytes>) -> RunSpec {
    let len: usize = pickle.iter().map(|part| part.len()).sum();
    let mut header = Vec::with_capacity(len + 48 + buffers.len());
    write::map_len(&mut header, 3);
    write::str(&mut header, "pickled-obj");
    write::bin_len(&mut header, len);
    pickle
        .iter()
        .for_each(|part| header.extend_from_slice(part));
    write::str(&mut header, "compression");
    write::array_len(&mut header, buffers.len());
    buffers.iter().for_each(|_| write::nil(&mut header));
    write::str(&mut header, "num-sub-frames");
    write::uint(&mut header, buffers.len() as u64);
    RunSpec::Whole(Box::new(Payload {
        kind: PayloadKind::Pickled,
        header: header.into(),
        frames: buffers.into(),
    }))
}
