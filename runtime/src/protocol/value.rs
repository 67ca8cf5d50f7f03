//! A decoded message as a tree.

use super::{Key, Payload};
use bytes::Bytes;

/// A text that is cheap to clone and keeps short ones without an allocation.
pub use smol_str::SmolStr as Str;

/// One msgpack value, with the marker maps of `distributed` resolved.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `None`.
    #[default]
    Nil,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// An `int` above `i64::MAX`; smaller ones are always [`Value::Int`].
    UInt(u64),
    /// `float`.
    F64(f64),
    /// `str`.
    Str(Str),
    /// `bytes`.
    Bin(Bytes),
    /// `tuple` or `list`: the wire does not tell them apart.
    Array(Vec<Value>),
    /// `set`, sent as `{"__Set__": true, "as-list": [...]}`.
    Set(Vec<Value>),
    /// `dict`, in the order of the wire. Keys may be of any type.
    Map(Vec<(Value, Value)>),
    /// An object in frames of its own.
    Payload(Box<Payload>),
}

impl Value {
    /// A map from pairs: `Value::map([("op", "close".into())])`.
    pub fn map<K: Into<Value>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
        Value::Map(entries.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// An array of anything that converts.
    pub fn array<V: Into<Value>>(items: impl IntoIterator<Item = V>) -> Value {
        Value::Array(items.into_iter().map(Into::into).collect())
    }

    /// The entry of a map under a text key. Of repeated keys the last counts, as in Python.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let entries = self.as_map()?;
        entries
            .iter()
            .rev()
            .find(|(k, _)| matches!(k, Value::Str(s) if s == name))
            .map(|(_, v)| v)
    }

    /// Takes the entry of a map under a text key out of it.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let Value::Map(entries) = self else {
            return None;
        };
        let at = entries
            .iter()
            .rposition(|(k, _)| matches!(k, Value::Str(s) if s == name))?;
        Some(entries.remove(at).1)
    }

    /// Whether it is nil.
    pub fn is_nil(&self) -> bool {
        matches!(self, Value::Nil)
    }

    /// The text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The byte string.
    pub fn as_bin(&self) -> Option<&Bytes> {
        match self {
            Value::Bin(b) => Some(b),
            _ => None,
        }
    }

    /// The integer, if it fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(v) => Some(*v),
            _ => None,
        }
    }

    /// The integer, if it is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Int(v) => u64::try_from(*v).ok(),
            Value::UInt(v) => Some(*v),
            _ => None,
        }
    }

    /// The number; integers are converted.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::F64(v) => Some(*v),
            Value::Int(v) => Some(*v as f64),
            Value::UInt(v) => Some(*v as f64),
            _ => None,
        }
    }

    /// The boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(v) => Some(*v),
            _ => None,
        }
    }

    /// The items of an array or a set.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) | Value::Set(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a map.
    pub fn as_map(&self) -> Option<&[(Value, Value)]> {
        match self {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The payload.
    pub fn as_payload(&self) -> Option<&Payload> {
        match self {
            Value::Payload(payload) => Some(payload),
            _ => None,
        }
    }

    /// The type's Python name, for error texts.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "None",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::UInt(_) => "int",
            Value::F64(_) => "float",
            Value::Str(_) => "str",
            Value::Bin(_) => "bytes",
            Value::Array(_) => "tuple",
            Value::Set(_) => "set",
            Value::Map(_) => "dict",
            Value::Payload(_) => "a serialized object",
        }
    }
}

impl From<u64> for Value {
    fn from(v: u64) -> Self {
        i64::try_from(v).map_or(Value::UInt(v), Value::Int)
    }
}

impl From<usize> for Value {
    fn from(v: usize) -> Self {
        Value::from(v as u64)
    }
}

impl<V: Into<Value>> From<Option<V>> for Value {
    fn from(v: Option<V>) -> Self {
        v.map_or(Value::Nil, Into::into)
    }
}

impl From<&Key> for Value {
    fn from(key: &Key) -> Self {
        key.to_value()
    }
}

impl From<Payload> for Value {
    fn from(payload: Payload) -> Self {
        Value::Payload(Box::new(payload))
    }
}

macro_rules! from {
    ($($from:ty => |$v:ident| $to:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($v: $from) -> Self {
                $to
            }
        })*
    };
}

from! {
    () => |_v| Value::Nil;
    bool => |v| Value::Bool(v);
    i64 => |v| Value::Int(v);
    i32 => |v| Value::Int(v.into());
    u16 => |v| Value::Int(v.into());
    u32 => |v| Value::Int(v.into());
    f64 => |v| Value::F64(v);
    &str => |v| Value::Str(v.into());
    String => |v| Value::Str(v.into());
    &String => |v| Value::Str(v.into());
    Str => |v| Value::Str(v);
    Bytes => |v| Value::Bin(v);
    Vec<u8> => |v| Value::Bin(v.into());
    Vec<Value> => |v| Value::Array(v);
    Key => |v| v.to_value();
}
