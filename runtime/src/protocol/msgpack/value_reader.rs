//! Builds [`Value`]s, with the marker maps of `distributed` resolved.

use super::reader::{Integer, Kind, Reader};
use crate::protocol::{DecodeError, Message, PayloadKind, Value};
use bytes::Bytes;

/// Byte strings up to this size are copied out of the message, so that one kept value does not keep the connection's
/// whole read buffer alive.
const COPY_BELOW: usize = 1024;

/// Containers reserve at most this many items before they have been seen.
const RESERVE_ITEMS: usize = 256;

/// One pass over one message head (or a part of one).
pub(crate) struct ValueReader<'m> {
    message: Option<&'m Message>,
    /// How many more frames placeholders may refer to; every frame belongs to one payload.
    frame_budget: usize,
}

impl<'m> ValueReader<'m> {
    /// With a message, placeholders become payloads.
    pub(crate) fn new(message: Option<&'m Message>) -> Self {
        ValueReader {
            message,
            frame_budget: message.map_or(0, |m| m.frames.len()),
        }
    }

    /// Reads one value with containers nested up to `depth`.
    pub(crate) fn read(
        &mut self,
        reader: &mut Reader<'_>,
        depth: u32,
    ) -> Result<Value, DecodeError> {
        Ok(match reader.peek()? {
            Kind::Nil => {
                reader.skip()?;
                Value::Nil
            }
            Kind::Bool => Value::Bool(reader.bool()?),
            Kind::Int => match reader.integer("an int")? {
                Integer::Signed(v) => Value::Int(v),
                Integer::Unsigned(v) => Value::from(v),
            },
            Kind::Float => Value::F64(reader.f64()?),
            Kind::Str => Value::Str(reader.str()?.into()),
            Kind::Bin => Value::Bin(self.bin(reader.bin()?)),
            Kind::Array => {
                let depth = deeper(reader, depth)?;
                let len = reader.array_len()?;
                let mut items = Vec::with_capacity(len.min(RESERVE_ITEMS));
                for _ in 0..len {
                    items.push(self.read(reader, depth)?);
                }
                Value::Array(items)
            }
            Kind::Map => self.map(reader, depth)?,
            Kind::Other => return Err(other(reader)),
        })
    }

    fn map(&mut self, reader: &mut Reader<'_>, depth: u32) -> Result<Value, DecodeError> {
        let depth = deeper(reader, depth)?;
        let len = reader.map_len()?;
        let mut entries = Vec::with_capacity(len.min(RESERVE_ITEMS));
        for _ in 0..len {
            let key = self.read(reader, depth)?;
            entries.push((key, self.read(reader, depth)?));
        }
        self.resolve(entries)
    }

    /// Turns a marker map into what it stands for.
    fn resolve(&mut self, mut entries: Vec<(Value, Value)>) -> Result<Value, DecodeError> {
        let Some((Value::Str(name), first)) = entries.first() else {
            return Ok(Value::Map(entries));
        };
        match (name.as_str(), first, self.message) {
            ("__Serialized__" | "__Pickled__", Value::Int(frame), Some(message)) if *frame > 0 => {
                let kind = if name == "__Pickled__" {
                    PayloadKind::Pickled
                } else {
                    PayloadKind::Serialized
                };
                let payload = message.payload_of(*frame as usize, kind)?;
                self.frame_budget = self
                    .frame_budget
                    .checked_sub(payload.frames.len() + 1)
                    .ok_or(DecodeError::RepeatedFrames)?;
                Ok(Value::from(payload))
            }
            ("__Set__", Value::Bool(true), _) if entries.len() == 2 => match entries.pop() {
                Some((Value::Str(list), Value::Array(items))) if list == "as-list" => {
                    Ok(Value::Set(items))
                }
                Some(entry) => {
                    entries.push(entry);
                    Ok(Value::Map(entries))
                }
                None => Ok(Value::Map(entries)),
            },
            _ => Ok(Value::Map(entries)),
        }
    }

    fn bin(&self, bytes: &[u8]) -> Bytes {
        match self.message.and_then(|m| m.frames.first()) {
            Some(head) if bytes.len() > COPY_BELOW => head.slice_ref(bytes),
            _ => Bytes::copy_from_slice(bytes),
        }
    }
}

fn deeper(reader: &Reader<'_>, depth: u32) -> Result<u32, DecodeError> {
    depth.checked_sub(1).ok_or(DecodeError::TooDeep {
        at: reader.position(),
    })
}

fn other(reader: &mut Reader<'_>) -> DecodeError {
    match reader.skip() {
        Err(error) => error,
        Ok(()) => DecodeError::TooDeep {
            at: reader.position(),
        },
    }
}
