//! The scheduler's state with its streams, and the handle by which other threads reach it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::protocol::{FrameDecoder, Limits, Value};
use crate::scheduler::{ClientId, Clock, Out, State, WorkerId};

use super::encode;
use super::stream::{Detached, Peer, Stream};
use super::turns::Turns;

/// A message for the core thread.
pub(super) type Command = Box<dyn FnOnce(&mut Core) + Send>;

/// What the core thread asks of the rest of the process.
pub trait Services: Send + Sync {
    /// A client sent a graph: make its tasks, then post the result back by [`CoreHandle`].
    fn materialize(&self, client: ClientId, message: Value);
    /// A client or worker sent a stream message that belongs to an extension; false if it is none's.
    fn extension(&self, core: &mut Core, op: &str, peer: &str, message: &Value) -> bool;
    /// A client is gone.
    fn client_removed(&self, core: &mut Core, name: &str);
    /// The set of workers changed: (address, joined).
    fn worker_changed(&self, address: &str, joined: bool);
    /// These workers have sent no heartbeat for too long.
    fn stale_workers(&self, addresses: Vec<String>);
    /// The scheduler should end.
    fn shutdown(&self, reason: &str);
}

/// The state and everything the core thread owns.
pub struct Core {
    /// The scheduler's state.
    pub state: State,
    /// Free-form metadata set by clients.
    pub metadata: Value,
    pub(super) streams: Vec<Option<Stream>>,
    pub(super) free: Vec<usize>,
    pub(super) by_worker: HashMap<WorkerId, usize>,
    pub(super) by_client: HashMap<ClientId, usize>,
    pub(super) dirty: Vec<usize>,
    pub(super) read_again: Vec<usize>,
    pub(super) held: Vec<usize>,
    pub(super) new_streams: Vec<usize>,
    pub(super) dropped: Vec<usize>,
    pub(super) services: Arc<dyn Services>,
    pub(super) handle: CoreHandle,
    pub(super) limits: Limits,
    /// Bytes a client may leave unread before it is cut off.
    pub client_buffer_limit: usize,
    /// The core thread ends once set and flushed.
    pub(super) stopping: bool,
    /// How long its turns take.
    pub turns: Turns,
    started: Instant,
    outbox: Vec<Out>,
}

/// Messages to one client within [`COALESCE_S`] above which further ones wait for each other.
const COALESCE_FROM: u32 = 16;
/// How long they wait, s. The stock client spends 10 times as much on many small messages as on one large.
const COALESCE_S: f64 = 0.002;

impl Core {
    pub(super) fn new(
        state: State,
        handle: CoreHandle,
        services: Arc<dyn Services>,
        limits: Limits,
        client_buffer_limit: usize,
    ) -> Self {
        Self {
            state,
            metadata: Value::Map(Vec::new()),
            streams: Vec::new(),
            free: Vec::new(),
            by_worker: HashMap::new(),
            by_client: HashMap::new(),
            dirty: Vec::new(),
            read_again: Vec::new(),
            held: Vec::new(),
            new_streams: Vec::new(),
            dropped: Vec::new(),
            services,
            handle,
            limits,
            client_buffer_limit,
            stopping: false,
            turns: Turns::default(),
            started: Instant::now(),
            outbox: Vec::new(),
        }
    }

    /// Reads the clocks; called before each batch of events.
    pub(super) fn tick(&mut self) {
        self.state.clock = Clock {
            wall: wall_time(),
            mono: self.started.elapsed().as_secs_f64(),
        };
    }

    /// Notes how long the turn took; called at its end.
    pub(super) fn end_turn(&mut self) {
        let now = self.started.elapsed().as_secs_f64();
        self.turns.note(now, now - self.state.clock.mono);
    }

    /// Takes over a registered stream.
    pub fn adopt(&mut self, detached: Detached, peer: Registered) {
        self.dispatch_out();
        let peer = match peer {
            Registered::Worker(id) => Peer::Worker(id),
            Registered::Client(id) => Peer::Client(id),
        };
        let stream = Stream::new(detached, peer, FrameDecoder::new(self.limits));
        let token = match self.free.pop() {
            Some(t) => {
                self.streams[t] = Some(stream);
                t
            }
            None => {
                self.streams.push(Some(stream));
                self.streams.len() - 1
            }
        };
        match peer {
            Peer::Worker(id) => {
                self.by_worker.insert(id, token);
                let address = self.state.worker(id).info.address.clone();
                self.services.worker_changed(&address, true);
            }
            Peer::Client(id) => {
                self.by_client.insert(id, token);
            }
        }
        self.new_streams.push(token);
        self.read_again.push(token);
    }

    /// Writes a value as a batch of its own on a client's stream, before anything else.
    pub fn send_first(&mut self, client: ClientId, value: &Value) {
        if let Some(token) = self.by_client.get(&client).copied()
            && let Some(stream) = &mut self.streams[token]
        {
            stream.writer.begin();
            stream.writer.value(value);
            stream.seal();
            self.mark_dirty(token);
        }
    }

    fn mark_dirty(&mut self, token: usize) {
        if let Some(stream) = &mut self.streams[token]
            && !std::mem::replace(&mut stream.dirty, true)
        {
            self.dirty.push(token);
        }
    }

    /// Moves the state's outgoing messages to the streams.
    pub(super) fn dispatch_out(&mut self) {
        if self.state.out.is_empty() {
            return;
        }
        let mut outbox = std::mem::replace(&mut self.state.out, std::mem::take(&mut self.outbox));
        for out in outbox.drain(..) {
            match out {
                Out::Worker(id, msg) => {
                    let Some(token) = self.by_worker.get(&id).copied() else {
                        continue;
                    };
                    if let Some(stream) = &mut self.streams[token] {
                        encode::worker_message(&mut stream.writer, &self.state, id, &msg);
                    }
                    self.mark_dirty(token);
                }
                Out::Client(id, msg) => {
                    let Some(token) = self.by_client.get(&id).copied() else {
                        continue;
                    };
                    if let Some(stream) = &mut self.streams[token] {
                        encode::client_message(&mut stream.writer, &msg);
                        stream.recent_messages += 1;
                    }
                    self.mark_dirty(token);
                }
                Out::DropWorker(id) => {
                    let address = self.state.worker(id).info.address.clone();
                    self.services.worker_changed(&address, false);
                    let Some(token) = self.by_worker.remove(&id) else {
                        continue;
                    };
                    if let Some(stream) = &mut self.streams[token] {
                        stream.close_after_flush = true;
                    }
                    self.mark_dirty(token);
                }
            }
        }
        if outbox.capacity() > 1 << 16 {
            outbox = Vec::new();
        }
        self.outbox = outbox;
    }

    /// Writes what is to be written: at once where the peer was idle, together where much is going on.
    pub(super) fn flush_dirty(&mut self) {
        let now = self.state.clock.mono;
        let mut tokens = std::mem::take(&mut self.dirty);
        for token in tokens.drain(..) {
            let Some(stream) = &mut self.streams[token] else {
                continue;
            };
            stream.dirty = false;
            if matches!(stream.peer, Peer::Client(_)) && !stream.close_after_flush {
                if now - stream.window_start >= COALESCE_S {
                    stream.next_window(now, COALESCE_FROM, COALESCE_S);
                } else if stream.busy || stream.recent_messages > COALESCE_FROM {
                    if stream.hold_until.is_none() {
                        stream.hold_until = Some(stream.window_start + COALESCE_S);
                        self.held.push(token);
                    }
                    continue;
                }
            }
            self.flush_stream(token);
        }
        self.dirty = tokens;
    }

    /// Writes to streams whose waiting time is over; the time of the next one.
    pub(super) fn flush_held(&mut self) -> Option<f64> {
        let now = self.state.clock.mono;
        let mut next: Option<f64> = None;
        for token in std::mem::take(&mut self.held) {
            let Some(stream) = &mut self.streams[token] else {
                continue;
            };
            match stream.hold_until {
                Some(t) if t > now => {
                    next = Some(next.map_or(t, |n| n.min(t)));
                    self.held.push(token);
                }
                Some(_) => {
                    stream.hold_until = None;
                    stream.next_window(now, COALESCE_FROM, COALESCE_S);
                    self.flush_stream(token);
                }
                None => {}
            }
        }
        next
    }

    pub(super) fn flush_stream(&mut self, token: usize) {
        let now = self.state.clock.mono;
        let limit = self.client_buffer_limit;
        let Some(stream) = &mut self.streams[token] else {
            return;
        };
        if stream.blocked_write {
            stream.seal();
        } else if let Err(e) = stream.flush(now) {
            tracing::debug!(peer = ?stream.peer, error = %e, "write failed");
            self.dropped.push(token);
            return;
        }
        if stream.pending_bytes > limit {
            tracing::warn!(
                peer = ?stream.peer,
                unread_bytes = stream.pending_bytes,
                "closing a connection whose peer does not read its messages (oxidask.scheduler.client-buffer-limit)"
            );
            self.dropped.push(token);
        } else if stream.close_after_flush && stream.pending_bytes == 0 {
            self.dropped.push(token);
        }
    }

    /// Removes streams that ended, and the workers and clients behind them.
    pub(super) fn reap(&mut self) -> Vec<Stream> {
        let mut gone = Vec::new();
        while let Some(token) = self.dropped.pop() {
            let Some(stream) = self.streams[token].take() else {
                continue;
            };
            self.free.push(token);
            match stream.peer {
                Peer::Worker(id) => {
                    if self.by_worker.get(&id) == Some(&token) {
                        self.by_worker.remove(&id);
                        self.state.remove_worker(id, false, true);
                    }
                }
                Peer::Client(id) => {
                    if self.by_client.get(&id) == Some(&token) {
                        self.by_client.remove(&id);
                        let name = self.state.client(id).name.clone();
                        tracing::info!(client = %name, "Remove client");
                        self.state.remove_client(id);
                        let services = self.services.clone();
                        services.client_removed(self, &name);
                    }
                }
            }
            gone.push(stream);
            self.dispatch_out();
        }
        gone
    }

    /// Closes the connection of a client and forgets it.
    pub fn drop_client(&mut self, id: ClientId) {
        match self.by_client.get(&id).copied() {
            Some(token) => {
                self.by_client.remove(&id);
                self.dropped.push(token);
                let name = self.state.client(id).name.clone();
                self.state.remove_client(id);
                let services = self.services.clone();
                services.client_removed(self, &name);
            }
            None => self.state.remove_client(id),
        }
    }

    /// Ends the core thread after what was sent so far is written.
    pub fn stop(&mut self) {
        self.stopping = true;
    }
}

/// Whose stream is adopted.
#[derive(Clone, Copy, Debug)]
pub enum Registered {
    /// A registered worker.
    Worker(WorkerId),
    /// A registered client.
    Client(ClientId),
}

/// Seconds since the epoch.
pub fn wall_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

/// Reaches the core thread from anywhere.
#[derive(Clone)]
pub struct CoreHandle {
    sender: Sender<Command>,
    waker: Arc<mio::Waker>,
}

/// The core thread has ended.
#[derive(Debug, thiserror::Error)]
#[error("the scheduler is closing")]
pub struct Closed;

impl CoreHandle {
    pub(super) fn new(waker: mio::Waker) -> (Self, Commands) {
        let (sender, receiver) = channel();
        (
            Self {
                sender,
                waker: Arc::new(waker),
            },
            Commands(receiver),
        )
    }

    /// Runs `f` on the core thread; what it sends is flushed right after.
    pub fn post(&self, f: impl FnOnce(&mut Core) + Send + 'static) {
        if self.sender.send(Box::new(f)).is_ok()
            && let Err(e) = self.waker.wake()
        {
            tracing::error!(error = %e, "cannot wake the core thread");
        }
    }

    /// Runs `f` on the core thread and gives back what it returns.
    ///
    /// # Errors
    /// If the scheduler is closing.
    pub async fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Core) -> R + Send + 'static,
    ) -> Result<R, Closed> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.post(move |core| {
            let _ = tx.send(f(core));
        });
        rx.await.map_err(|_| Closed)
    }
}

/// The receiving end of [`CoreHandle`].
pub(super) struct Commands(Receiver<Command>);

impl Commands {
    pub(super) fn next(&self) -> Result<Option<Command>, Closed> {
        match self.0.try_recv() {
            Ok(c) => Ok(Some(c)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Closed),
        }
    }
}
