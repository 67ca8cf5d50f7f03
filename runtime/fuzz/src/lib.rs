//! The protocol module alone, compiled for fuzzing: it is pure, so the rest of the runtime and its dependencies need
//! not be instrumented.

#[path = "../../src/protocol/mod.rs"]
pub mod protocol;

use protocol::Message;

/// A message from fuzz input: the number of frames, their lengths (two bytes each), their bytes. Whatever is missing
/// is empty.
pub fn message(data: &[u8]) -> Message {
    let Some((&count, rest)) = data.split_first() else {
        return Message::default();
    };
    let count = usize::from(count % 9);
    let (lens, mut rest) = rest.split_at(rest.len().min(2 * count));
    let mut frames = Vec::new();
    for i in 0..count {
        let len = match lens.get(2 * i..2 * i + 2) {
            Some(&[a, b]) => usize::from(u16::from_le_bytes([a, b])),
            _ => 0,
        };
        let (frame, tail) = rest.split_at(rest.len().min(len));
        frames.push(frame.to_vec().into());
        rest = tail;
    }
    Message { frames }
}
