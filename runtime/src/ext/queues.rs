//! `Queue`: values and futures handed from client to client, first in, first out.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::record::Record;
use super::wakes::{Out, Ticket};
use crate::protocol::Key;

/// All queues.
///
/// A future in a queue is kept alive by the pseudo-client `queue-<name>`, from its put until the client that got it
/// has said that it wants the key itself.
#[derive(Debug, Default)]
pub struct Queues {
    queues: FxHashMap<Key, Queue>,
    /// How often a future is in a queue or on its way out of it, by queue and key.
    futures: FxHashMap<(Key, Key), u32>,
    /// Results of waiting requests, not collected yet.
    got: FxHashMap<Ticket, Option<Record>>,
    put: FxHashMap<Ticket, bool>,
}

#[derive(Debug)]
struct Queue {
    /// Zero for no limit.
    max_size: usize,
    /// How many clients have it open.
    n_clients: u32,
    items: VecDeque<Record>,
    /// Waiting for an item; only if there are none.
    getters: VecDeque<Ticket>,
    /// Waiting for room; only if it is full.
    putters: VecDeque<(Ticket, Record)>,
}

impl Queue {
    fn is_full(&self) -> bool {
        self.max_size > 0 && self.items.len() >= self.max_size
    }
}

/// There is no queue of this name (any more).
#[derive(Debug, PartialEq, Eq)]
pub struct NoQueue;

/// The pseudo-client that keeps a queue's futures.
pub fn client_of(name: &Key) -> String {
    format!("queue-{name}")
}

impl Queues {
    /// A client opens a queue; the first one makes it.
    pub fn create(&mut self, name: Key, max_size: usize) {
        let new = || Queue {
            max_size,
            n_clients: 0,
            items: VecDeque::new(),
            getters: VecDeque::new(),
            putters: VecDeque::new(),
        };
        self.queues.entry(name).or_insert_with(new).n_clients += 1;
    }

    /// A client closes a queue; the last one removes it with all that is in it.
    pub fn release(&mut self, name: &Key, out: &mut Out) {
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        queue.n_clients = queue.n_clients.saturating_sub(1);
        if queue.n_clients > 0 {
            return;
        }
        let Some(queue) = self.queues.remove(name) else {
            return;
        };
        for ticket in queue.getters {
            self.got.insert(ticket, None);
            out.wake(ticket);
        }
        let mut records = queue.items;
        for (ticket, record) in queue.putters {
            self.put.insert(ticket, false);
            out.wake(ticket);
            records.push_back(record);
        }
        let unused = records
            .iter()
            .filter_map(Record::key)
            .filter(|key| self.drop_future(name, key))
            .cloned()
            .collect();
        out.release(unused, client_of(name));
    }

    /// Whether there is such a queue.
    pub fn contains(&self, name: &Key) -> bool {
        self.queues.contains_key(name)
    }

    /// Puts a record, or queues the request where the queue is full. Whether it is in already.
    pub fn put(
        &mut self,
        name: &Key,
        record: Record,
        ticket: Ticket,
        out: &mut Out,
    ) -> Result<bool, NoQueue> {
        let Some(queue) = self.queues.get_mut(name) else {
            // The request holds the key for the queue already.
            out.release(record.key().cloned().into_iter().collect(), client_of(name));
            return Err(NoQueue);
        };
        if let Some(key) = record.key() {
            *self.futures.entry((name.clone(), key.clone())).or_default() += 1;
            out.desire(vec![key.clone()], client_of(name));
        }
        if queue.is_full() {
            queue.putters.push_back((ticket, record));
            return Ok(false);
        }
        match queue.getters.pop_front() {
            Some(getter) => {
                self.got.insert(getter, Some(record));
                out.wake(getter);
            }
            None => queue.items.push_back(record),
        }
        Ok(true)
    }

    /// The result of a [`Queues::put`] that had to wait.
    pub fn collect_put(&mut self, ticket: Ticket) -> Option<Result<(), NoQueue>> {
        self.put
            .remove(&ticket)
            .map(|done| if done { Ok(()) } else { Err(NoQueue) })
    }

    /// The request will not wait any longer. A record that has gone in stays there.
    pub fn withdraw_put(&mut self, name: &Key, ticket: Ticket, out: &mut Out) {
        if self.put.remove(&ticket).is_some() {
            return;
        }
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        let Some(at) = queue.putters.iter().position(|(other, _)| *other == ticket) else {
            return;
        };
        if let Some((_, Record::Future(key))) = queue.putters.remove(at)
            && self.drop_future(name, &key)
        {
            out.release(vec![key], client_of(name));
        }
    }

    /// Gets the first record, or queues the request where there is none.
    pub fn get(
        &mut self,
        name: &Key,
        ticket: Ticket,
        out: &mut Out,
    ) -> Result<Option<Record>, NoQueue> {
        let queue = self.queues.get_mut(name).ok_or(NoQueue)?;
        let record = queue.items.pop_front();
        match record {
            None => queue.getters.push_back(ticket),
            Some(_) => self.admit(name, out),
        }
        Ok(record)
    }

    /// All records that are there.
    pub fn get_all(&mut self, name: &Key, out: &mut Out) -> Result<Vec<Record>, NoQueue> {
        let queue = self.queues.get_mut(name).ok_or(NoQueue)?;
        let records = std::mem::take(&mut queue.items).into();
        self.admit(name, out);
        Ok(records)
    }

    /// The result of a [`Queues::get`] that had to wait.
    pub fn collect_get(&mut self, ticket: Ticket) -> Option<Result<Record, NoQueue>> {
        self.got.remove(&ticket).map(|record| record.ok_or(NoQueue))
    }

    /// The request will not wait any longer; a record that it was given goes back.
    pub fn withdraw_get(&mut self, name: &Key, ticket: Ticket, out: &mut Out) {
        match self.got.remove(&ticket) {
            Some(Some(record)) => self.give_back(name, vec![record], out),
            Some(None) => {}
            None => {
                if let Some(queue) = self.queues.get_mut(name) {
                    queue.getters.retain(|other| *other != ticket);
                }
            }
        }
    }

    /// Returns records to the front of the queue, which nobody received after all.
    pub fn give_back(&mut self, name: &Key, records: Vec<Record>, out: &mut Out) {
        let Some(queue) = self.queues.get_mut(name) else {
            let unused = records
                .iter()
                .filter_map(Record::key)
                .filter(|key| self.drop_future(name, key))
                .cloned()
                .collect();
            return out.release(unused, client_of(name));
        };
        for record in records.into_iter().rev() {
            match queue.getters.pop_front() {
                Some(getter) => {
                    self.got.insert(getter, Some(record));
                    out.wake(getter);
                }
                None => queue.items.push_front(record),
            }
        }
    }

    /// A client that got this future holds it by itself now.
    pub fn future_received(&mut self, name: &Key, key: &Key, out: &mut Out) {
        if self.drop_future(name, key) {
            out.release(vec![key.clone()], client_of(name));
        }
    }

    /// Number of records in a queue.
    pub fn len(&self, name: &Key) -> Result<usize, NoQueue> {
        self.queues
            .get(name)
            .map(|queue| queue.items.len())
            .ok_or(NoQueue)
    }

    /// Lets waiting records in while there is room.
    fn admit(&mut self, name: &Key, out: &mut Out) {
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        while !queue.is_full() {
            let Some((ticket, record)) = queue.putters.pop_front() else {
                return;
            };
            queue.items.push_back(record);
            self.put.insert(ticket, true);
            out.wake(ticket);
        }
    }

    /// One use of a future less; whether it was the last.
    fn drop_future(&mut self, name: &Key, key: &Key) -> bool {
        let entry = (name.clone(), key.clone());
        let Some(uses) = self.futures.get_mut(&entry) else {
            return false;
        };
        *uses = uses.saturating_sub(1);
        let last = *uses == 0;
        if last {
            self.futures.remove(&entry);
        }
        last
    }
}
