//! Events by topic, kept in short logs and passed on to subscribers.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::ids::ClientId;
use super::out::ToClient;
use super::state::State;
use crate::protocol::Value;

/// Topics kept at most; a client that makes up more loses the oldest.
const MAX_TOPICS: usize = 100_000;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// s since the epoch.
    pub time: f64,
    /// What happened.
    pub msg: Arc<Value>,
}

/// Logs of events and who wants to hear of them.
#[derive(Debug)]
pub struct Broker {
    topics: FxHashMap<Arc<str>, VecDeque<Event>>,
    subscribers: FxHashMap<Arc<str>, Vec<ClientId>>,
    length: usize,
}

impl Broker {
    /// A broker that keeps `length` events a topic.
    pub fn new(length: usize) -> Self {
        Self {
            topics: FxHashMap::default(),
            subscribers: FxHashMap::default(),
            length,
        }
    }

    /// Events of a topic, oldest first.
    pub fn topic(&self, name: &str) -> impl DoubleEndedIterator<Item = &Event> {
        self.topics.get(name).into_iter().flatten()
    }

    /// All topics.
    pub fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &VecDeque<Event>)> {
        self.topics.iter()
    }

    /// A client wants to hear of a topic.
    pub fn subscribe(&mut self, topic: &str, client: ClientId) {
        let list = self.subscribers.entry(topic.into()).or_default();
        if !list.contains(&client) {
            list.push(client);
        }
    }

    /// A client no longer wants to hear of a topic.
    pub fn unsubscribe(&mut self, topic: &str, client: ClientId) {
        if let Some(list) = self.subscribers.get_mut(topic) {
            list.retain(|c| *c != client);
        }
    }

    /// A client is gone.
    pub fn unsubscribe_all(&mut self, client: ClientId) {
        self.subscribers.retain(|_, list| {
            list.retain(|c| *c != client);
            !list.is_empty()
        });
    }

    /// Forgets the events of a topic.
    pub fn truncate(&mut self, topic: &str) {
        self.topics.remove(topic);
    }
}

impl State {
    /// Logs an event and passes it on.
    pub fn log_event(&mut self, topics: &[&str], msg: Value) {
        self.tap_log(topics, &msg);
        let time = self.clock.wall;
        let msg = Arc::new(msg);
        for name in topics {
            let topic: Arc<str> = match self.events.topics.get_key_value(*name) {
                Some((shared, _)) => shared.clone(),
                None if self.events.topics.len() >= MAX_TOPICS => continue,
                None => (*name).into(),
            };
            let log = self.events.topics.entry(topic.clone()).or_default();
            if log.len() >= self.events.length {
                log.pop_front();
            }
            log.push_back(Event {
                time,
                msg: msg.clone(),
            });
            for c in self
                .events
                .subscribers
                .get(*name)
                .cloned()
                .unwrap_or_default()
            {
                self.send_client(
                    c,
                    ToClient::Event {
                        topic: topic.clone(),
                        time,
                        msg: msg.clone(),
                    },
                );
            }
        }
    }

    /// Logs an event of the usual form, a map with "action".
    pub(super) fn log_action(&mut self, topics: &[&str], action: &str, fields: &[(&str, Value)]) {
        let mut map: Vec<(Value, Value)> = vec![("action".into(), action.into())];
        map.extend(fields.iter().map(|(k, v)| ((*k).into(), v.clone())));
        self.log_event(topics, Value::Map(map));
    }
}
