//! What clients share through the scheduler besides tasks: queues, variables, events, locks, semaphores, datasets.
//!
//! Each kind is a plain state machine: a request is answered at once, or its ticket waits in line; changes tell which
//! tickets have waited long enough ([`Out`]). The shell around them ([`Ext`]) lets requests wait on the I/O runtime,
//! with timeouts, and withdraws those whose connection has gone.
//!
//! * [`queues`], [`variables`], [`events`], [`multi_locks`], [`semaphores`], [`publish`]: the state machines
//! * [`requests`]: the operations of requests; [`stream`]: those of client streams
//! * [`core_access`]: what they need of the scheduler's core

mod args;
pub mod core_access;
mod error;
pub mod events;
pub mod multi_locks;
pub mod publish;
pub mod queues;
pub mod record;
mod requests;
pub mod semaphores;
mod stream;
#[cfg(test)]
mod tests;
pub mod variables;
mod waiting;
mod wakes;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

pub use core_access::{CoreAccess, CoreNow, Effect, TaskError, TaskView};
pub use error::{ExtError, RpcError};
pub use requests::handle;
pub use semaphores::SemaphoreMetrics;
pub use stream::handle_stream;
pub use wakes::{Out, Ticket};

use crate::protocol::Str;

/// The state of all extensions. Shared by the I/O runtime and the core thread; locks are held for moments only.
pub struct Ext {
    state: Mutex<State>,
    tickets: AtomicU64,
    started: Instant,
    /// Makes tokens unlike those of any other scheduler.
    token_prefix: u64,
}

#[derive(Default)]
struct State {
    queues: queues::Queues,
    variables: variables::Variables,
    events: events::Events,
    multi_locks: multi_locks::MultiLocks,
    semaphores: semaphores::Semaphores,
    datasets: publish::Datasets,
    /// Requests that wait, to be woken.
    waiting: FxHashMap<Ticket, oneshot::Sender<()>>,
}

impl Default for Ext {
    fn default() -> Ext {
        Ext::new()
    }
}

impl Ext {
    /// Nothing shared yet.
    pub fn new() -> Ext {
        Ext {
            state: Mutex::default(),
            tickets: AtomicU64::new(0),
            started: Instant::now(),
            token_prefix: RandomState::new().hash_one(std::process::id()),
        }
    }

    /// A client has gone (its stream ended): what it had been given and not confirmed counts as lost.
    pub fn client_removed(&self, core: &mut impl CoreNow, client: &str) {
        self.change(
            |effects| core.queue(effects),
            |state, out| {
                state.variables.client_removed(client, out);
                state.datasets.client_removed(client, out);
            },
        );
    }

    /// Drops semaphore leases that nobody refreshes; to be called every `lease-validation-interval`.
    pub fn expire_leases(&self) {
        let now = self.now();
        let (n_expired, _) = self.change(drop, |state, out| state.semaphores.expire(now, out));
        if n_expired > 0 {
            tracing::info!(
                n_expired,
                "semaphore or lock leases expired: their holders have not refreshed them in time"
            );
        }
    }

    /// Calls [`Ext::expire_leases`] for ever.
    pub async fn expire_leases_every(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.expire_leases();
        }
    }

    /// The figures of all semaphores and locks.
    pub fn semaphore_metrics(&self) -> Vec<SemaphoreMetrics> {
        self.read(|state| state.semaphores.metrics())
    }

    fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state, wakes who has waited for that, and passes the effects to `sink`: under the lock, so that two
    /// changes cannot swap theirs.
    fn change<R, A>(
        &self,
        sink: impl FnOnce(Vec<Effect>) -> A,
        f: impl FnOnce(&mut State, &mut Out) -> R,
    ) -> (R, Option<A>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Out::default();
        let result = f(&mut state, &mut out);
        for ticket in out.wakes {
            if let Some(waiter) = state.waiting.remove(&ticket) {
                // An error means that the request has just gone; its guard withdraws it.
                let _ = waiter.send(());
            }
        }
        let passed = (!out.effects.is_empty()).then(|| sink(out.effects));
        (result, passed)
    }

    /// Changes the state on behalf of a request, and waits until the core has applied the effects.
    async fn request<R>(
        &self,
        core: &impl CoreAccess,
        f: impl FnOnce(&mut State, &mut Out) -> R,
    ) -> R {
        let (result, applied) = self.change(|effects| core.apply(effects), f);
        if let Some(applied) = applied {
            // An error means that the core is shutting down.
            let _ = applied.await;
        }
        result
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    fn token(&self) -> Str {
        format!("{:016x}{:016x}", self.token_prefix, self.ticket().0).into()
    }

    /// Seconds of a steady clock.
    fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
