//! Writing a batch: an array of message maps with the frames of their payloads.

use super::frame::{SMALL_FRAME, prelude};
use super::message::{encode_value, placeholder};
use super::msgpack::write;
use super::{Payload, PayloadKind, Value};
use bytes::{Bytes, BytesMut};

/// Room at the front of the head for the array header, whose length is known last.
const HEADER_ROOM: usize = 5;

/// A body of small frames below this size is joined with the head in one chunk.
const JOIN_BODY: usize = 16 * 1024;

/// Builds one stream message: maps are written straight into the head, payloads are queued behind it.
///
/// For each message: [`begin`](Self::begin), then write one map into the returned buffer; where the map has a payload
/// as value, call [`payload`](Self::payload) and go on with [`head`](Self::head).
#[derive(Debug)]
pub struct BatchWriter {
    head: Vec<u8>,
    messages: usize,
    /// Lengths of the frames behind the head; the first entry stands for the head itself.
    lens: Vec<usize>,
    /// The small frames, joined.
    body: BytesMut,
    /// Large frames, each with the offset in `body` before which it stands.
    large: Vec<(usize, Bytes)>,
    large_bytes: usize,
}

impl Default for BatchWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchWriter {
    /// An empty batch.
    pub fn new() -> Self {
        BatchWriter {
            head: vec![0; HEADER_ROOM],
            messages: 0,
            lens: vec![0],
            body: BytesMut::new(),
            large: Vec::new(),
            large_bytes: 0,
        }
    }

    /// Begins a message; exactly one map must be appended to the returned buffer.
    #[inline]
    pub fn begin(&mut self) -> &mut Vec<u8> {
        self.messages += 1;
        &mut self.head
    }

    /// The head, to go on writing the current message.
    #[inline]
    pub fn head(&mut self) -> &mut Vec<u8> {
        &mut self.head
    }

    /// Appends a whole message.
    pub fn value(&mut self, message: &Value) {
        self.messages += 1;
        self.part(message);
    }

    /// Appends a value, payloads included, at the head's current position.
    pub fn part(&mut self, value: &Value) {
        let mut frames = Vec::new();
        encode_value(value, &mut self.head, &mut frames, self.lens.len());
        for frame in frames {
            self.push_frame(frame);
        }
    }

    /// Writes a payload's placeholder at the head's current position and queues its frames.
    pub fn payload(&mut self, payload: &Payload) {
        placeholder(&mut self.head, payload.kind, self.lens.len());
        self.push_frame(payload.header.clone());
        for frame in &payload.frames {
            self.push_frame(frame.clone());
        }
    }

    /// Writes the placeholder of a payload without data frames, whose sub-header is the concatenation of `parts`.
    pub fn inline_payload(&mut self, kind: PayloadKind, parts: &[&[u8]]) {
        placeholder(&mut self.head, kind, self.lens.len());
        let len = parts.iter().map(|part| part.len()).sum();
        self.lens.push(len);
        if len < SMALL_FRAME {
            parts
                .iter()
                .for_each(|part| self.body.extend_from_slice(part));
        } else {
            self.large_bytes += len;
            self.large
                .push((self.body.len(), Bytes::from(parts.concat())));
        }
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// About how many bytes wait.
    pub fn nbytes(&self) -> usize {
        self.head.len() + self.body.len() + self.large_bytes + 8 * self.lens.len()
    }

    /// The bytes to write for everything since the last call; none for an empty batch. Buffers keep their capacity.
    pub fn finish(&mut self) -> Vec<Bytes> {
        if self.messages == 0 {
            return Vec::new();
        }
        let start = self.array_header();
        let head_len = self.head.len() - start;
        self.lens[0] = head_len;
        let join = self.large.is_empty() && self.body.len() < JOIN_BODY;
        let joined = if join { self.body.len() } else { 0 };
        let mut out = Vec::with_capacity(8 + 8 * (1 + self.lens.len()) + head_len + joined);
        prelude(&mut out, self.lens.iter().copied());
        out.extend_from_slice(&self.head[start..]);
        let chunks = if join {
            out.extend_from_slice(&self.body);
            self.body.clear();
            vec![out.into()]
        } else {
            self.split_body(out.into())
        };
        self.reset();
        chunks
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        self.body.clear();
        self.large.clear();
        self.reset();
    }

    /// Puts the array header right before the messages; returns where the head begins.
    fn array_header(&mut self) -> usize {
        let mut header = Vec::with_capacity(HEADER_ROOM);
        write::array_len(&mut header, self.messages);
        let start = HEADER_ROOM - header.len();
        self.head[start..HEADER_ROOM].copy_from_slice(&header);
        start
    }

    fn split_body(&mut self, first: Bytes) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(2 + 2 * self.large.len());
        chunks.push(first);
        let mut done = 0;
        for (offset, frame) in self.large.drain(..) {
            if offset > done {
                chunks.push(self.body.split_to(offset - done).freeze());
                done = offset;
            }
            chunks.push(frame);
        }
        if !self.body.is_empty() {
            chunks.push(self.body.split().freeze());
        }
        chunks
    }

    fn reset(&mut self) {
        /// A buffer that one unusual batch has grown is not kept.
        const KEEP: usize = 1 << 20;
        self.head.truncate(HEADER_ROOM);
        self.head.shrink_to(KEEP);
        self.lens.truncate(1);
        self.lens.shrink_to(KEEP / 8);
        if self.body.capacity() > KEEP {
            self.body = BytesMut::new();
        }
        self.messages = 0;
        self.large_bytes = 0;
    }

    fn push_frame(&mut self, frame: Bytes) {
        self.lens.push(frame.len());
        if frame.len() < SMALL_FRAME {
            self.body.extend_from_slice(&frame);
        } else {
            self.large_bytes += frame.len();
            self.large.push((self.body.len(), frame));
        }
    }
}
