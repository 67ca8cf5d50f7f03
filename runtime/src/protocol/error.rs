//! What can go wrong between the bytes of a peer and a message.

use thiserror::Error;

/// A byte stream that is not a sequence of frame lists. The connection cannot go on: its framing is lost.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The message announces no frame at all; every message has at least its head.
    #[error("the peer sent a message of zero frames; is it a Dask peer?")]
    NoFrames,
    /// More frames than this side accepts.
    #[error(
        "the peer announced a message of {frames} frames, more than the limit of {limit}; is it a Dask peer?"
    )]
    TooManyFrames {
        /// The announced number.
        frames: u64,
        /// [`Limits::max_frames`](super::Limits::max_frames).
        limit: u64,
    },
    /// A message larger than this side accepts.
    #[error(
        "the peer announced a message of {bytes} bytes or more, above the limit of {limit} bytes"
    )]
    TooLarge {
        /// The size as far as it was announced.
        bytes: u64,
        /// [`Limits::max_message_bytes`](super::Limits::max_message_bytes).
        limit: u64,
    },
    /// A message head larger than this side accepts.
    #[error("the peer announced a message head of {bytes} bytes, above the limit of {limit} bytes")]
    HeadTooLarge {
        /// The announced size.
        bytes: u64,
        /// [`Limits::max_head_bytes`](super::Limits::max_head_bytes).
        limit: u64,
    },
    /// The length of the first read contradicts the number of frames or their lengths.
    #[error(
        "the peer announced a first read of {first_read} bytes, which does not fit its {frames} frames; is it a Dask peer?"
    )]
    FirstRead {
        /// The announced length of the first read.
        first_read: u64,
        /// The announced number of frames.
        frames: u64,
    },
}

/// Bytes that are not the message, key or payload they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The input ends inside a value.
    #[error("the message ends inside a value, at byte {at}")]
    UnexpectedEnd {
        /// Offset in the input.
        at: usize,
    },
    /// Another type was expected.
    #[error("expected {expected}, found {found} at byte {at}")]
    Type {
        /// What the reader asked for.
        expected: &'static str,
        /// What the input holds.
        found: &'static str,
        /// Offset in the input.
        at: usize,
    },
    /// A msgpack marker that Dask never sends.
    #[error("unsupported msgpack marker 0x{marker:02x} at byte {at}")]
    Marker {
        /// The byte.
        marker: u8,
        /// Offset in the input.
        at: usize,
    },
    /// A text that is not UTF-8.
    #[error("text is not valid UTF-8, at byte {at}")]
    Utf8 {
        /// Offset in the input.
        at: usize,
    },
    /// Containers nested deeper than [`MAX_DEPTH`](super::msgpack::MAX_DEPTH).
    #[error("values are nested too deeply, at byte {at}")]
    TooDeep {
        /// Offset in the input.
        at: usize,
    },
    /// A field that the message must have.
    #[error("the message has no usable field {0:?}")]
    MissingField(&'static str),
    /// Bytes after the value.
    #[error("{bytes} unexpected bytes after the value")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A Dask key of a type that cannot be a key.
    #[error("a key must be a str, an int, a float or a tuple of these; found {found}")]
    KeyType {
        /// What was found instead.
        found: &'static str,
    },
    /// A Dask key above [`MAX_KEY_BYTES`](super::key::MAX_KEY_BYTES).
    #[error("a key of {bytes} bytes is longer than a key may be")]
    KeyTooLong {
        /// Its length in msgpack.
        bytes: usize,
    },
    /// A placeholder that names frames the message does not have.
    #[error("the message refers to frame {frame}, but has {frames} frames")]
    MissingFrame {
        /// The frame that was referred to.
        frame: u64,
        /// How many frames there are.
        frames: usize,
    },
    /// The placeholders together refer to more frames than there are: the same payload is used twice.
    #[error("the message refers to its frames more than once")]
    RepeatedFrames,
    /// A payload whose sub-header is not understood.
    #[error("payload sub-header: {0}")]
    PayloadHeader(&'static str),
    /// A frame that cannot be decompressed.
    #[error("cannot decompress a frame ({name}): {reason}")]
    Decompress {
        /// The compression's name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A message without frames.
    #[error("the message has no head frame")]
    NoHead,
}
