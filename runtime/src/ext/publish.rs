//! Published datasets: collections kept under a name for other clients.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::ExtError;
use super::wakes::{Out, Ticket};
use crate::protocol::{Key, Value};

/// A client that announces more requests than it makes does not fill the memory.
const MAX_UNCLAIMED: usize = 10_000;

/// All datasets, and what orders a client's requests after its stream.
///
/// A publish request must not overtake the graph that makes its keys, which is sent on the client's stream. So the
/// client sends a mark with an id on the stream, and the request with the same id waits for it.
#[derive(Debug, Default)]
pub struct Datasets {
    datasets: FxHashMap<Key, Dataset>,
    marks: FxHashMap<Vec<u8>, Mark>,
    /// Marks that came before their request, in the order of coming.
    unclaimed: VecDeque<Vec<u8>>,
    /// Waiting requests with what became of them.
    answered: FxHashMap<Ticket, Arrival>,
}

/// A collection, opaque, and the keys it consists of.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The serialized collection.
    pub data: Value,
    /// Its keys.
    pub keys: Vec<Key>,
}

#[derive(Debug)]
enum Mark {
    Arrived,
    AwaitedBy { ticket: Ticket, client: String },
}

/// How waiting for a mark ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The stream has got as far as the request.
    Done,
    /// The client went away before.
    ClientGone,
}

/// The pseudo-client that keeps a dataset's keys.
pub fn client_of(name: &Key) -> String {
    format!("published-{name}")
}

impl Datasets {
    /// The stream has come to the mark.
    pub fn mark_arrived(&mut self, id: Vec<u8>, out: &mut Out) {
        if let Some(Mark::AwaitedBy { ticket, .. }) = self.marks.remove(&id) {
            self.answered.insert(ticket, Arrival::Done);
            out.wake(ticket);
            return;
        }
        self.marks.insert(id.clone(), Mark::Arrived);
        self.unclaimed.push_back(id);
        if self.unclaimed.len() > MAX_UNCLAIMED
            && let Some(oldest) = self.unclaimed.pop_front()
            && matches!(self.marks.get(&oldest), Some(Mark::Arrived))
        {
            self.marks.remove(&oldest);
        }
    }

    /// Waits for a mark; whether it has come already.
    pub fn await_mark(&mut self, id: &[u8], client: &str, ticket: Ticket) -> bool {
        if let Some(Mark::Arrived) = self.marks.get(id) {
            self.marks.remove(id);
            self.unclaimed.retain(|other| other != id);
            return true;
        }
        self.marks.insert(
            id.to_vec(),
            Mark::AwaitedBy {
                ticket,
                client: client.into(),
            },
        );
        false
    }

    /// The result of a [`Datasets::await_mark`] that had to wait.
    pub fn collect(&mut self, ticket: Ticket) -> Option<Arrival> {
        self.answered.remove(&ticket)
    }

    /// The request will not wait any longer.
    pub fn withdraw(&mut self, id: &[u8], ticket: Ticket) {
        self.answered.remove(&ticket);
        if matches!(self.marks.get(id), Some(Mark::AwaitedBy { ticket: other, .. }) if *other == ticket)
        {
            self.marks.remove(id);
        }
    }

    /// A client has gone: its stream will bring nothing any more.
    pub fn client_removed(&mut self, client: &str, out: &mut Out) {
        let answered = &mut self.answered;
        self.marks.retain(|_, mark| match mark {
            Mark::AwaitedBy {
                ticket,
                client: owner,
            } if owner == client => {
                answered.insert(*ticket, Arrival::ClientGone);
                out.wake(*ticket);
                false
            }
            _ => true,
        });
    }

    /// Publishes a dataset.
    ///
    /// # Errors
    /// If the name is taken and `replace` is false.
    pub fn put(
        &mut self,
        name: Key,
        dataset: Dataset,
        replace: bool,
        out: &mut Out,
    ) -> Result<(), ExtError> {
        if let Some(old) = self.datasets.get(&name) {
            if !replace {
                return Err(ExtError::Key(
                    format!("Dataset {name} already exists").into(),
                ));
            }
            out.release(old.keys.clone(), client_of(&name));
        }
        out.desire(dataset.keys.clone(), client_of(&name));
        self.datasets.insert(name, dataset);
        Ok(())
    }

    /// Takes a dataset back.
    pub fn delete(&mut self, name: &Key, out: &mut Out) {
        if let Some(dataset) = self.datasets.remove(name) {
            out.release(dataset.keys, client_of(name));
        }
    }

    /// The names, sorted as texts.
    pub fn list(&self) -> Vec<Key> {
        let mut names: Vec<Key> = self.datasets.keys().cloned().collect();
        names.sort_by_cached_key(Key::to_string);
        names
    }

    /// A dataset.
    pub fn get(&self, name: &Key) -> Option<&Dataset> {
        self.datasets.get(name)
    }
}
