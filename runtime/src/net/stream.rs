//! One batched stream on the core thread: a socket, what was read and not handled, what is to be written.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use mio::net::TcpStream;
use rustls::ServerConnection;

use crate::protocol::{BatchWriter, FrameDecoder, FrameError, Message};
use crate::scheduler::{ClientId, WorkerId};

/// Bytes read from one stream before others get their turn.
const READ_TURN: usize = 1 << 20;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Worker(WorkerId),
    Client(ClientId),
}

/// Where the handling of a batch stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    /// Offset into the head frame; 0: not begun.
    pub(super) offset: usize,
    /// Messages left.
    pub(super) remaining: usize,
}

/// A stream that was registered on the io side and is handed to the core thread.
pub struct Detached {
    /// The socket, non-blocking.
    pub socket: std::net::TcpStream,
    /// The TLS session, if any.
    pub tls: Option<Box<ServerConnection>>,
    /// Bytes read (and decrypted) after the registration message.
    pub unread: BytesMut,
}

pub(super) struct Stream {
    pub(super) socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    pub(super) peer: Peer,
    pub(super) decoder: FrameDecoder,
    pub(super) writer: BatchWriter,
    pending: VecDeque<Bytes>,
    pub(super) pending_bytes: usize,
    /// The kernel took all it could; wait for a writable event.
    pub(super) blocked_write: bool,
    /// Messages read but not handled yet, because a graph before them is still being made.
    pub(super) backlog: VecDeque<(Message, Position)>,
    /// A graph of this client is being made; later messages wait.
    pub(super) waiting_for_graph: bool,
    /// More may be readable without a new event.
    pub(super) read_again: bool,
    pub(super) dirty: bool,
    /// Close once everything is written.
    pub(super) close_after_flush: bool,
    /// Monotonic time of the last write that made progress, or of the first byte that could not be written.
    pub(super) stuck_since: Option<f64>,
    /// Start of the window in which messages are counted (monotonic), and their number so far.
    pub(super) window_start: f64,
    pub(super) recent_messages: u32,
    /// The window before was full: messages wait for the end of theirs.
    pub(super) busy: bool,
    /// Flush not before this monotonic time.
    pub(super) hold_until: Option<f64>,
}

impl Stream {
    pub(super) fn new(detached: Detached, peer: Peer, mut decoder: FrameDecoder) -> Self {
        decoder.read_buf().extend_from_slice(&detached.unread);
        Self {
            socket: TcpStream::from_std(detached.socket),
            tls: detached.tls,
            peer,
            decoder,
            writer: BatchWriter::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            blocked_write: false,
            backlog: VecDeque::new(),
            waiting_for_graph: false,
            read_again: true,
            dirty: false,
            close_after_flush: false,
            stuck_since: None,
            window_start: 0.0,
            recent_messages: 0,
            busy: false,
            hold_until: None,
        }
    }

    /// Reads what is there, up to one turn. `Ok(false)`: end of stream.
    /// `scratch` is where the kernel writes to; messages are cut from a copy, so that small reads stay small.
    pub(super) fn fill(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        self.read_again = false;
        let mut total = 0;
        loop {
            let n = match &mut self.tls {
                None => self.socket.read(scratch),
                Some(tls) => read_tls(&mut self.socket, tls, scratch),
            };
            match n {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.decoder.read_buf().extend_from_slice(&scratch[..n]);
                    if n < scratch.len() && self.tls.is_none() {
                        // The kernel had no more; a new event will tell when it has.
                        return Ok(true);
                    }
                    total += n;
                    if total >= READ_TURN {
                        self.read_again = true;
                        return Ok(true);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Begins a new window of `length_s` for coalescing; the one that ends was full from `full` messages on.
    pub(super) fn next_window(&mut self, now: f64, full: u32, length_s: f64) {
        self.busy = self.recent_messages > full && now - self.window_start < 4.0 * length_s;
        self.window_start = now;
        self.recent_messages = 0;
    }

    /// The next whole message.
    pub(super) fn next_message(&mut self) -> Result<Option<Message>, FrameError> {
        self.decoder.next()
    }

    /// Moves the batch to the bytes to be written.
    pub(super) fn seal(&mut self) {
        if !self.writer.is_empty() {
            for chunk in self.writer.finish() {
                self.pending_bytes += chunk.len();
                self.pending.push_back(chunk);
            }
        }
    }

    /// Writes as much as the kernel takes.
    pub(super) fn flush(&mut self, now: f64) -> io::Result<()> {
        self.seal();
        self.blocked_write = false;
        loop {
            if self.pending.is_empty() && !self.tls_wants_write() {
                self.stuck_since = None;
                return Ok(());
            }
            let result = match &mut self.tls {
                None => write_plain(&mut self.socket, &self.pending),
                Some(tls) => write_tls(
                    &mut self.socket,
                    tls,
                    &mut self.pending,
                    &mut self.pending_bytes,
                ),
            };
            match result {
                Ok(n) => {
                    if self.tls.is_none() {
                        self.advance(n);
                    }
                    self.stuck_since = None;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked_write = true;
                    self.stuck_since.get_or_insert(now);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn tls_wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|t| t.wants_write())
    }

    fn advance(&mut self, mut n: usize) {
        self.pending_bytes -= n;
        while let Some(front) = self.pending.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.pending.pop_front();
        }
    }
}

fn read_tls(
    socket: &mut TcpStream,
    tls: &mut ServerConnection,
    scratch: &mut [u8],
) -> io::Result<usize> {
    loop {
        match tls.reader().read(scratch) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        if tls.read_tls(socket)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    }
}

fn write_plain(socket: &mut TcpStream, pending: &VecDeque<Bytes>) -> io::Result<usize> {
    if let [one] = pending.iter().take(2).collect::<Vec<_>>().as_slice() {
        return socket.write(one);
    }
    let slices: Vec<IoSlice<'_>> = pending.iter().take(64).map(|b| IoSlice::new(b)).collect();
    socket.write_vectored(&slices)
}

fn write_tls(
    socket: &mut TcpStream,
    tls: &mut ServerConnection,
    pending: &mut VecDeque<Bytes>,
    pending_bytes: &mut usize,
) -> io::Result<usize> {
    // The session buffers a bounded amount (64 KiB by default): fill it, then push it out.
    while let Some(front) = pending.front_mut() {
        let n = tls.writer().write(front)?;
        if n == 0 {
            break;
        }
        *pending_bytes -= n;
        front.advance(n);
        if front.is_empty() {
            pending.pop_front();
        }
    }
    let mut total = 0;
    while tls.wants_write() {
        total += tls.write_tls(socket)?;
    }
    Ok(total)
}
