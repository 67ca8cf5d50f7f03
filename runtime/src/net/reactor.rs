//! The core thread: one epoll loop over the streams of workers and clients.
//!
//! All ready sockets are handled first, then every peer that has something to be written is flushed once. So an idle
//! scheduler answers at once, and a busy one writes many messages at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::core::{Commands, Core, CoreHandle, Services};
use super::messages;
use super::stream::{Position, Stream};
use crate::protocol::Limits;
use crate::scheduler::State;

const WAKER: Token = Token(usize::MAX);
/// Commands handled between two looks at the sockets.
const COMMANDS_A_TURN: usize = 1024;

/// A core thread that has not started yet.
pub struct Reactor {
    poll: Poll,
    commands: Commands,
}

impl Reactor {
    /// Makes the loop and its handle.
    ///
    /// # Errors
    /// If the kernel refuses an epoll instance.
    pub fn new() -> io::Result<(Self, CoreHandle)> {
        let poll = Poll::new()?;
        let (handle, commands) = CoreHandle::new(mio::Waker::new(poll.registry(), WAKER)?);
        Ok((Self { poll, commands }, handle))
    }

    /// Runs until the scheduler is stopped.
    ///
    /// # Errors
    /// If the kernel's event queue fails.
    pub fn run(
        mut self,
        state: State,
        handle: CoreHandle,
        services: Arc<dyn Services>,
        limits: Limits,
        client_buffer_limit: usize,
    ) -> io::Result<()> {
        let mut core = Core::new(state, handle, services, limits, client_buffer_limit);
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0u8; 256 << 10];
        let mut next_wake: Option<f64> = None;
        core.tick();
        core.state.start_timers();
        loop {
            let timeout = if core.read_again.is_empty() {
                next_wake
                    .map(|t| Duration::from_secs_f64((t - core.state.clock.mono).clamp(0.0, 60.0)))
            } else {
                Some(Duration::ZERO)
            };
            match self.poll.poll(&mut events, timeout) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            core.tick();
            let again = std::mem::take(&mut core.read_again);
            for event in &events {
                let Token(token) = event.token();
                if event.token() == WAKER {
                    continue;
                }
                if event.is_writable() {
                    unblock(&mut core, token);
                }
                if event.is_readable() || event.is_error() || event.is_read_closed() {
                    read(&mut core, token, &mut scratch);
                }
            }
            for token in again {
                read(&mut core, token, &mut scratch);
            }
            let more = self.run_commands(&mut core);
            let timer = core.state.run_timers();
            self.finish_turn(&mut core)?;
            if let Some(reason) = core.state.take_shutdown_request() {
                core.services.shutdown(&reason);
            }
            let stale = core.state.take_stale_workers();
            if !stale.is_empty() {
                let address = |w| core.state.worker(w).info.address.to_string();
                let stale = stale.into_iter().map(address).collect();
                core.services.stale_workers(stale);
            }
            let held = core.flush_held();
            next_wake = [Some(timer), held, more.then_some(0.0)]
                .into_iter()
                .flatten()
                .min_by(f64::total_cmp);
            self.drop_ended(&mut core)?;
            core.end_turn();
            if core.stopping && core.streams.iter().flatten().all(|s| s.pending_bytes == 0) {
                return Ok(());
            }
        }
    }

    /// Runs commands of other threads; true if there may be more.
    fn run_commands(&self, core: &mut Core) -> bool {
        for _ in 0..COMMANDS_A_TURN {
            match self.commands.next() {
                Ok(Some(command)) => command(core),
                Ok(None) => return false,
                Err(_) => {
                    core.stop();
                    return false;
                }
            }
        }
        true
    }

    fn finish_turn(&self, core: &mut Core) -> io::Result<()> {
        core.dispatch_out();
        for token in std::mem::take(&mut core.new_streams) {
            if let Some(stream) = &mut core.streams[token] {
                self.poll.registry().register(
                    &mut stream.socket,
                    Token(token),
                    Interest::READABLE | Interest::WRITABLE,
                )?;
            }
        }
        core.flush_dirty();
        Ok(())
    }

    fn drop_ended(&mut self, core: &mut Core) -> io::Result<()> {
        while !core.dropped.is_empty() {
            for mut stream in core.reap() {
                // A stream that was never registered (it ended within one turn) is unknown to the kernel's queue.
                let _ = self.poll.registry().deregister(&mut stream.socket);
            }
            self.finish_turn(core)?;
        }
        Ok(())
    }
}

/// The kernel takes more bytes.
fn unblock(core: &mut Core, token: usize) {
    if let Some(Some(stream)) = core.streams.get_mut(token)
        && stream.blocked_write
    {
        stream.blocked_write = false;
        core.flush_stream(token);
    }
}

/// Reads what is there and handles the whole messages in it.
fn read(core: &mut Core, token: usize, scratch: &mut [u8]) {
    let Some(Some(stream)) = core.streams.get_mut(token) else {
        return;
    };
    // While a graph is made nothing more is read: the client has to wait.
    if stream.waiting_for_graph {
        stream.read_again = true;
        return;
    }
    let open = match stream.fill(scratch) {
        Ok(open) => open,
        Err(e) => {
            tracing::debug!(peer = ?stream.peer, error = %e, "read failed");
            false
        }
    };
    if stream.read_again {
        core.read_again.push(token);
    }
    handle_buffered(core, token);
    if !open {
        core.dropped.push(token);
    }
}

/// Handles whole messages that were read.
pub(super) fn handle_buffered(core: &mut Core, token: usize) {
    loop {
        let Some(Some(stream)) = core.streams.get_mut(token) else {
            return;
        };
        let stream: &mut Stream = stream;
        if stream.waiting_for_graph {
            return;
        }
        let (message, at) = match stream.backlog.pop_front() {
            Some(entry) => entry,
            None => match stream.next_message() {
                Ok(Some(message)) => (message, Position::default()),
                Ok(None) => return,
                Err(e) => {
                    tracing::warn!(peer = ?stream.peer, error = %e, "closing a stream that cannot be read");
                    core.dropped.push(token);
                    return;
                }
            },
        };
        let peer = stream.peer;
        match messages::handle(core, token, peer, &message, at) {
            messages::Next::Done => {}
            messages::Next::Resume(position) => {
                if let Some(Some(stream)) = core.streams.get_mut(token) {
                    stream.backlog.push_front((message, position));
                }
                return;
            }
            messages::Next::Close => {
                core.dropped.push(token);
                return;
            }
        }
    }
}

impl Core {
    /// The graph of a client has been dealt with: its later messages go on.
    pub fn graph_done(&mut self, client: crate::scheduler::ClientId) {
        if let Some(token) = self.by_client.get(&client).copied() {
            if let Some(stream) = &mut self.streams[token] {
                stream.waiting_for_graph = false;
            }
            handle_buffered(self, token);
            self.read_again.push(token);
        }
    }
}
