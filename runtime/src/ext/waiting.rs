//! Requests that wait.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::core_access::CoreAccess;
use super::wakes::{Out, Ticket};
use super::{Ext, State};

/// When a request stops to wait; `None` for never.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// So much time from now on.
    pub fn after(timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// Whether it has passed.
    pub fn expired(self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }
}

/// Does something when it is dropped, unless disarmed: the request's future may be dropped at any await.
pub struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    /// Armed.
    pub fn new(f: F) -> OnDrop<F> {
        OnDrop(Some(f))
    }

    /// Nothing to be done any more.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

impl Ext {
    /// Waits until the result of a waiting request is there: `None` if the deadline passed first. The request is
    /// withdrawn then, and also when the returned future is dropped.
    pub(super) async fn wait<R>(
        &self,
        core: &impl CoreAccess,
        ticket: Ticket,
        deadline: Deadline,
        collect: impl Fn(&mut State) -> Option<R>,
        withdraw: impl Fn(&mut State, &mut Out),
    ) -> Option<R> {
        let guard = OnDrop::new(|| {
            self.change(
                |effects| core.apply(effects),
                |state, out| {
                    state.waiting.remove(&ticket);
                    withdraw(state, out);
                },
            );
        });
        // The result may have come between asking and waiting.
        let (sender, woken) = oneshot::channel();
        let (early, _) = self.change(drop, |state, _| {
            let early = collect(state);
            if early.is_none() {
                state.waiting.insert(ticket, sender);
            }
            early
        });
        let result = match early {
            Some(result) => Some(result),
            None => {
                match deadline.0 {
                    // Woken or timed out: what counts is whether the result is there.
                    Some(at) => drop(tokio::time::timeout_at(at, woken).await),
                    None => drop(woken.await),
                }
                self.change(drop, |state, _| collect(state)).0
            }
        };
        if result.is_some() {
            guard.disarm();
        }
        result
    }
}
