//! Messages over the host's socket.
//!
//! Framed as on every other connection. The first frame is a small map that says what the message is (`t`), which
//! request it belongs to (`id`) and what is asked (`op`); the other frames are a message of their own, the body.

use bytes::Bytes;

use crate::protocol::{DecodeError, Message, Value, write};

/// A message's first frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Kind of message.
    pub kind: String,
    /// Number of the request, counted by who made it.
    pub id: u64,
    /// What is asked.
    pub op: String,
}

/// The bytes of a message.
pub(super) fn encode(kind: &str, id: u64, op: &str, body: &Value) -> Vec<Bytes> {
    let mut head = Vec::with_capacity(32 + op.len());
    write::map_len(&mut head, 3);
    for (name, value) in [("t", kind), ("op", op)] {
        write::str(&mut head, name);
        write::str(&mut head, value);
    }
    write::str(&mut head, "id");
    write::uint(&mut head, id);
    let mut frames = vec![head.into()];
    frames.extend(Message::encode(body).frames);
    Message { frames }.to_chunks()
}

/// The head of a message, and its body still encoded.
pub(super) fn decode(mut message: Message) -> Result<(Head, Message), DecodeError> {
    if message.frames.is_empty() {
        return Err(DecodeError::NoHead);
    }
    let body = message.frames.split_off(1);
    let head = message.decode()?;
    let text = |name: &str| {
        let text = head.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_string()
    };
    let id = head.get("id").and_then(Value::as_u64).unwrap_or(0);
    Ok((
        Head {
            kind: text("t"),
            id,
            op: text("op"),
        },
        Message { frames: body },
    ))
}
