//! One message: a msgpack head and the frames of its payloads.

use super::frame::{SMALL_FRAME, prelude};
use super::msgpack::{MAX_DEPTH, Reader, ValueReader, write};
use super::payload::sub_frames;
use super::{DecodeError, Payload, PayloadKind, Value};
use bytes::Bytes;

/// One message as it travels: `frames[0]` is the msgpack head, the others belong to payloads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The frames, in the order of the wire.
    pub frames: Vec<Bytes>,
}

impl Message {
    /// The msgpack head, for a [`Reader`].
    pub fn head(&self) -> Result<&[u8], DecodeError> {
        self.frames
            .first()
            .map(|head| &head[..])
            .ok_or(DecodeError::NoHead)
    }

    /// Decodes the head. Placeholders become [`Value::Payload`], `__Set__` becomes [`Value::Set`]; `__Enum__` and
    /// payloads in the in-band form stay maps.
    pub fn decode(&self) -> Result<Value, DecodeError> {
        let mut reader = Reader::new(self.head()?);
        let value = ValueReader::new(Some(self)).read(&mut reader, MAX_DEPTH)?;
        reader.finish()?;
        Ok(value)
    }

    /// Decodes one part of the head, given as its raw msgpack, as [`Message::decode`] does the whole.
    pub fn decode_part(&self, raw: &[u8]) -> Result<Value, DecodeError> {
        ValueReader::new(Some(self)).read(&mut Reader::new(raw), MAX_DEPTH)
    }

    /// Encodes a value. Payloads are appended in the order in which they occur.
    pub fn encode(value: &Value) -> Message {
        let mut head = Vec::with_capacity(256);
        let mut frames = vec![Bytes::new()];
        encode_value(value, &mut head, &mut frames, 0);
        frames[0] = head.into();
        Message { frames }
    }

    /// The payload whose sub-header is frame `index`.
    pub fn payload_at(&self, index: usize) -> Result<Payload, DecodeError> {
        self.payload_of(index, PayloadKind::Serialized)
    }

    /// The payload of the given kind whose sub-header is frame `index`.
    pub fn payload_of(&self, index: usize, kind: PayloadKind) -> Result<Payload, DecodeError> {
        let missing = |frame: u64| DecodeError::MissingFrame {
            frame,
            frames: self.frames.len(),
        };
        if index == 0 {
            return Err(missing(0));
        }
        let header = self.frames.get(index).ok_or(missing(index as u64))?;
        let count = sub_frames(header)?;
        let first = index + 1;
        let last = (first as u64).saturating_add(count);
        let frames = usize::try_from(last)
            .ok()
            .and_then(|last| self.frames.get(first..last));
        let frames = frames.ok_or(missing(last.saturating_sub(1)))?;
        Ok(Payload {
            kind,
            header: header.clone(),
            frames: frames.iter().cloned().collect(),
        })
    }

    /// Reads a placeholder map at the reader's position, which must be in this message's head.
    pub fn payload(&self, reader: &mut Reader<'_>) -> Result<Payload, DecodeError> {
        let at = reader.position();
        if reader.map_len()? != 1 {
            return Err(DecodeError::Type {
                expected: "a payload",
                found: "a map",
                at,
            });
        }
        let kind = match reader.str()? {
            "__Serialized__" => PayloadKind::Serialized,
            "__Pickled__" => PayloadKind::Pickled,
            _ => {
                return Err(DecodeError::Type {
                    expected: "a payload",
                    found: "a map",
                    at,
                });
            }
        };
        self.payload_of(reader.u64()? as usize, kind)
    }

    /// The size of all frames.
    pub fn nbytes(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }

    /// The bytes to write, prelude first. Small frames are joined in one chunk; large ones are not copied.
    pub fn to_chunks(&self) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(1);
        self.write_to(&mut chunks);
        chunks
    }

    /// Appends the bytes to write, as [`Message::to_chunks`].
    pub fn write_to(&self, chunks: &mut Vec<Bytes>) {
        let small: usize = self
            .frames
            .iter()
            .map(Bytes::len)
            .filter(|&len| len < SMALL_FRAME)
            .sum();
        let mut joined = Vec::with_capacity(16 + 8 * self.frames.len() + small);
        prelude(&mut joined, self.frames.iter().map(Bytes::len));
        for frame in &self.frames {
            if frame.len() < SMALL_FRAME {
                joined.extend_from_slice(frame);
            } else {
                if !joined.is_empty() {
                    chunks.push(std::mem::take(&mut joined).into());
                }
                chunks.push(frame.clone());
            }
        }
        if !joined.is_empty() {
            chunks.push(joined.into());
        }
    }
}

/// Appends a value to a head; its payloads go to `frames`, the first of which has the index `first` in the message.
pub(crate) fn encode_value(
    value: &Value,
    head: &mut Vec<u8>,
    frames: &mut Vec<Bytes>,
    first: usize,
) {
    match value {
        Value::Payload(payload) => {
            placeholder(head, payload.kind, first + frames.len());
            frames.push(payload.header.clone());
            frames.extend(payload.frames.iter().cloned());
        }
        Value::Array(items) => {
            write::array_len(head, items.len());
            items
                .iter()
                .for_each(|item| encode_value(item, head, frames, first));
        }
        Value::Set(items) => {
            set_header(head);
            write::array_len(head, items.len());
            items
                .iter()
                .for_each(|item| encode_value(item, head, frames, first));
        }
        Value::Map(entries) => {
            write::map_len(head, entries.len());
            for (key, value) in entries {
                encode_value(key, head, frames, first);
                encode_value(value, head, frames, first);
            }
        }
        Value::Nil => write::nil(head),
        Value::Bool(v) => write::bool(head, *v),
        Value::Int(v) => write::int(head, *v),
        Value::UInt(v) => write::uint(head, *v),
        Value::F64(v) => write::f64(head, *v),
        Value::Str(v) => write::str(head, v),
        Value::Bin(v) => write::bin(head, v),
    }
}

/// Appends the placeholder of a payload whose sub-header is frame `index`.
pub(crate) fn placeholder(head: &mut Vec<u8>, kind: PayloadKind, index: usize) {
    write::map_len(head, 1);
    write::str(head, kind.marker());
    write::uint(head, index as u64);
}

fn set_header(head: &mut Vec<u8>) {
    write::map_len(head, 2);
    write::str(head, "__Set__");
    write::bool(head, true);
    write::str(head, "as-list");
}
