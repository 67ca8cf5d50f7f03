//! Framing: the length prefix of messages, and the decoder that cuts a byte stream into them.

use super::{FrameError, Message};
use bytes::{Bytes, BytesMut};

/// Frames below this size are copied into one chunk when sent; others are handed to the socket as they are.
pub(crate) const SMALL_FRAME: usize = 64 * 1024;

/// What a connection's read buffer offers at least.
const READ_CHUNK: usize = 64 * 1024;
/// Room made for a peer that has only shaken hands or not even that: thousands may connect and say nothing.
const FIRST_CHUNK: usize = 1024;

/// A frame gets its whole allocation at once up to this size; a larger one grows by doubling as its bytes arrive, so
/// that an announced length alone never claims more.
const RESERVE_AT_ONCE: usize = 256 << 20;

/// Memory that this side accounts for one frame beside its bytes.
const FRAME_OVERHEAD: u64 = 48;

/// Bounds of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most frames of a message.
    pub max_frames: u64,
    /// Most bytes of all its frames, bookkeeping included.
    pub max_message_bytes: u64,
    /// Most bytes of its head. Decoding a head to values takes some times its size.
    pub max_head_bytes: u64,
}

impl Limits {
    /// Limits for a process that may use `memory_bytes`: half of it for one message, as the stock scheduler does.
    pub fn for_memory(memory_bytes: u64) -> Limits {
        let max_message_bytes = (memory_bytes / 2).max(64 << 20);
        Limits {
            max_frames: 16 << 20,
            max_message_bytes,
            max_head_bytes: (max_message_bytes / 8).clamp(16 << 20, 1 << 30),
        }
    }
}

impl Default for Limits {
    /// The limits of a process with 16 GiB.
    fn default() -> Self {
        Limits::for_memory(16 << 30)
    }
}

/// Appends the prelude of a message with frames of these lengths.
///
/// The length of the first read covers the frames up to the first large one, which joins only when what comes before
/// it is negligible. A stock receiver gives every frame after the first read an allocation of its own.
pub(crate) fn prelude(out: &mut Vec<u8>, lens: impl ExactSizeIterator<Item = usize> + Clone) {
    let count = lens.len();
    let table = 8 * (1 + count);
    let mut first_read = table;
    for len in lens.clone() {
        if len >= SMALL_FRAME {
            if first_read - table <= (len / 20).max(2048) {
                first_read += len;
            }
            break;
        }
        first_read += len;
    }
    out.extend_from_slice(&(first_read as u64).to_le_bytes());
    out.extend_from_slice(&(count as u64).to_le_bytes());
    for len in lens {
        out.extend_from_slice(&(len as u64).to_le_bytes());
    }
}

/// Cuts the byte stream of one connection into messages.
///
/// The caller reads the socket into [`FrameDecoder::read_buf`] and calls [`FrameDecoder::next`] until it returns
/// `None`. Frames are slices of the buffer they were read into; a large frame has a buffer of exactly its size.
#[derive(Debug)]
pub struct FrameDecoder {
    limits: Limits,
    buf: BytesMut,
    state: State,
    /// Whole messages seen, up to two: the handshake and what comes after it.
    messages: u8,
}

#[derive(Debug)]
enum State {
    /// Before a message: its two leading numbers.
    Prelude,
    /// Inside the table of lengths.
    Lengths { table: Table, count: u64 },
    /// Inside the frames.
    Frames { table: Table, frames: Vec<Bytes> },
}

#[derive(Debug, Default)]
struct Table {
    first_read: u64,
    lens: Vec<u64>,
    bytes: u64,
}

impl FrameDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        FrameDecoder {
            limits,
            buf: BytesMut::new(),
            state: State::Prelude,
            messages: 0,
        }
    }

    /// A decoder that goes on with bytes another decoder had not used.
    pub fn with_unread(limits: Limits, unread: BytesMut) -> Self {
        FrameDecoder {
            limits,
            buf: unread,
            state: State::Prelude,
            messages: 2,
        }
    }

    /// The buffer to append received bytes to; it has room for at least one byte, for the rest of a large frame, and,
    /// once the peer has sent more than its handshake, mostly for 64 KiB.
    pub fn read_buf(&mut self) -> &mut BytesMut {
        let missing = self.missing();
        let spare = self.buf.capacity() - self.buf.len();
        if missing > READ_CHUNK {
            if spare < missing {
                self.reserve_large(missing);
            }
        } else if self.messages < 2 {
            if spare < missing.max(1) {
                self.buf.reserve(missing.max(FIRST_CHUNK));
            }
        } else if spare < missing.max(READ_CHUNK / 8) {
            self.buf.reserve(READ_CHUNK);
        }
        &mut self.buf
    }

    /// The next whole message, or `None` when more bytes are needed. After an error the stream is lost.
    #[allow(clippy::should_implement_trait)] // not an iterator: `None` is followed by more once bytes arrive
    pub fn next(&mut self) -> Result<Option<Message>, FrameError> {
        loop {
            match std::mem::replace(&mut self.state, State::Prelude) {
                State::Prelude => {
                    let Some((first_read, count)) = self.leading_numbers()? else {
                        return Ok(None);
                    };
                    let lens = Vec::with_capacity(count.min(1024) as usize);
                    self.state = State::Lengths {
                        table: Table {
                            first_read,
                            lens,
                            bytes: 0,
                        },
                        count,
                    };
                }
                State::Lengths { mut table, count } => {
                    if self.read_lengths(&mut table, count)? {
                        let frames = Vec::with_capacity(table.lens.len());
                        self.state = State::Frames { table, frames };
                    } else {
                        self.state = State::Lengths { table, count };
                        return Ok(None);
                    }
                }
                State::Frames { table, mut frames } => {
                    if self.read_frames(&table, &mut frames) {
                        self.messages = self.messages.saturating_add(1).min(2);
                        return Ok(Some(Message { frames }));
                    }
                    self.state = State::Frames { table, frames };
                    return Ok(None);
                }
            }
        }
    }

    /// Whether the stream stands between two messages: a peer that closes here has not cut one off.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Prelude) && self.buf.is_empty()
    }

    /// Gives back all bytes after the last whole message, for a connection that changes hands.
    pub fn into_unread(self) -> BytesMut {
        let (table, count, frames) = match self.state {
            State::Prelude => return self.buf,
            State::Lengths { table, count } => (table, count, Vec::new()),
            State::Frames { table, frames } => {
                let count = table.lens.len() as u64;
                (table, count, frames)
            }
        };
        // Inside a message: what was already taken of it comes first again.
        let mut unread = BytesMut::new();
        let numbers = [table.first_read, count];
        for number in numbers.iter().chain(&table.lens) {
            unread.extend_from_slice(&number.to_le_bytes());
        }
        frames
            .iter()
            .for_each(|frame| unread.extend_from_slice(frame));
        unread.extend_from_slice(&self.buf);
        unread
    }

    fn leading_numbers(&mut self) -> Result<Option<(u64, u64)>, FrameError> {
        let Some(leading) = self.buf.first_chunk::<16>() else {
            return Ok(None);
        };
        let (a, b) = leading.split_at(8);
        let (first_read, frames) = (u64_le(a), u64_le(b));
        let limits = &self.limits;
        if frames == 0 {
            return Err(FrameError::NoFrames);
        }
        if frames > limits.max_frames {
            return Err(FrameError::TooManyFrames {
                frames,
                limit: limits.max_frames,
            });
        }
        let table = (frames + 1).saturating_mul(8);
        if first_read < table {
            return Err(FrameError::FirstRead { first_read, frames });
        }
        check_size(first_read - table, frames, limits)?;
        let _ = self.buf.split_to(16);
        Ok(Some((first_read, frames)))
    }

    /// Takes the lengths that have arrived; tells whether all have.
    fn read_lengths(&mut self, table: &mut Table, count: u64) -> Result<bool, FrameError> {
        let open = (count - table.lens.len() as u64) as usize;
        let take = open.min(self.buf.len() / 8);
        let lengths = self.buf.split_to(take * 8);
        for chunk in lengths.chunks_exact(8) {
            let len = u64_le(chunk);
            if table.lens.is_empty() && len > self.limits.max_head_bytes {
                return Err(FrameError::HeadTooLarge {
                    bytes: len,
                    limit: self.limits.max_head_bytes,
                });
            }
            table.lens.push(len);
            table.bytes = table.bytes.saturating_add(len);
            check_size(table.bytes, count, &self.limits)?;
        }
        if take < open {
            return Ok(false);
        }
        if table.first_read - 8 * (1 + count) > table.bytes {
            return Err(FrameError::FirstRead {
                first_read: table.first_read,
                frames: count,
            });
        }
        Ok(true)
    }

    /// Takes the frames that have arrived; tells whether all have.
    fn read_frames(&mut self, table: &Table, frames: &mut Vec<Bytes>) -> bool {
        for &len in &table.lens[frames.len()..] {
            let len = len as usize;
            if self.buf.len() < len {
                return false;
            }
            frames.push(self.buf.split_to(len).freeze());
            if len > READ_CHUNK {
                // What follows a large frame must not keep that frame's memory alive.
                self.buf = BytesMut::from(&self.buf[..]);
            }
        }
        true
    }

    /// How many bytes the current item still needs.
    fn missing(&self) -> usize {
        let needed = match &self.state {
            State::Prelude => 16,
            State::Lengths { table, count } => {
                ((count - table.lens.len() as u64) as usize * 8).min(READ_CHUNK)
            }
            State::Frames { table, frames } => {
                table.lens.get(frames.len()).map_or(0, |&len| len as usize)
            }
        };
        needed.saturating_sub(self.buf.len()).max(1)
    }

    fn reserve_large(&mut self, missing: usize) {
        let len = self.buf.len();
        let extra = missing.min(len.max(RESERVE_AT_ONCE));
        if len <= READ_CHUNK {
            let mut exact = BytesMut::with_capacity(len + extra);
            exact.extend_from_slice(&self.buf);
            self.buf = exact;
        } else {
            self.buf.reserve(extra);
        }
    }
}

fn check_size(bytes: u64, frames: u64, limits: &Limits) -> Result<(), FrameError> {
    let accounted = bytes.saturating_add(frames.saturating_mul(FRAME_OVERHEAD));
    if accounted > limits.max_message_bytes {
        return Err(FrameError::TooLarge {
            bytes: accounted,
            limit: limits.max_message_bytes,
        });
    }
    Ok(())
}

fn u64_le(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}
