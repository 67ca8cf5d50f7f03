//! `Event`: a flag that many can wait for.

use rustc_hash::{FxHashMap, FxHashSet};

use super::wakes::{Out, Ticket};
use crate::protocol::Key;

/// All events. One that is neither set nor waited for is not kept.
#[derive(Debug, Default)]
pub struct Events {
    set: FxHashSet<Key>,
    waiting: FxHashMap<Key, Vec<Ticket>>,
    /// Waiting requests whose event has been set.
    ready: FxHashSet<Ticket>,
}

impl Events {
    /// Waits for an event; whether it is set already.
    pub fn wait(&mut self, name: &Key, ticket: Ticket) -> bool {
        let is_set = self.is_set(name);
        if !is_set {
            self.waiting.entry(name.clone()).or_default().push(ticket);
        }
        is_set
    }

    /// Whether the event of a waiting request has been set since.
    pub fn collect(&mut self, ticket: Ticket) -> Option<()> {
        self.ready.remove(&ticket).then_some(())
    }

    /// The request will not wait any longer.
    pub fn withdraw(&mut self, name: &Key, ticket: Ticket) {
        self.ready.remove(&ticket);
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.retain(|other| *other != ticket);
            if waiting.is_empty() {
                self.waiting.remove(name);
            }
        }
    }

    /// Sets an event: whoever waits, waits no longer, even if it is cleared at once.
    pub fn set(&mut self, name: Key, out: &mut Out) {
        for ticket in self.waiting.remove(&name).unwrap_or_default() {
            self.ready.insert(ticket);
            out.wake(ticket);
        }
        self.set.insert(name);
    }

    /// Clears an event.
    pub fn clear(&mut self, name: &Key) {
        self.set.remove(name);
    }

    /// Whether an event is set.
    pub fn is_set(&self, name: &Key) -> bool {
        self.set.contains(name)
    }
}
