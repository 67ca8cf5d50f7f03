//! A client's graph becomes tasks.

use std::sync::Arc;

use super::ids::{ClientId, TaskId};
use super::state::State;
use super::task::{Priority, Restrictions, TaskStateName};
use crate::graph::{DATA_PRODUCER, Graph, P2P_BARRIER};
use crate::protocol::{Key, Value};

use TaskStateName::{Erred, Forgotten, Memory, Processing, Released, Waiting};

/// Which tasks of a graph hold actors.
#[derive(Clone, Debug, Default)]
pub enum Actors {
    /// None.
    #[default]
    None,
    /// All requested keys.
    All,
    /// These.
    Keys(Vec<Key>),
}

/// What came with the graph.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The client.
    pub client: ClientId,
    /// Requested keys.
    pub keys: Vec<Key>,
    /// Order given by the client; else by [`super::order`].
    pub internal_priority: Option<Vec<(Key, i64)>>,
    /// The running task that submitted it.
    pub submitting_task: Option<Key>,
    /// Priority for all tasks, unless annotated.
    pub user_priority: f64,
    /// Graphs submitted within this many seconds of the last generation belong to it.
    pub fifo_timeout: f64,
    /// Tasks that hold actors.
    pub actors: Actors,
    /// When it arrived, s since the epoch.
    pub start: f64,
}

/// What became of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// Its tasks are known and on their way.
    Ok {
        /// Tasks made.
        new_tasks: usize,
    },
    /// It needs results that nobody knows (any more); the client was told.
    LostDependencies,
}

/// What is logged of a graph.
struct GraphFigures {
    tasks: usize,
    new_tasks: usize,
    collisions: usize,
    materialize_s: f64,
    order_s: f64,
}

impl State {
    /// Takes a graph. `order[i]` is the static order of task `i` (unused if the client gave one).
    pub fn update_graph(&mut self, sub: &Submission, graph: Graph, order: &[u32]) -> Submitted {
        let stimulus = self.stimulus("update-graph");
        let index = GraphIndex::new(&graph);
        let Some(touched) = self.resolve(&graph, &index, sub) else {
            self.report_lost_dependencies(sub);
            return Submitted::LostDependencies;
        };
        let before = self.n_known_tasks();
        let (ids, collisions) = self.create_tasks(&graph, &index, &touched, sub, order);
        let new_tasks = self.n_known_tasks() - before;
        self.metadata_requested(&sub.keys);
        self.tap_graph(sub, &graph, stimulus);
        let figures = GraphFigures {
            tasks: ids.len(),
            new_tasks,
            collisions,
            materialize_s: graph.materialize_seconds,
            order_s: graph.order_seconds,
        };
        drop(index);
        drop(graph);

        let client_name = self.client(sub.client).name.clone();
        let mut requested = Vec::with_capacity(sub.keys.len());
        for key in &sub.keys {
            if let Some(id) = self.task_id(key) {
                self.client_desires_one(sub.client, id, true);
                requested.push(id);
            }
        }
        self.mark_actors(sub, &requested);

        let mut runnable: Vec<TaskId> = requested
            .iter()
            .copied()
            .filter(|id| self.task(*id).state == Released)
            .collect();
        // Recommendations are taken from the end, so the best priority goes in last.
        runnable.sort_by(
            |a, b| match (self.task(*a).priority, self.task(*b).priority) {
                (Some(a), Some(b)) => b.order(&a),
                (a, b) => a.is_some().cmp(&b.is_some()),
            },
        );
        for id in runnable {
            self.recommend(id, Waiting);
        }
        for id in &ids {
            let blame = self
                .task(*id)
                .dependencies
                .iter()
                .find_map(|d| self.task(d).exception_blame());
            if let Some(blame) = blame {
                self.task_mut(*id).rare_mut().exception_blame = Some(blame);
                self.recommend(*id, Erred);
            }
            let task = self.task(*id);
            if task.dependents.is_empty() && task.who_wants.is_empty() {
                // Needed only by the second definition of a known task, which is ignored.
                self.recommend(*id, Forgotten);
            }
        }
        self.run_transitions(stimulus);
        self.queue_slots_maybe_opened();
        self.log_update_graph(&client_name, &figures, sub.start, stimulus);
        Submitted::Ok { new_tasks }
    }

    fn log_update_graph(
        &mut self,
        client: &str,
        figures: &GraphFigures,
        start: f64,
        stimulus: super::out::Stimulus,
    ) {
        let seconds = (self.clock.wall - start).max(0.0);
        let rest = seconds - figures.materialize_s - figures.order_s;
        let metrics = Value::map([
            ("tasks", figures.tasks.into()),
            ("new_tasks", figures.new_tasks.into()),
            ("key_collisions", figures.collisions.into()),
            ("start_timestamp_seconds", start.into()),
            (
                "materialization_duration_seconds",
                figures.materialize_s.into(),
            ),
            ("ordering_duration_seconds", figures.order_s.into()),
            (
                "state_initialization_duration_seconds",
                rest.max(0.0).into(),
            ),
            ("duration_seconds", seconds.into()),
        ]);
        let fields = [
            ("client", Value::from(client)),
            ("stimulus_id", Value::from(stimulus.to_string().as_str())),
            ("metrics", metrics),
            ("status", "OK".into()),
        ];
        self.log_action(&["scheduler", client], "update-graph", &fields);
    }

    /// Which tasks of the graph the requested keys need. None if something is neither in the graph nor known.
    fn resolve(&self, graph: &Graph, index: &GraphIndex<'_>, sub: &Submission) -> Option<Vec<u32>> {
        let n = graph.keys.len();
        let mut seen = vec![false; n];
        let mut touched = Vec::with_capacity(n);
        let mut stack = Vec::new();
        for key in &sub.keys {
            match index.get(key) {
                Some(i) => stack.push(i),
                None if self.task_id(key).is_some() => {}
                None => return None,
            }
        }
        while let Some(i) = stack.pop() {
            if std::mem::replace(&mut seen[i as usize], true) {
                continue;
            }
            touched.push(i);
            for dep in deps_of(graph, i) {
                match graph.externals.get((*dep as usize).wrapping_sub(n)) {
                    Some(external) if self.task_id(external).is_none() => return None,
                    Some(_) => {}
                    None => stack.push(*dep),
                }
            }
        }
        Some(touched)
    }

    fn report_lost_dependencies(&mut self, sub: &Submission) {
        let keys = Arc::new(sub.keys.clone());
        let msg = super::out::ToClient::CancelledKeys {
            keys,
            reason: "lost dependencies".into(),
            msg: None,
        };
        self.send_client(sub.client, msg);
        let ids: Vec<TaskId> = sub.keys.iter().filter_map(|k| self.task_id(k)).collect();
        self.client_releases_ids(sub.client, &ids);
        let name = self.client(sub.client).name.clone();
        let stimulus = self.stimulus("update-graph").to_string();
        let fields = [
            ("stimulus_id", Value::from(stimulus.as_str())),
            ("status", "cancelled".into()),
        ];
        self.log_action(&["scheduler", &name], "update-graph", &fields);
    }

    fn create_tasks(
        &mut self,
        graph: &Graph,
        index: &GraphIndex<'_>,
        touched: &[u32],
        sub: &Submission,
        order: &[u32],
    ) -> (Vec<TaskId>, usize) {
        const NONE: TaskId = TaskId(u32::MAX);
        let n = graph.keys.len();
        let mut ids = vec![NONE; n + graph.externals.len()];
        let mut fresh = vec![false; n];
        let mut collided = vec![false; n];
        for (i, key) in graph.externals.iter().enumerate() {
            if let Some(id) = self.task_id(key) {
                ids[n + i] = id;
            }
        }
        self.task_index.reserve(touched.len());
        for &i in touched {
            let key = &graph.keys[i as usize];
            let (id, known) = match self.task_id(key) {
                Some(id) => (id, true),
                None => (self.new_task(key.clone()), false),
            };
            ids[i as usize] = id;
            if !known || self.task(id).spec.is_none() {
                let flags = graph.flags[i as usize];
                let task = self.task_mut(id);
                task.spec = Some(graph.specs[i as usize].clone());
                task.data_producer = flags & DATA_PRODUCER != 0;
                task.p2p_barrier = flags & P2P_BARRIER != 0;
                fresh[i as usize] = !known;
            } else {
                collided[i as usize] = self.collides(id, graph, i);
            }
        }
        for &i in touched {
            if collided[i as usize] {
                continue;
            }
            for dep in deps_of(graph, i) {
                let dep = ids[*dep as usize];
                if dep != NONE {
                    self.add_dependency(ids[i as usize], dep);
                }
            }
        }
        self.annotate(graph, &ids, &fresh);
        self.set_priorities(sub, graph, index, touched, &ids, order);
        let touched = touched.iter().map(|i| ids[*i as usize]).collect();
        (touched, collided.iter().filter(|c| **c).count())
    }

    /// Whether a known task's dependencies differ from those of its namesake in a new graph; the new ones are ignored.
    fn collides(&mut self, id: TaskId, graph: &Graph, i: u32) -> bool {
        let new = deps_of(graph, i);
        let task = self.task(id);
        let same = task.dependencies.len() == new.len()
            && new.iter().all(|d| {
                self.task_id(graph.key(*d))
                    .is_some_and(|d| task.dependencies.contains(d))
            });
        if same {
            return false;
        }
        let (group, state, key) = (task.group, task.state, task.key.clone());
        let old: Vec<String> = task
            .dependencies
            .iter()
            .take(10)
            .map(|d| self.task(d).key.to_string())
            .collect();
        let g = self.group_mut(group);
        if !std::mem::replace(&mut g.collision_logged, true) {
            tracing::warn!(
                "Detected different `run_spec` for key {} between two consecutive calls to `update_graph`. This can \
                 cause failures and deadlocks down the line. Please ensure unique key names. If you are using standard \
                 dask collections, consider releasing all the data before resubmitting another computation. State of \
                 the known task: {}; its dependencies: {old:?}; number of new dependencies: {}",
                key.repr(),
                state.as_str(),
                new.len(),
            );
        }
        true
    }

    fn add_dependency(&mut self, id: TaskId, dep: TaskId) {
        if !self.task_mut(id).dependencies.insert(dep) {
            return;
        }
        self.task_mut(dep).dependents.insert(id);
        let (group, dep_group) = (self.task(id).group, self.task(dep).group);
        if self.group_mut(group).dependencies.insert(dep_group) {
            self.group_mut(dep_group).dependents.insert(group);
        }
    }

    fn mark_actors(&mut self, sub: &Submission, requested: &[TaskId]) {
        let ids: Vec<TaskId> = match &sub.actors {
            Actors::None => return,
            Actors::All => requested.to_vec(),
            Actors::Keys(keys) => keys.iter().filter_map(|k| self.task_id(k)).collect(),
        };
        for id in ids {
            // What already runs, or has run, was sent as a plain task.
            if !matches!(self.task(id).state, Processing | Memory) {
                self.task_mut(id).actor = true;
            }
        }
    }

    fn set_priorities(
        &mut self,
        sub: &Submission,
        graph: &Graph,
        index: &GraphIndex<'_>,
        touched: &[u32],
        ids: &[TaskId],
        order: &[u32],
    ) {
        let generation = match &sub.submitting_task {
            // A child of a running task goes before its parent's siblings.
            Some(key) => match self.task_id(key).and_then(|id| self.task(id).priority) {
                Some(parent) => parent.user - 0.01,
                None => self.generation,
            },
            None if self.last_graph_time + sub.fifo_timeout < sub.start => {
                self.generation += 1.0;
                self.last_graph_time = sub.start;
                self.generation
            }
            None => self.generation,
        };
        let given: Option<Vec<i64>> = sub.internal_priority.as_ref().map(|list| {
            let mut table = vec![0; graph.keys.len()];
            for (key, p) in list {
                if let Some(i) = index.get(key) {
                    table[i as usize] = *p;
                }
            }
            table
        });
        for &i in touched {
            let id = ids[i as usize];
            let internal = match &given {
                Some(table) => table[i as usize],
                None => order.get(i as usize).copied().map_or(0, i64::from),
            };
            let annotated = self.task(id).annotation("priority").and_then(Value::as_f64);
            let task = self.task_mut(id);
            if task.priority.is_none() {
                let user = -annotated.unwrap_or(sub.user_priority);
                task.priority = Some(Priority {
                    user,
                    generation,
                    internal,
                });
            }
        }
    }

    /// Applies annotations to new tasks.
    fn annotate(&mut self, graph: &Graph, ids: &[TaskId], fresh: &[bool]) {
        if graph.annotations.is_empty() && graph.global_annotations.is_empty() {
            return;
        }
        let mut per_task: Vec<Option<Vec<(String, Value)>>> = vec![None; graph.keys.len()];
        for (name, values) in &graph.annotations {
            for (i, value) in values {
                if fresh[*i as usize] && !value.is_nil() {
                    let list = per_task[*i as usize]
                        .get_or_insert_with(|| graph.global_annotations.clone());
                    list.retain(|(n, _)| n != name);
                    list.push((name.clone(), value.clone()));
                }
            }
        }
        let global = Arc::new(graph.global_annotations.clone());
        for (i, own) in per_task.into_iter().enumerate() {
            if !fresh[i] {
                continue;
            }
            let list = match own {
                Some(list) => Arc::new(list),
                None if global.is_empty() => continue,
                None => global.clone(),
            };
            self.apply_annotations(ids[i], &list);
        }
    }

    fn apply_annotations(&mut self, id: TaskId, list: &Arc<Vec<(String, Value)>>) {
        let mut restrictions = Restrictions::default();
        let mut loose = false;
        let mut retries = 0;
        for (name, value) in list.iter() {
            match name.as_str() {
                "restrictions" | "workers" => {
                    let one = [value.clone()];
                    let entries = match value.as_array() {
                        Some(list) if !is_host_port(list) => list,
                        _ => &one,
                    };
                    for entry in entries {
                        self.coerce_restriction(entry, &mut restrictions);
                    }
                }
                "loose_restrictions" | "allow_other_workers" => {
                    loose = value.as_bool().unwrap_or(false)
                }
                "resources" => {
                    for (k, v) in value.as_map().unwrap_or(&[]) {
                        if let (Some(k), Some(v)) = (k.as_str(), v.as_f64()) {
                            restrictions.resources.push((k.into(), v));
                        }
                    }
                }
                "retries" => {
                    retries = value.as_i64().unwrap_or(0).clamp(0, i64::from(u32::MAX)) as u32
                }
                _ => {}
            }
        }
        let rare = self.task_mut(id).rare_mut();
        rare.annotations = Some(list.clone());
        rare.restrictions = restrictions;
        rare.loose_restrictions = loose;
        rare.retries = retries;
    }

    /// One entry of a worker restriction: a worker's name, an address, or else a host.
    fn coerce_restriction(&self, entry: &Value, out: &mut Restrictions) {
        match self.coerce_address(entry) {
            Some(address) => out.workers.push(address),
            None => {
                if let Some(host) = entry.as_str() {
                    out.hosts.push(host.into());
                }
            }
        }
    }

    /// The address that a name, an address with or without scheme, or a (host, port) pair means.
    pub fn coerce_address(&self, value: &Value) -> Option<Arc<str>> {
        if let Some(list) = value.as_array()
            && let [host, port] = list
            && let (Some(host), Some(port)) = (host.as_str(), port.as_i64())
        {
            return Some(format!("tcp://{host}:{port}").into());
        }
        let alias = super::membership::alias_of(value);
        if let Some(w) = self.worker_by_name(&alias) {
            return Some(self.worker(w).info.address.clone());
        }
        let text = value.as_str()?;
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let (host, port) = rest.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        let host = if host == "localhost" {
            "127.0.0.1"
        } else {
            host
        };
        Some(format!("{scheme}://{host}:{port}").into())
    }

    /// Changes where known tasks may run.
    pub fn set_restrictions(&mut self, changes: &[(Key, Vec<Value>)]) -> Result<(), Key> {
        for (key, entries) in changes {
            let id = self.task_id(key).ok_or_else(|| key.clone())?;
            let mut restrictions = Restrictions::default();
            for entry in entries {
                self.coerce_restriction(entry, &mut restrictions);
            }
            let rare = self.task_mut(id).rare_mut();
            rare.restrictions.workers = restrictions.workers;
            rare.restrictions.hosts = restrictions.hosts;
        }
        self.reconsider_unrunnable("set-restrictions");
        Ok(())
    }

    /// Marks all requested keys as failed, when their graph could not be read or made.
    pub fn fail_keys(&mut self, client: ClientId, keys: &[Key], failure: &super::task::Failure) {
        for key in keys {
            let mut clients: Vec<ClientId> = vec![client];
            if let Some(id) = self.task_id(key) {
                clients.extend(self.task(id).who_wants.iter().filter(|c| **c != client));
            }
            for c in clients {
                let msg = super::out::ToClient::TaskErred {
                    key: key.clone(),
                    exception: failure.exception.clone(),
                    traceback: failure.traceback.clone(),
                };
                self.send_client(c, msg);
            }
        }
        let name = self.client(client).name.clone();
        let stimulus = self.stimulus("update-graph").to_string();
        let fields = [
            ("stimulus_id", Value::from(stimulus.as_str())),
            ("status", "error".into()),
        ];
        self.log_action(&["scheduler", &name], "update-graph", &fields);
    }
}

/// `("host", 1234)` is one restriction, not two.
fn is_host_port(list: &[Value]) -> bool {
    matches!(list, [host, port] if host.as_str().is_some() && port.as_i64().is_some())
}

/// Dependencies of task `i`.
fn deps_of(graph: &Graph, i: u32) -> &[u32] {
    let (from, to) = (
        graph.dep_offsets[i as usize] as usize,
        graph.dep_offsets[i as usize + 1] as usize,
    );
    &graph.deps[from..to]
}

/// Keys of a graph by their place.
struct GraphIndex<'a> {
    map: hashbrown::HashMap<&'a Key, u32, rustc_hash::FxBuildHasher>,
}

impl<'a> GraphIndex<'a> {
    fn new(graph: &'a Graph) -> Self {
        Self {
            map: graph
                .keys
                .iter()
                .enumerate()
                .map(|(i, k)| (k, i as u32))
                .collect(),
        }
    }

    fn get(&self, key: &Key) -> Option<u32> {
        self.map.get(key).copied()
    }
}
