//! `Variable`: one value or future shared by name.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::record::Record;
use super::wakes::{Out, Ticket};
use crate::protocol::{Key, Str};

/// All variables.
///
/// The future in a variable is kept alive by the pseudo-client `variable-<name>`. A client that gets it holds it by
/// itself only after a while; a token stands for the time between. A future that has been replaced is let go once
/// no token is out for it.
#[derive(Debug, Default)]
pub struct Variables {
    values: FxHashMap<Key, Record>,
    /// Requests that wait for a variable to be set.
    waiting: FxHashMap<Key, VecDeque<Ticket>>,
    /// Waiting requests whose variable is set now.
    ready: FxHashSet<Ticket>,
    /// Futures on their way to clients, by variable and key.
    handed_out: FxHashMap<(Key, Key), HandedOut>,
}

#[derive(Debug, Default)]
struct HandedOut {
    /// Each token with the client it was given to, where that is known.
    tokens: FxHashMap<Str, Option<String>>,
    /// The variable holds the key no longer.
    replaced: bool,
}

/// The pseudo-client that keeps a variable's future.
pub fn client_of(name: &Key) -> String {
    format!("variable-{name}")
}

impl Variables {
    /// Sets a variable.
    pub fn set(&mut self, name: Key, record: Record, out: &mut Out) {
        if let Some(key) = record.key() {
            out.desire(vec![key.clone()], client_of(&name));
            if let Some(handed_out) = self.handed_out.get_mut(&(name.clone(), key.clone())) {
                handed_out.replaced = false;
            }
        }
        let key = record.key().cloned();
        if let Some(Record::Future(old)) = self.values.insert(name.clone(), record)
            && Some(&old) != key.as_ref()
        {
            self.let_go(&name, old, out);
        }
        for ticket in self.waiting.remove(&name).unwrap_or_default() {
            self.ready.insert(ticket);
            out.wake(ticket);
        }
    }

    /// What the variable holds. A future is given out with this token, which is to be confirmed.
    pub fn get(&mut self, name: &Key, token: &Str, client: Option<&str>) -> Option<Record> {
        let record = self.values.get(name)?.clone();
        if let Some(key) = record.key() {
            let handed_out = self
                .handed_out
                .entry((name.clone(), key.clone()))
                .or_default();
            handed_out
                .tokens
                .insert(token.clone(), client.map(String::from));
        }
        Some(record)
    }

    /// Waits until the variable is set.
    pub fn wait(&mut self, name: &Key, ticket: Ticket) {
        self.waiting
            .entry(name.clone())
            .or_default()
            .push_back(ticket);
    }

    /// Whether the variable that this request waits for has been set.
    pub fn collect(&mut self, ticket: Ticket) -> Option<()> {
        self.ready.remove(&ticket).then_some(())
    }

    /// The request will not wait any longer.
    pub fn withdraw(&mut self, name: &Key, ticket: Ticket) {
        self.ready.remove(&ticket);
        if let Some(line) = self.waiting.get_mut(name) {
            line.retain(|other| *other != ticket);
            if line.is_empty() {
                self.waiting.remove(name);
            }
        }
    }

    /// The client that got this future holds it by itself now.
    pub fn confirm(&mut self, name: &Key, key: &Key, token: &str, out: &mut Out) {
        let entry = (name.clone(), key.clone());
        if let Some(handed_out) = self.handed_out.get_mut(&entry) {
            handed_out.tokens.remove(token);
            self.settle(entry, out);
        }
    }

    /// Removes a variable.
    pub fn delete(&mut self, name: &Key, out: &mut Out) {
        match self.values.remove(name) {
            Some(Record::Future(key)) => self.let_go(name, key, out),
            Some(Record::Data(_)) | None => self.forget_client(name, out),
        }
    }

    /// A client has gone, and will confirm nothing any more.
    pub fn client_removed(&mut self, client: &str, out: &mut Out) {
        let has_some = |tokens: &FxHashMap<Str, Option<String>>| {
            tokens
                .values()
                .any(|owner| owner.as_deref() == Some(client))
        };
        let entries: Vec<_> = self
            .handed_out
            .iter()
            .filter(|(_, handed_out)| has_some(&handed_out.tokens))
            .map(|(entry, _)| entry.clone())
            .collect();
        for entry in entries {
            if let Some(handed_out) = self.handed_out.get_mut(&entry) {
                handed_out
                    .tokens
                    .retain(|_, owner| owner.as_deref() != Some(client));
                self.settle(entry, out);
            }
        }
    }

    /// The variable does not hold this key any more.
    fn let_go(&mut self, name: &Key, key: Key, out: &mut Out) {
        let entry = (name.clone(), key);
        self.handed_out.entry(entry.clone()).or_default().replaced = true;
        self.settle(entry, out);
    }

    /// Drops the account of a key once all its tokens are confirmed, and the key itself if it has been replaced.
    fn settle(&mut self, entry: (Key, Key), out: &mut Out) {
        let Some(handed_out) = self.handed_out.get(&entry) else {
            return;
        };
        if !handed_out.tokens.is_empty() {
            return;
        }
        let replaced = handed_out.replaced;
        self.handed_out.remove(&entry);
        if replaced {
            let (name, key) = entry;
            out.release(vec![key], client_of(&name));
            self.forget_client(&name, out);
        }
    }

    /// Removes the pseudo-client of a variable that is gone, with all its futures.
    fn forget_client(&mut self, name: &Key, out: &mut Out) {
        let in_use = self.values.contains_key(name)
            || self.handed_out.keys().any(|(other, _)| other == name);
        if !in_use {
            out.effects.push(super::Effect::RemoveClient {
                client: client_of(name),
            });
        }
    }
}
