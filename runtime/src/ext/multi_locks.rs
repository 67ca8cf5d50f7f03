//! `MultiLock`: some of several locks at once.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::ExtError;
use super::wakes::{Out, Ticket};
use crate::protocol::Key;

/// All locks: each has a line of those who want it, and belongs to the first of the line.
#[derive(Debug, Default)]
pub struct MultiLocks {
    lines: FxHashMap<Key, VecDeque<Key>>,
    requests: FxHashMap<Key, Request>,
    /// Waiting requests that have got what they need.
    ready: FxHashSet<Ticket>,
}

#[derive(Debug)]
struct Request {
    /// The locks in whose lines it stands.
    locks: FxHashSet<Key>,
    /// How many more of them it needs.
    left: usize,
    ticket: Ticket,
}

impl MultiLocks {
    /// Asks for `n_needed` of `locks` on behalf of `id`. Whether it has them at once; otherwise it stands in all lines.
    ///
    /// # Errors
    /// If `id` has asked already, or needs none, or more than it names.
    pub fn acquire(
        &mut self,
        mut locks: Vec<Key>,
        id: Key,
        n_needed: usize,
        ticket: Ticket,
    ) -> Result<bool, ExtError> {
        if self.requests.contains_key(&id) {
            return Err(ExtError::Assertion(format!(
                "{id} has asked for locks already"
            )));
        }
        let mut unique = FxHashSet::default();
        locks.retain(|lock| unique.insert(lock.clone()));
        if n_needed == 0 || n_needed > locks.len() {
            return Err(ExtError::Assertion(format!(
                "{n_needed} of {} locks asked for",
                locks.len()
            )));
        }
        locks.sort_by_key(|lock| self.lines.get(lock).map_or(0, VecDeque::len));
        let mut request = Request {
            locks: FxHashSet::default(),
            left: n_needed,
            ticket,
        };
        for lock in locks {
            let line = self.lines.entry(lock.clone()).or_default();
            line.push_back(id.clone());
            if line.len() == 1 {
                request.left -= 1;
            }
            request.locks.insert(lock);
            if request.left == 0 {
                break;
            }
        }
        let done = request.left == 0;
        self.requests.insert(id, request);
        Ok(done)
    }

    /// Whether a request that had to wait has got its locks.
    pub fn collect(&mut self, ticket: Ticket) -> Option<()> {
        self.ready.remove(&ticket).then_some(())
    }

    /// The request will not wait any longer: it leaves all lines.
    pub fn withdraw(&mut self, id: &Key, ticket: Ticket, out: &mut Out) {
        self.ready.remove(&ticket);
        if self
            .requests
            .get(id)
            .is_some_and(|request| request.ticket == ticket)
        {
            self.leave(id, out);
        }
    }

    /// Gives back all locks of `id`.
    ///
    /// # Errors
    /// If it has none.
    pub fn release(&mut self, id: &Key, out: &mut Out) -> Result<(), ExtError> {
        if self.leave(id, out) {
            Ok(())
        } else {
            Err(ExtError::unknown(id))
        }
    }

    /// Takes `id` out of all its lines; whether it was known. Those who are now first somewhere come closer.
    fn leave(&mut self, id: &Key, out: &mut Out) -> bool {
        let Some(request) = self.requests.remove(id) else {
            return false;
        };
        self.ready.remove(&request.ticket);
        for lock in &request.locks {
            let Some(line) = self.lines.get_mut(lock) else {
                continue;
            };
            let was_first = line.front() == Some(id);
            line.retain(|other| other != id);
            let Some(first) = line.front() else {
                self.lines.remove(lock);
                continue;
            };
            if !was_first {
                continue;
            }
            // It may be first in more lines than it needs.
            if let Some(next) = self.requests.get_mut(first)
                && next.left > 0
            {
                next.left -= 1;
                if next.left == 0 {
                    self.ready.insert(next.ticket);
                    out.wake(next.ticket);
                }
            }
        }
        true
    }
}
