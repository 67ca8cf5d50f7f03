//! Task keys.

use super::msgpack::{Kind, Reader, write};
use super::{DecodeError, Value};
use crate::protocol::msgpack::Integer;
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Longest key in msgpack bytes. Stock Dask knows no limit; names of real tasks have some dozens of bytes.
pub const MAX_KEY_BYTES: usize = 1 << 20;

/// How deep the tuples of a key may nest.
pub(crate) const MAX_KEY_DEPTH: u32 = 64;

/// A Dask key (`str`, `int`, `float` or a tuple of keys) in canonical msgpack form.
///
/// Canonical means the shortest encoding, and floats of integral value as integers: in Python `1 == 1.0` with equal
/// hashes, so `("x", 1)` and `("x", 1.0)` name one task. Equality and hash of the bytes are those of Python.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// The key of a text.
    pub fn new_str(text: &str) -> Key {
        let mut buf = Vec::with_capacity(text.len() + 5);
        write::str(&mut buf, text);
        Key(buf.into())
    }

    /// The key that a message's value stands for.
    pub fn from_value(value: &Value) -> Result<Key, DecodeError> {
        let mut buf = Vec::with_capacity(64);
        write_value(value, &mut buf, MAX_KEY_DEPTH)?;
        if buf.len() > MAX_KEY_BYTES {
            return Err(DecodeError::KeyTooLong { bytes: buf.len() });
        }
        Ok(Key(buf.into()))
    }

    /// The key of any msgpack bytes that are exactly one key.
    pub fn from_msgpack(bytes: &[u8]) -> Result<Key, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut scratch = Vec::new();
        let key = Key::from_canonical(reader.key(&mut scratch)?);
        reader.finish()?;
        Ok(key)
    }

    /// The key of bytes that [`Reader::key`] returned. Not checked again.
    pub fn from_canonical(bytes: &[u8]) -> Key {
        Key(bytes.into())
    }

    /// The canonical msgpack bytes, to be written into messages as they are.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as a value.
    pub fn to_value(&self) -> Value {
        Reader::new(&self.0).value().unwrap_or_default()
    }

    /// The text, of a key that is one.
    pub fn as_str(&self) -> Option<&str> {
        Reader::new(&self.0).str().ok()
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Key {
    /// Python's `repr(key)`.
    pub fn repr(&self) -> String {
        super::repr::repr(&self.to_value())
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::repr::repr(&self.to_value()))
    }
}

/// Python's `str(key)`: the text itself, or the representation of a number or tuple.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => f.pad(text),
            None => f.pad(&super::repr::repr(&self.to_value())),
        }
    }
}

/// Passes over a key and tells whether its bytes are canonical.
pub(crate) fn scan(reader: &mut Reader<'_>, depth: u32) -> Result<bool, DecodeError> {
    let start = reader.position();
    match reader.peek()? {
        Kind::Str => {
            let text = reader.str()?.len();
            let header = reader.position() - start - text;
            Ok(header
                == if text < 32 {
                    1
                } else if text < 0x100 {
                    2
                } else if text < 0x1_0000 {
                    3
                } else {
                    5
                })
        }
        Kind::Int => {
            let value = reader.integer("an int")?;
            Ok(int_len(value) == Some(reader.position() - start))
        }
        Kind::Float => {
            let value = reader.f64()?;
            Ok(reader.position() - start == 9 && integral(value).is_none())
        }
        Kind::Array => {
            let depth = depth
                .checked_sub(1)
                .ok_or(DecodeError::TooDeep { at: start })?;
            let items = reader.array_len()?;
            let header = reader.position() - start;
            let mut canonical = header
                == if items < 16 {
                    1
                } else if items < 0x1_0000 {
                    3
                } else {
                    5
                };
            for _ in 0..items {
                canonical &= scan(reader, depth)?;
            }
            Ok(canonical)
        }
        kind => Err(DecodeError::KeyType { found: kind.name() }),
    }
}

/// Appends the canonical form of the next key.
pub(crate) fn write_canonical(
    reader: &mut Reader<'_>,
    buf: &mut Vec<u8>,
    depth: u32,
) -> Result<(), DecodeError> {
    match reader.peek()? {
        Kind::Str => write::str(buf, reader.str()?),
        Kind::Int => write_integer(buf, reader.integer("an int")?),
        Kind::Float => write_float(buf, reader.f64()?),
        Kind::Array => {
            let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep {
                at: reader.position(),
            })?;
            let items = reader.array_len()?;
            write::array_len(buf, items);
            for _ in 0..items {
                write_canonical(reader, buf, depth)?;
            }
        }
        kind => return Err(DecodeError::KeyType { found: kind.name() }),
    }
    Ok(())
}

fn write_value(value: &Value, buf: &mut Vec<u8>, depth: u32) -> Result<(), DecodeError> {
    match value {
        Value::Str(text) => write::str(buf, text),
        Value::Int(v) => write::int(buf, *v),
        Value::UInt(v) => write::uint(buf, *v),
        Value::F64(v) => write_float(buf, *v),
        Value::Array(items) => {
            let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep { at: 0 })?;
            write::array_len(buf, items.len());
            for item in items {
                write_value(item, buf, depth)?;
            }
        }
        other => {
            return Err(DecodeError::KeyType {
                found: other.type_name(),
            });
        }
    }
    Ok(())
}

fn write_integer(buf: &mut Vec<u8>, value: Integer) {
    match value {
        Integer::Signed(v) => write::int(buf, v),
        Integer::Unsigned(v) => write::uint(buf, v),
    }
}

fn write_float(buf: &mut Vec<u8>, value: f64) {
    match integral(value) {
        Some(v) => write_integer(buf, v),
        None => write::f64(buf, value),
    }
}

/// The integer a float is equal to, if msgpack can hold that integer.
fn integral(value: f64) -> Option<Integer> {
    if value != value.trunc() {
        return None;
    }
    // Both bounds are exact powers of two; a cast inside them is exact.
    if (-9_223_372_036_854_775_808.0..0.0).contains(&value) {
        Some(Integer::Signed(value as i64))
    } else if (0.0..18_446_744_073_709_551_616.0).contains(&value) {
        Some(Integer::Unsigned(value as u64))
    } else {
        None
    }
}

/// The length of an integer's shortest encoding, if the marker of its sign was used.
fn int_len(value: Integer) -> Option<usize> {
    match value {
        Integer::Unsigned(v) => Some(match v {
            0..0x80 => 1,
            0x80..0x100 => 2,
            0x100..0x1_0000 => 3,
            0x1_0000..0x1_0000_0000 => 5,
            _ => 9,
        }),
        Integer::Signed(0..) => None,
        Integer::Signed(v) => Some(match v {
            -32.. => 1,
            -0x80.. => 2,
            -0x8000.. => 3,
            -0x8000_0000.. => 5,
            _ => 9,
        }),
    }
}
