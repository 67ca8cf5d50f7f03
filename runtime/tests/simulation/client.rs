//! Simulated clients: what they do, and what they believe about their futures.

use std::collections::BTreeMap;

use oxidask_runtime::graph::Graph;
use oxidask_runtime::protocol::{Key, Value};
use oxidask_runtime::scheduler::state::FIRE_AND_FORGET;
use oxidask_runtime::scheduler::{Actors, ClientId, Submission};

use crate::book::Book;
use crate::machine::{Address, Event, K};
use crate::world::{Link, What, World};

/// How a future looks to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Pending,
    Finished,
    Error,
}

// A few thousand of them live at a time.
#[allow(clippy::large_enum_variant)]
pub enum FromClient {
    Graph {
        graph: Graph,
        keys: Vec<Key>,
        actors: Actors,
        user_priority: f64,
    },
    Desire(&'static str, Vec<K>),
    Release(Vec<K>),
    Cancel(Vec<K>, bool),
    Retry(Vec<K>),
    Report(K),
    Data(Vec<K>, Vec<Address>),
    Close,
}

#[derive(Debug)]
pub enum Report {
    Finished(K),
    Lost(K),
    Retried(K),
    Erred(K),
    Cancelled(Vec<K>),
}

pub struct Client {
    pub name: String,
    pub id: Option<ClientId>,
    pub futures: BTreeMap<K, View>,
    pub up: Link<FromClient>,
    pub down: Link<Report>,
    pub sessions: usize,
}

impl World {
    pub fn make_clients(&mut self) {
        for i in 0..self.scenario.clients {
            self.clients.push(Client {
                name: String::new(),
                id: None,
                futures: BTreeMap::new(),
                up: Link::default(),
                down: Link::default(),
                sessions: 0,
            });
            self.connect(i);
        }
    }

    fn connect(&mut self, c: usize) {
        let client = &mut self.clients[c];
        client.sessions += 1;
        client.name = format!("client-{c}-{}", client.sessions);
        let name = client.name.clone();
        let id = self.scheduler(|s| s.add_client(&name, Value::Nil));
        self.clients[c].id = Some(id);
    }

    pub fn clients_act(&mut self) {
        if self.actions_left == 0 {
            self.rough = false;
            return;
        }
        self.actions_left -= 1;
        let c = self.rng.below(self.clients.len());
        self.act(c);
        let delay = self.rng.delay(self.scenario.pace);
        self.after(delay, What::ClientActs);
    }

    fn act(&mut self, c: usize) {
        if self.clients[c].id.is_none() {
            self.connect(c);
        }
        if self.rng.chance(self.scenario.scatter) {
            self.scatter(c);
        }
        if self.rng.chance(self.scenario.release) {
            self.release_some(c);
        }
        if self.rng.chance(self.scenario.cancel) {
            let keys = self.some_futures(c, 3);
            let force = self.rng.chance(0.3);
            self.log(|| format!("client {c} cancels {keys:?}, force {force}"));
            for k in &keys {
                self.clients[c].futures.remove(k);
            }
            self.send_from_client(c, FromClient::Cancel(keys.clone(), force));
            self.send_from_client(c, FromClient::Release(keys));
        }
        if self.rng.chance(self.scenario.retry) {
            self.retry_failed(c);
        }
        if self.rng.chance(0.05) {
            let k = self.rng.below(200) as K;
            if (k as usize) < self.book.specs.len() {
                self.send_from_client(c, FromClient::Report(self.book.specs[k as usize].key));
            }
        }
        if self.rng.chance(0.1) {
            self.desire_any(c);
        }
        if self.rng.chance(self.scenario.reconnect) {
            self.send_from_client(c, FromClient::Close);
            self.clients[c].futures.clear();
            return;
        }
        self.submit(c);
    }

    fn some_futures(&mut self, c: usize, max: usize) -> Vec<K> {
        let all: Vec<K> = self.clients[c].futures.keys().copied().collect();
        let n = self.rng.range(0, max);
        (0..n)
            .filter_map(|_| self.rng.pick(&all).copied())
            .collect()
    }

    fn release_some(&mut self, c: usize) {
        let keys = if self.rng.chance(0.2) {
            self.clients[c].futures.keys().copied().collect()
        } else {
            self.some_futures(c, 8)
        };
        self.log(|| format!("client {c} releases {keys:?}"));
        for k in &keys {
            self.clients[c].futures.remove(k);
        }
        self.send_from_client(c, FromClient::Release(keys));
    }

    pub fn retry_failed(&mut self, c: usize) {
        let futures = self.clients[c].futures.iter();
        let keys: Vec<K> = futures
            .filter(|(_, v)| **v == View::Error)
            .map(|(k, _)| *k)
            .collect();
        if !keys.is_empty() {
            self.log(|| format!("client {c} retries {keys:?}"));
            self.send_from_client(c, FromClient::Retry(keys));
        }
    }

    /// Wants a key by name, whoever made it, known or not; or hands one over to fire-and-forget.
    fn desire_any(&mut self, c: usize) {
        if self.rng.chance(0.5) {
            let keys = self.some_futures(c, 2);
            self.send_from_client(c, FromClient::Desire(FIRE_AND_FORGET, keys.clone()));
            for k in &keys {
                self.clients[c].futures.remove(k);
            }
            self.send_from_client(c, FromClient::Release(keys));
        } else if let Some(spec) = self.rng.pick(&self.book.specs) {
            let k = spec.key;
            self.log(|| format!("client {c} desires {k}"));
            self.send_from_client(c, FromClient::Desire("", vec![k]));
        }
    }

    fn scatter(&mut self, c: usize) {
        let alive: Vec<usize> = (0..self.processes.len())
            .filter(|p| self.processes[*p].alive && self.processes[*p].worker.is_some())
            .collect();
        let Some(p) = self.rng.pick(&alive).copied() else {
            return;
        };
        let again = !self.book.scattered.is_empty() && self.rng.chance(0.2);
        let k = if again {
            self.book.scattered[self.rng.below(self.book.scattered.len())]
        } else {
            let k = self.book.number(&Key::new_str(&format!(
                "data-{}",
                self.book.scattered.len()
            )));
            self.book.scattered.push(k);
            k
        };
        if again && self.processes[p].machine.tasks.contains_key(&k) {
            return;
        }
        let address = self.processes[p].machine.address.clone();
        self.log(|| format!("client {c} scatters {k} to worker {p}"));
        self.tell(p, Event::Scatter(k, Book::datum(k), 500));
        self.clients[c].futures.insert(k, View::Finished);
        self.send_from_client(c, FromClient::Data(vec![k], vec![address]));
    }

    // ---- at the scheduler

    pub fn take_from_client(&mut self, c: usize) {
        let Some(msg) = self.clients[c].up.queue.pop_front() else {
            return;
        };
        let Some(id) = self.clients[c].id else { return };
        let name = self.clients[c].name.clone();
        match msg {
            FromClient::Graph {
                graph,
                keys,
                actors,
                user_priority,
            } => {
                let order: Vec<u32> = (0..graph.keys.len() as u32).collect();
                let sub = Submission {
                    client: id,
                    keys,
                    internal_priority: None,
                    submitting_task: None,
                    user_priority,
                    fifo_timeout: 0.1,
                    actors,
                    start: 1.7e9 + self.now,
                };
                self.log(|| format!("graph of client {c}: {} tasks", graph.keys.len()));
                self.scheduler(|s| s.update_graph(&sub, graph, &order));
            }
            FromClient::Desire(other, keys) => {
                let keys = self.keys(&keys);
                let by = if other.is_empty() { &name } else { other };
                self.scheduler(|s| s.client_desires_keys(by, &keys));
                if other.is_empty() {
                    // A future is made only of keys that are known.
                    for key in &keys {
                        let k = self.book.number(key);
                        if self.state.task_id(key).is_some() {
                            self.clients[c].futures.entry(k).or_insert(View::Pending);
                        }
                    }
                }
            }
            FromClient::Release(keys) => {
                let keys = self.keys(&keys);
                self.scheduler(|s| s.client_releases_keys(&name, &keys));
            }
            FromClient::Cancel(keys, force) => {
                let keys = self.keys(&keys);
                self.scheduler(|s| s.cancel_keys(&name, &keys, force, "test", None));
            }
            FromClient::Retry(keys) => {
                let keys = self.keys(&keys);
                let _ = self.scheduler(|s| s.retry(&keys, Some(&name)));
            }
            FromClient::Report(k) => {
                let key = self.book.key(k).clone();
                self.scheduler(|s| s.handle_report_key(&name, &key));
            }
            FromClient::Data(keys, holders) => {
                let holders: Vec<String> = holders.iter().map(|a| a.to_string()).collect();
                let who_has: Vec<_> = self
                    .keys(&keys)
                    .into_iter()
                    .map(|k| (k, holders.clone()))
                    .collect();
                let nbytes: Vec<_> = who_has.iter().map(|(k, _)| (k.clone(), 500)).collect();
                self.scheduler(|s| s.update_data(&who_has, &nbytes, Some(&name)));
            }
            FromClient::Close => {
                self.log(|| format!("client {c} leaves"));
                self.scheduler(|s| s.remove_client(id));
                self.clients[c].id = None;
                self.clients[c].futures.clear();
                self.clients[c].up.queue.clear();
                self.clients[c].down.queue.clear();
            }
        }
    }

    pub fn keys(&self, numbers: &[K]) -> Vec<Key> {
        numbers.iter().map(|k| self.book.key(*k).clone()).collect()
    }

    // ---- at the client

    pub fn give_to_client(&mut self, c: usize) {
        let Some(report) = self.clients[c].down.queue.pop_front() else {
            return;
        };
        self.log(|| format!("client {c} hears {report:?}"));
        let futures = &mut self.clients[c].futures;
        let mut set = |k: K, view: View| {
            if let Some(v) = futures.get_mut(&k) {
                *v = view;
            }
        };
        match report {
            Report::Finished(k) => set(k, View::Finished),
            Report::Lost(k) | Report::Retried(k) => set(k, View::Pending),
            Report::Erred(k) => set(k, View::Error),
            Report::Cancelled(keys) => {
                let mine: Vec<K> = keys
                    .into_iter()
                    .filter(|k| futures.remove(k).is_some())
                    .collect();
                if !mine.is_empty() {
                    self.send_from_client(c, FromClient::Release(mine));
                }
            }
        }
    }
}
