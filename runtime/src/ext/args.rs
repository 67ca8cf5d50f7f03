//! Reading a request's arguments.

use std::time::Duration;

use bytes::Bytes;

use super::ExtError;
use crate::config::units::parse_timedelta;
use crate::protocol::repr::repr;
use crate::protocol::{Key, Str, Value};

/// Longer timeouts are as good as none.
const LONGEST_TIMEOUT_S: f64 = 1e9;

/// The arguments of one request or stream message.
#[derive(Clone, Copy)]
pub struct Args<'a>(pub &'a Value);

impl<'a> Args<'a> {
    /// An argument, unless it is missing or `None`.
    pub fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_nil())
    }

    fn require(self, name: &str) -> Result<&'a Value, ExtError> {
        self.get(name)
            .ok_or_else(|| ExtError::Type(format!("missing a required argument: '{name}'")))
    }

    /// A key, or the name of a thing: whatever Python can hash and msgpack can send.
    pub fn key(self, name: &str) -> Result<Key, ExtError> {
        as_key(self.require(name)?)
    }

    /// As [`Args::key`], `None` if missing.
    pub fn opt_key(self, name: &str) -> Result<Option<Key>, ExtError> {
        self.get(name).map(as_key).transpose()
    }

    /// A list of keys.
    pub fn keys(self, name: &str) -> Result<Vec<Key>, ExtError> {
        self.items(name)?.iter().map(as_key).collect()
    }

    /// A list.
    pub fn items(self, name: &str) -> Result<&'a [Value], ExtError> {
        let value = self.require(name)?;
        value
            .as_array()
            .ok_or_else(|| wrong_type(name, "a list", value))
    }

    /// A text.
    pub fn str(self, name: &str) -> Result<&'a str, ExtError> {
        let value = self.require(name)?;
        value
            .as_str()
            .ok_or_else(|| wrong_type(name, "a str", value))
    }

    /// A text of its own memory.
    pub fn text(self, name: &str) -> Result<Str, ExtError> {
        self.str(name).map(Str::from)
    }

    /// An id: bytes, or a text.
    pub fn id(self, name: &str) -> Result<Vec<u8>, ExtError> {
        match self.require(name)? {
            Value::Bin(bytes) => Ok(bytes.to_vec()),
            Value::Str(text) => Ok(text.as_bytes().to_vec()),
            other => Err(wrong_type(name, "bytes", other)),
        }
    }

    /// An integer.
    pub fn int(self, name: &str) -> Result<i64, ExtError> {
        let value = self.require(name)?;
        value
            .as_i64()
            .ok_or_else(|| wrong_type(name, "an int", value))
    }

    /// A time to wait: a number of seconds, a text like `"30 s"`, or for ever.
    pub fn timeout(self, name: &str) -> Result<Option<Duration>, ExtError> {
        let Some(seconds) = self.seconds(name)? else {
            return Ok(None);
        };
        Ok((seconds < LONGEST_TIMEOUT_S).then(|| Duration::from_secs_f64(seconds.max(0.0))))
    }

    /// A number of seconds, or a text like `"30 s"`.
    pub fn seconds(self, name: &str) -> Result<Option<f64>, ExtError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Str(text)) => parse_timedelta(text)
                .map(Some)
                .map_err(|error| ExtError::Value(error.to_string())),
            Some(value) => match value.as_f64() {
                Some(seconds) if !seconds.is_nan() => Ok(Some(seconds)),
                _ => Err(wrong_type(name, "a number of seconds", value)),
            },
        }
    }
}

/// The key that a value stands for.
pub fn as_key(value: &Value) -> Result<Key, ExtError> {
    Key::from_value(value).map_err(|error| ExtError::Type(format!("{}: {error}", repr(value))))
}

fn wrong_type(name: &str, expected: &str, found: &Value) -> ExtError {
    ExtError::Type(format!(
        "{name} must be {expected}, not {}",
        found.type_name()
    ))
}

/// The value in memory of its own, so that keeping it does not keep a connection's read buffer.
pub fn detached(value: &Value) -> Value {
    match value {
        Value::Bin(bytes) => Value::Bin(Bytes::copy_from_slice(bytes)),
        Value::Payload(payload) => payload.detach().into(),
        Value::Array(items) => Value::Array(items.iter().map(detached).collect()),
        Value::Set(items) => Value::Set(items.iter().map(detached).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .iter()
                .map(|(k, v)| (detached(k), detached(v)))
                .collect(),
        ),
        plain => plain.clone(),
    }
}
