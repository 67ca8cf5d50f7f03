//! What changes in an extension's state set off.

use super::core_access::Effect;
use crate::protocol::Key;

/// A request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The consequences of a change: requests that need wait no longer, and changes of the core.
#[derive(Debug, Default, PartialEq)]
pub struct Out {
    /// Requests whose result is there to be collected.
    pub wakes: Vec<Ticket>,
    /// For the core, in this order.
    pub effects: Vec<Effect>,
}

impl Out {
    /// A request's result is there.
    pub fn wake(&mut self, ticket: Ticket) {
        self.wakes.push(ticket);
    }

    /// [`Effect::Desire`].
    pub fn desire(&mut self, keys: Vec<Key>, client: String) {
        self.effects.push(Effect::Desire { keys, client });
    }

    /// [`Effect::Release`], if there is something to release.
    pub fn release(&mut self, keys: Vec<Key>, client: String) {
        if !keys.is_empty() {
            self.effects.push(Effect::Release { keys, client });
        }
    }
}
