//! The frame decoder: the same messages, or the same error, however the bytes are cut; what it leaves unread can be
//! decoded by another.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oxidask_fuzz::protocol::{FrameDecoder, FrameError, Limits, Message};

const LIMITS: Limits = Limits {
    max_frames: 1 << 16,
    max_message_bytes: 1 << 30,
    max_head_bytes: 1 << 24,
};

fn decode(bytes: &[u8], cut: usize) -> (Vec<Message>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new(LIMITS);
    let mut out = Vec::new();
    for chunk in bytes.chunks(cut) {
        let buf = decoder.read_buf();
        assert!(buf.capacity() > buf.len());
        assert!(buf.capacity() <= 1 << 30);
        buf.extend_from_slice(chunk);
        loop {
            match decoder.next() {
                Ok(Some(message)) => out.push(message),
                Ok(None) => break,
                Err(error) => return (out, Some(error)),
            }
        }
    }
    let (unread, count) = (decoder.into_unread(), out.len());
    let used: usize = out
        .iter()
        .map(|m| 8 * (2 + m.frames.len()) + m.nbytes())
        .sum();
    assert_eq!(&unread[..], &bytes[used..], "after {count} messages");
    (out, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else {
        return;
    };
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(whole, decode(bytes, usize::from(cut).max(1)));
    for message in whole.0 {
        let wire = message.to_chunks().concat();
        assert_eq!(decode(&wire, wire.len()).0, [message]);
    }
});
