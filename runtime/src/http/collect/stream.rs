//! The task stream. Workers' messages are kept as they came and decoded only here, off the core thread.

use super::super::view::{StartStop, StreamEvent, StreamRecord};
use super::json::{key_text, to_json};
use crate::protocol::{Key, Reader, Value, key_split};
use crate::scheduler::State;
use crate::scheduler::task_stream::Record;

/// A record as the state keeps it.
pub(in crate::http) type RawRecord = Record;

/// Spans of one task shown; a task that fetched from thousands of workers has as many.
const MAX_SPANS: usize = 64;

/// Copies the latest `limit` records from number `since` on, and the number to ask for next.
pub(in crate::http) fn records(state: &State, since: u64, limit: usize) -> (u64, Vec<RawRecord>) {
    let index = state.task_stream.index;
    let first = since.max(index.saturating_sub(limit as u64)).min(index);
    (index, state.task_stream.since(first).cloned().collect())
}

/// Decodes a record; `None` if the message is not what workers send.
pub(in crate::http) fn record(raw: &RawRecord) -> Option<StreamRecord> {
    decode(raw, &message(raw)?)
}

/// The record as `/eventstream` tells it, with the other fields of the message.
pub(in crate::http) fn transition(raw: &RawRecord) -> Option<StreamEvent> {
    let message = message(raw)?;
    let record = decode(raw, &message)?;
    let known = [
        "op",
        "key",
        "worker",
        "thread",
        "startstops",
        "exception",
        "traceback",
    ];
    let keep = |(key, value): &(Value, Value)| {
        let key = key_text(key);
        let opaque = matches!(value, Value::Bin(_) | Value::Payload(_)) || is_placeholder(value);
        (!known.contains(&key.as_str()) && !opaque).then(|| (key, to_json(value)))
    };
    let fields = message.as_map()?.iter().filter_map(keep).collect();
    Some(StreamEvent::Transition { record, fields })
}

/// Stands for a payload whose frames are not kept.
fn is_placeholder(value: &Value) -> bool {
    value.get("__Serialized__").is_some() || value.get("__Pickled__").is_some()
}

fn message(raw: &RawRecord) -> Option<Value> {
    Reader::new(&raw.message).value().ok()
}

fn decode(raw: &RawRecord, message: &Value) -> Option<StreamRecord> {
    let key = Key::from_value(message.get("key")?).ok()?;
    let spans = message
        .get("startstops")
        .and_then(Value::as_array)
        .unwrap_or_default();
    let span = |span: &Value| {
        Some(StartStop {
            action: span.get("action")?.as_str()?.to_owned(),
            start: span.get("start")?.as_f64()?,
            stop: span.get("stop")?.as_f64()?,
        })
    };
    Some(StreamRecord {
        name: key_split(&key),
        key: key.to_string(),
        worker: raw.worker.to_string(),
        thread: message.get("thread").and_then(Value::as_u64).unwrap_or(0),
        erred: raw.erred,
        startstops: spans.iter().filter_map(span).take(MAX_SPANS).collect(),
    })
}
