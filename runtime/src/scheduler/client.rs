//! Clients: who wants what.

use std::sync::Arc;

use super::ids::{ClientId, IdSet, TaskId};
use super::out::ToClient;
use super::state::{FIRE_AND_FORGET, State};
use super::task::TaskStateName;
use super::transitions::ErredArgs;
use crate::protocol::{Key, Value};

use TaskStateName::{Erred, Forgotten, Memory, Released, Waiting};

/// A client, or a pseudo-client that stands for a queue, a variable, published data or fire-and-forget tasks.
#[derive(Debug)]
pub struct Client {
    /// Name.
    pub name: Arc<str>,
    /// Tasks whose results it wants.
    pub wants_what: IdSet<TaskId>,
    /// Versions of its packages.
    pub versions: Value,
    /// It has a connection (pseudo-clients have none).
    pub connected: bool,
    /// Wall time of the last heartbeat, s since the epoch.
    pub last_seen: f64,
}

impl State {
    /// The client of this name, made if unknown.
    pub(super) fn ensure_client(&mut self, name: &str) -> ClientId {
        if let Some(id) = self.client_id(name) {
            return id;
        }
        let name: Arc<str> = name.into();
        let client = Client {
            name: name.clone(),
            wants_what: IdSet::default(),
            versions: Value::Nil,
            connected: false,
            last_seen: self.clock.wall,
        };
        let at = self.clients.iter().position(Option::is_none);
        let id = match at {
            Some(i) => {
                self.clients[i] = Some(client);
                ClientId(i as u32)
            }
            None => {
                self.clients.push(Some(client));
                ClientId(self.clients.len() as u32 - 1)
            }
        };
        self.client_index.insert(name, id);
        id
    }

    /// A client registered.
    pub fn add_client(&mut self, name: &str, versions: Value) -> ClientId {
        let id = self.ensure_client(name);
        let client = self.client_mut(id);
        client.versions = versions;
        client.connected = true;
        self.totals.clients_added += 1;
        self.log_action(&["all", name], "add-client", &[("client", name.into())]);
        id
    }

    /// A client is gone: everything it wanted is released.
    pub fn remove_client(&mut self, id: ClientId) {
        let Some(client) = self.clients[id.0 as usize].as_ref() else {
            return;
        };
        let name = client.name.clone();
        let wanted: Vec<TaskId> = client.wants_what.iter().collect();
        self.log_action(
            &["all", &name],
            "remove-client",
            &[("client", (*name).into())],
        );
        self.release_ids(id, &wanted, "remove-client");
        self.clients[id.0 as usize] = None;
        self.client_index.remove(&name);
        self.events.unsubscribe_all(id);
        self.drop_topic_later(name);
        self.totals.clients_removed += 1;
    }

    /// A client wants these keys.
    pub fn client_desires_keys(&mut self, name: &str, keys: &[Key]) {
        let c = self.ensure_client(name);
        let stimulus = self.stimulus("client-desires-keys");
        for key in keys {
            match self.task_id(key) {
                Some(id) => {
                    self.client_desires_one(c, id, true);
                    // A result that was given up meanwhile; stock Dask would let the client wait for ever.
                    if self.task(id).state == Released {
                        self.recommend(id, Waiting);
                    } else if name == FIRE_AND_FORGET
                        && matches!(self.task(id).state, Memory | Erred)
                    {
                        // Nothing is left to wait for; stock Dask would keep the result for ever.
                        self.client_releases_one(c, id);
                    }
                }
                None => {
                    tracing::debug!(client = name, key = %key, "client desires a key that is unknown")
                }
            }
        }
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
    }

    pub(super) fn client_desires_one(&mut self, c: ClientId, id: TaskId, report: bool) {
        let task = self.task_mut(id);
        if !task.who_wants.contains(&c) {
            task.who_wants.push(c);
        }
        let state = task.state;
        self.client_mut(c).wants_what.insert(id);
        if report && matches!(state, Memory | Erred) {
            self.report_on_key(id, c);
        }
    }

    /// A client no longer wants these keys.
    pub fn client_releases_keys(&mut self, name: &str, keys: &[Key]) {
        let Some(c) = self.client_id(name) else {
            return;
        };
        let ids: Vec<TaskId> = keys.iter().filter_map(|k| self.task_id(k)).collect();
        self.release_ids(c, &ids, "client-releases-keys");
    }

    /// As [`State::client_releases_keys`], by canonical key bytes.
    pub fn client_releases_ids(&mut self, c: ClientId, ids: &[TaskId]) {
        self.release_ids(c, ids, "client-releases-keys");
    }

    fn release_ids(&mut self, c: ClientId, ids: &[TaskId], kind: &'static str) {
        let stimulus = self.stimulus(kind);
        for id in ids {
            self.client_releases_one(c, *id);
        }
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
    }

    /// Recommends what follows when a client no longer wants one key.
    pub(super) fn client_releases_one(&mut self, c: ClientId, id: TaskId) {
        if !self.client_mut(c).wants_what.remove(id) {
            return;
        }
        let task = self.task_mut(id);
        task.who_wants.retain(|w| *w != c);
        if task.who_wants.is_empty() {
            if task.dependents.is_empty() {
                self.recommend(id, Forgotten);
            } else if task.state != Erred && task.waiters.is_empty() {
                self.recommend(id, Released);
            }
        }
    }

    /// Tells a client how a task it wants stands.
    pub fn report_on_key(&mut self, id: TaskId, c: ClientId) {
        let task = self.task(id);
        match task.state {
            Memory => {
                let key = task.key.clone();
                self.send_client(
                    c,
                    ToClient::KeyInMemory {
                        key,
                        type_pickle: None,
                        workers: None,
                    },
                );
            }
            Erred => {
                let (key, failing) = (task.key.clone(), task.exception_blame().unwrap_or(id));
                let (exception, traceback) = self.failure_of(failing);
                self.send_client(
                    c,
                    ToClient::TaskErred {
                        key,
                        exception,
                        traceback,
                    },
                );
            }
            _ => {}
        }
    }

    /// A client asks how a key stands.
    pub fn handle_report_key(&mut self, name: &str, key: &Key) {
        let Some(c) = self.client_id(name) else {
            return;
        };
        match self.task_id(key) {
            Some(id) => self.report_on_key(id, c),
            None => {
                let keys = Arc::new(vec![key.clone()]);
                self.send_client(
                    c,
                    ToClient::CancelledKeys {
                        keys,
                        reason: "".into(),
                        msg: None,
                    },
                );
            }
        }
    }

    /// A client gives up keys, and with `force` takes them from all clients.
    pub fn cancel_keys(
        &mut self,
        name: &str,
        keys: &[Key],
        force: bool,
        reason: &str,
        msg: Option<&str>,
    ) {
        let extra = [("count", Value::from(keys.len())), ("force", force.into())];
        self.log_action(&[name], "cancel", &extra);
        let Some(c) = self.client_id(name) else {
            return;
        };
        let ids: Vec<TaskId> = keys.iter().filter_map(|k| self.task_id(k)).collect();
        self.cancel_ids(c, ids, force, reason, msg);
    }

    fn cancel_ids(
        &mut self,
        c: ClientId,
        ids: Vec<TaskId>,
        force: bool,
        reason: &str,
        msg: Option<&str>,
    ) {
        // Dependents first, as the recursion of stock does, but without its depth.
        let mut order: Vec<TaskId> = Vec::new();
        let mut seen = rustc_hash::FxHashSet::default();
        let mut stack: Vec<(TaskId, bool)> = ids.into_iter().map(|id| (id, false)).collect();
        while let Some((id, expanded)) = stack.pop() {
            if expanded {
                order.push(id);
                continue;
            }
            let task = self.task(id);
            let only_this_client = task.who_wants.as_slice() == [c];
            if !seen.insert(id) || !(force || only_this_client || task.who_wants.is_empty()) {
                continue;
            }
            stack.push((id, true));
            stack.extend(task.dependents.iter().map(|d| (d, false)));
        }
        let cancelled: Vec<Key> = order.iter().map(|id| self.task(*id).key.clone()).collect();
        let mut releases: Vec<(ClientId, TaskId)> = Vec::new();
        for id in &order {
            let wants = &self.task(*id).who_wants;
            releases.extend(
                wants
                    .iter()
                    .filter(|w| force || **w == c)
                    .map(|w| (*w, *id)),
            );
        }
        let stimulus = self.stimulus("cancel-key");
        for (client, id) in releases {
            self.client_releases_one(client, id);
        }
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
        if !cancelled.is_empty() {
            let keys = Arc::new(cancelled);
            self.broadcast_clients(|| ToClient::CancelledKeys {
                keys: keys.clone(),
                reason: reason.into(),
                msg: msg.map(Into::into),
            });
        }
    }

    /// Sends a message to every connected client.
    pub(super) fn broadcast_clients(&mut self, msg: impl Fn() -> ToClient) {
        let ids: Vec<ClientId> = self
            .all_clients()
            .filter(|(_, c)| c.connected)
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            self.send_client(id, msg());
        }
    }

    /// Runs failed tasks again. Gives back all keys touched; `Err` names a key that is unknown.
    pub fn retry(&mut self, keys: &[Key], client: Option<&str>) -> Result<Vec<Key>, Key> {
        if let Some(name) = client {
            self.log_action(&[name], "retry", &[("count", keys.len().into())]);
        }
        let mut stack = Vec::new();
        for key in keys {
            stack.push(self.task_id(key).ok_or_else(|| key.clone())?);
        }
        let mut seen = super::ids::IdSet::default();
        let mut roots = Vec::new();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let before = stack.len();
            stack.extend(
                self.task(id)
                    .dependencies
                    .iter()
                    .filter(|d| self.task(*d).state == Erred),
            );
            if stack.len() == before {
                roots.push(id);
            }
        }
        let stimulus = self.stimulus("stimulus-retry");
        for id in roots {
            if self.task(id).state == Erred {
                self.recommend_retry(id);
            }
        }
        self.run_transitions(stimulus);
        Ok(seen
            .iter()
            .filter_map(|id| Some(self.tasks[id.0 as usize].as_ref()?.key.clone()))
            .collect())
    }

    /// Scattered data has arrived on workers.
    pub fn update_data(
        &mut self,
        who_has: &[(Key, Vec<String>)],
        nbytes: &[(Key, i64)],
        client: Option<&str>,
    ) {
        let sizes: rustc_hash::FxHashMap<&Key, i64> = nbytes.iter().map(|(k, n)| (k, *n)).collect();
        let stimulus = self.stimulus("update-data");
        for (key, addresses) in who_has {
            let holders: Vec<_> = addresses.iter().filter_map(|a| self.worker_id(a)).collect();
            let known = self.task_id(key);
            if holders.is_empty() && known.is_none_or(|id| self.task(id).state != Memory) {
                // The worker is gone already, and the data with it.
                self.report_lost_data(key, client);
                continue;
            }
            let id = known.unwrap_or_else(|| self.new_task(key.clone()));
            if let Some(n) = sizes.get(key) {
                self.set_nbytes(id, *n);
            }
            if self.task(id).state == Released {
                self.set_state(id, Memory);
            } else if self.task(id).state != Memory {
                // It is about to be computed, or failed: that copy is not known, hence of no use.
                for w in holders {
                    self.send_free_key(w, key.clone(), stimulus);
                }
                continue;
            }
            for w in &holders {
                self.add_replica(id, *w);
            }
            let holders: Vec<_> = holders
                .iter()
                .map(|w| self.worker(*w).info.address.clone())
                .collect();
            let holders = Arc::new(holders);
            for c in self.task(id).who_wants.clone() {
                let (key, workers) = (key.clone(), Some(holders.clone()));
                self.send_client(
                    c,
                    ToClient::KeyInMemory {
                        key,
                        type_pickle: None,
                        workers,
                    },
                );
            }
        }
        if let Some(name) = client {
            let keys: Vec<Key> = who_has.iter().map(|(k, _)| k.clone()).collect();
            self.client_desires_keys(name, &keys);
        }
    }

    fn report_lost_data(&mut self, key: &Key, client: Option<&str>) {
        if let Some(c) = client.and_then(|name| self.client_id(name)) {
            let keys = Arc::new(vec![key.clone()]);
            let (reason, msg) = ("scattered data was lost".into(), None);
            self.send_client(c, ToClient::CancelledKeys { keys, reason, msg });
        }
    }

    /// Releases everything every client wants and forgets all tasks, as `restart` does.
    pub fn forget_everything(&mut self) {
        let stimulus = self.stimulus("restart");
        let clients: Vec<ClientId> = self.all_clients().map(|(id, _)| id).collect();
        for c in clients {
            let wanted: Vec<TaskId> = self.client(c).wants_what.iter().collect();
            for id in wanted {
                self.client_releases_one(c, id);
            }
        }
        self.run_transitions(stimulus);
        // What nobody wanted and yet lives (failed tasks kept by dependents, data without a client).
        let rest: Vec<TaskId> = self.all_tasks().map(|(id, _)| id).collect();
        for id in rest {
            if self.tasks[id.0 as usize].is_some() {
                self.transition(id, Forgotten, stimulus, &ErredArgs::default());
                self.run_transitions(stimulus);
            }
        }
        self.erred_tasks.clear();
        self.broadcast_clients(|| ToClient::Restart);
    }
}

impl State {
    /// A client gave a sign of life.
    pub fn client_seen(&mut self, id: ClientId) {
        let now = self.clock.wall;
        self.client_mut(id).last_seen = now;
    }

    /// Sends any message to a client.
    pub fn send_to_client(&mut self, id: ClientId, msg: Value) {
        self.send_client(id, ToClient::Raw(Arc::new(msg)));
    }

    /// Sends any message to a worker.
    pub fn send_to_worker(&mut self, id: super::ids::WorkerId, msg: Value) {
        self.send_worker(id, super::out::ToWorker::Raw(Arc::new(msg)));
    }

    /// Sends a message to a worker.
    pub fn tell_worker(&mut self, id: super::ids::WorkerId, msg: super::out::ToWorker) {
        self.send_worker(id, msg);
    }
}
