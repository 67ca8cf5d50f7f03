//! Values of the wire as JSON.

use crate::protocol::Value;
use serde_json::{Map, Number, Value as Json};

/// Deepest nesting kept; decoded values are no deeper than their decoder allows, so this only bounds the output.
const MAX_DEPTH: usize = 32;

/// The value as JSON, as Python's `json` would write it: keys become text, tuples and sets lists. What JSON has no notation
/// for (bytes, payloads, non-finite numbers) is null.
pub(in crate::http) fn to_json(value: &Value) -> Json {
    convert(value, 0)
}

fn convert(value: &Value, depth: usize) -> Json {
    if depth > MAX_DEPTH {
        return Json::Null;
    }
    match value {
        Value::Nil | Value::Bin(_) | Value::Payload(_) => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(i) => (*i).into(),
        Value::UInt(u) => (*u).into(),
        Value::F64(f) => Number::from_f64(*f).map_or(Json::Null, Json::Number),
        Value::Str(s) => s.as_str().into(),
        Value::Array(items) | Value::Set(items) => {
            items.iter().map(|item| convert(item, depth + 1)).collect()
        }
        Value::Map(entries) => {
            let pairs = entries
                .iter()
                .map(|(key, value)| (key_text(key), convert(value, depth + 1)));
            Json::Object(pairs.collect::<Map<_, _>>())
        }
    }
}

pub(super) fn key_text(key: &Value) -> String {
    match key {
        Value::Str(s) => s.as_str().to_owned(),
        Value::Bool(true) => "true".to_owned(),
        Value::Bool(false) => "false".to_owned(),
        other => convert(other, 0).to_string(),
    }
}
