//! The scheduler's state: arenas of tasks, workers and clients, and the books kept over them.
//!
//! Every input is a method that takes an event; every output goes to [`State::out`]. Nothing here does I/O, reads a
//! clock or draws random numbers: the owner sets [`State::clock`] before each event.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::amm::Amm;
use super::client::Client;
use super::config::CoreConfig;
use super::events::Broker;
use super::ids::{ClientId, GroupId, IdSet, PrefixId, TaskId, WorkerId};
use super::out::Out;
use super::queue::QueueEntry;
use super::sampler::Samplers;
use super::shuffle::Shuffles;
use super::stealing::Stealing;
use super::story::TransitionLog;
use super::tap::Tap;
use super::task::{Group, N_STATES, Prefix, Task, TaskStateName};
use super::task_metadata::TaskMetadata;
use super::task_stream::TaskStream;
use super::timers::Timers;
use super::window::Window;
use super::worker::Worker;
use crate::protocol::{Key, key_split, key_split_group};

/// The two clocks, read by the owner before each event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Seconds since the epoch.
    pub wall: f64,
    /// Seconds on a clock that never goes back.
    pub mono: f64,
}

/// One line of the log of failed tasks.
#[derive(Clone, Debug)]
pub struct ErredTask {
    /// The task.
    pub key: Key,
    /// When, s since the epoch.
    pub timestamp: f64,
    /// Workers it failed on.
    pub erred_on: Vec<Arc<str>>,
    /// `repr` of the exception.
    pub exception_text: String,
    /// The formatted traceback.
    pub traceback_text: String,
}

/// Workers of one host.
#[derive(Clone, Debug, Default)]
pub struct HostInfo {
    /// Addresses of its workers.
    pub addresses: Vec<Arc<str>>,
}

/// Figures counted since the start, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Workers that registered.
    pub workers_added: u64,
    /// Workers that left.
    pub workers_removed: u64,
    /// Clients that registered.
    pub clients_added: u64,
    /// Clients that left.
    pub clients_removed: u64,
}

/// Everything the scheduler knows.
pub struct State {
    /// Settings.
    pub config: CoreConfig,
    /// Time of the event being handled.
    pub clock: Clock,
    /// Messages to be sent, in order.
    pub out: Vec<Out>,

    pub(super) tasks: Vec<Option<Task>>,
    pub(super) free_tasks: Vec<TaskId>,
    pub(super) task_index: HashMap<Key, TaskId, FxBuildHasher>,
    pub(super) groups: Vec<Option<Group>>,
    pub(super) free_groups: Vec<GroupId>,
    pub(super) group_index: FxHashMap<Arc<str>, GroupId>,
    pub(super) prefixes: Vec<Prefix>,
    pub(super) prefix_index: FxHashMap<Arc<str>, PrefixId>,
    /// Prefixes with tasks processing.
    pub(super) active_prefixes: IdSet<PrefixId>,
    pub(super) typenames: FxHashMap<Box<str>, Arc<str>>,

    pub(super) workers: Vec<Worker>,
    pub(super) worker_index: FxHashMap<Arc<str>, WorkerId>,
    /// Registered workers in order of registration.
    pub(super) live_workers: IdSet<WorkerId>,
    pub(super) aliases: FxHashMap<String, WorkerId>,
    pub(super) hosts: FxHashMap<Arc<str>, HostInfo>,
    /// Supply by resource and worker.
    pub(super) resources: FxHashMap<Arc<str>, FxHashMap<WorkerId, f64>>,
    pub(super) running: IdSet<WorkerId>,
    pub(super) idle: IdSet<WorkerId>,
    pub(super) idle_task_count: IdSet<WorkerId>,
    pub(super) saturated: IdSet<WorkerId>,
    pub(super) total_nthreads: u32,
    pub(super) total_memory: u64,
    /// Bytes that processing tasks still have to fetch.
    pub(super) network_occ: i64,
    /// Estimated bytes/s between workers.
    pub bandwidth: f64,
    /// Tasks sent so far.
    pub n_tasks: u64,

    pub(super) clients: Vec<Option<Client>>,
    pub(super) client_index: FxHashMap<Arc<str>, ClientId>,

    pub(super) recs: Vec<(TaskId, TaskStateName)>,
    pub(super) queued: BinaryHeap<QueueEntry>,
    pub(super) queued_len: usize,
    pub(super) queue_seq: u64,
    pub(super) unrunnable: IdSet<TaskId>,
    pub(super) replicated: IdSet<TaskId>,
    pub(super) run_id: u64,
    pub(super) generation: f64,
    pub(super) last_graph_time: f64,
    /// Transitions so far; tells whether anything happened.
    pub transition_counter: u64,
    /// Graphs being materialised now.
    pub active_graph_updates: u32,
    pub(super) idle_since: Option<f64>,
    pub(super) idle_transition_counter: u64,
    /// Since when tasks wait and no worker takes work, on the monotonic clock, s.
    pub(super) no_workers_since: Option<f64>,

    /// Log of transitions.
    pub transition_log: TransitionLog,
    /// Failed tasks, newest first.
    pub erred_tasks: VecDeque<ErredTask>,
    /// Events by topic.
    pub events: Broker,
    /// Records of finished tasks, once asked for.
    pub task_stream: TaskStream,
    /// Metadata of tasks being collected.
    pub(super) task_metadata: TaskMetadata,
    /// Who hears of every step.
    pub tap: Tap,
    /// Work stealing.
    pub stealing: Stealing,
    /// Active memory manager.
    pub amm: Amm,
    /// Peer-to-peer shuffles.
    pub shuffles: Shuffles,
    /// Counters.
    pub totals: Totals,
    pub(super) timers: Timers,
    pub(super) samplers: Samplers,
    pub(super) window: Window,
}

impl State {
    /// An empty scheduler.
    pub fn new(config: CoreConfig, clock: Clock) -> Self {
        let mut state = Self {
            clock,
            out: Vec::new(),
            tasks: Vec::new(),
            free_tasks: Vec::new(),
            task_index: HashMap::with_hasher(FxBuildHasher),
            groups: Vec::new(),
            free_groups: Vec::new(),
            group_index: FxHashMap::default(),
            prefixes: Vec::new(),
            prefix_index: FxHashMap::default(),
            active_prefixes: IdSet::default(),
            typenames: FxHashMap::default(),
            workers: Vec::new(),
            worker_index: FxHashMap::default(),
            live_workers: IdSet::default(),
            aliases: FxHashMap::default(),
            hosts: FxHashMap::default(),
            resources: FxHashMap::default(),
            running: IdSet::default(),
            idle: IdSet::default(),
            idle_task_count: IdSet::default(),
            saturated: IdSet::default(),
            total_nthreads: 0,
            total_memory: 0,
            network_occ: 0,
            bandwidth: config.bandwidth,
            n_tasks: 0,
            clients: Vec::new(),
            client_index: FxHashMap::default(),
            recs: Vec::new(),
            queued: BinaryHeap::new(),
            queued_len: 0,
            queue_seq: 0,
            unrunnable: IdSet::default(),
            replicated: IdSet::default(),
            run_id: 0,
            generation: 0.0,
            last_graph_time: 0.0,
            transition_counter: 0,
            active_graph_updates: 0,
            idle_since: Some(clock.wall),
            idle_transition_counter: 0,
            no_workers_since: None,
            transition_log: TransitionLog::new(config.low_level_log_length),
            erred_tasks: VecDeque::new(),
            events: Broker::new(config.low_level_log_length),
            task_metadata: TaskMetadata::default(),
            task_stream: TaskStream::new(config.task_stream_length),
            tap: Tap::default(),
            stealing: Stealing::new(),
            amm: Amm::new(&config),
            shuffles: Shuffles::default(),
            totals: Totals::default(),
            timers: Timers::default(),
            samplers: Samplers::default(),
            window: Window::default(),
            config,
        };
        state.ensure_client(FIRE_AND_FORGET);
        state
    }

    // ---- tasks

    /// The task of a live id.
    ///
    /// # Panics
    /// If the id is stale: ids of forgotten tasks are removed from every table, so this would be a defect here.
    #[inline]
    pub fn task(&self, id: TaskId) -> &Task {
        match &self.tasks[id.0 as usize] {
            Some(task) => task,
            None => unreachable!("stale task id {id:?}"),
        }
    }

    /// The task of an id that may be stale.
    pub fn live_task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(id.0 as usize)?.as_ref()
    }

    /// As [`State::task`], mutable.
    #[inline]
    pub(super) fn task_mut(&mut self, id: TaskId) -> &mut Task {
        match &mut self.tasks[id.0 as usize] {
            Some(task) => task,
            None => unreachable!("stale task id {id:?}"),
        }
    }

    /// The task with this key.
    pub fn task_id(&self, key: &Key) -> Option<TaskId> {
        self.task_index.get(key).copied()
    }

    /// The task with these canonical key bytes.
    #[inline]
    pub fn task_id_by_bytes(&self, key: &[u8]) -> Option<TaskId> {
        self.task_index.get(key).copied()
    }

    /// Number of tasks.
    pub fn n_known_tasks(&self) -> usize {
        self.task_index.len()
    }

    /// All tasks.
    pub fn all_tasks(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks
            .iter()
            .enumerate()
            .filter_map(|(i, t)| Some((TaskId(i as u32), t.as_ref()?)))
    }

    /// Makes a task in state `released`.
    pub(super) fn new_task(&mut self, key: Key) -> TaskId {
        let group_name = key_split_group(&key);
        let group = match self.group_index.get(group_name.as_str()) {
            Some(id) => *id,
            None => {
                let prefix_name = key_split(&key);
                let prefix = self.ensure_prefix(&prefix_name);
                self.new_group(group_name.into(), prefix)
            }
        };
        let g = self.group_mut(group);
        g.states[TaskStateName::Released as usize] += 1;
        let prefix = g.prefix;
        let p = &mut self.prefixes[prefix.0 as usize];
        p.states[TaskStateName::Released as usize] += 1;
        p.state_totals[TaskStateName::Released as usize] += 1;
        let task = Task::new(key.clone(), group, prefix);
        let id = match self.free_tasks.pop() {
            Some(id) => {
                self.tasks[id.0 as usize] = Some(task);
                id
            }
            None => {
                self.tasks.push(Some(task));
                TaskId(self.tasks.len() as u32 - 1)
            }
        };
        self.task_index.insert(key, id);
        id
    }

    /// Sets a task's state and keeps the counts of its group and prefix.
    #[inline]
    pub(super) fn set_state(&mut self, id: TaskId, new: TaskStateName) {
        let task = self.task_mut(id);
        let old = std::mem::replace(&mut task.state, new);
        let (group, prefix) = (task.group, task.prefix);
        let g = self.group_mut(group);
        g.states[old as usize] -= 1;
        g.states[new as usize] += 1;
        let p = &mut self.prefixes[prefix.0 as usize];
        p.states[old as usize] -= 1;
        if new != TaskStateName::Forgotten {
            p.states[new as usize] += 1;
        } else {
            p.states[TaskStateName::Forgotten as usize] += 1;
        }
        p.state_totals[new as usize] += 1;
    }

    /// One shared copy of a type's name.
    pub(super) fn intern_typename(&mut self, name: &str) -> Arc<str> {
        if let Some(n) = self.typenames.get(name) {
            return n.clone();
        }
        let n: Arc<str> = name.into();
        if self.typenames.len() < 10_000 {
            self.typenames.insert(name.into(), n.clone());
        }
        n
    }

    // ---- groups and prefixes

    /// The group of a live id.
    #[inline]
    pub fn group(&self, id: GroupId) -> &Group {
        match &self.groups[id.0 as usize] {
            Some(g) => g,
            None => unreachable!("stale group id {id:?}"),
        }
    }

    #[inline]
    pub(super) fn group_mut(&mut self, id: GroupId) -> &mut Group {
        match &mut self.groups[id.0 as usize] {
            Some(g) => g,
            None => unreachable!("stale group id {id:?}"),
        }
    }

    /// All groups.
    pub fn all_groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().flatten()
    }

    fn new_group(&mut self, name: Arc<str>, prefix: PrefixId) -> GroupId {
        let group = Group {
            name: name.clone(),
            prefix,
            states: [0; N_STATES],
            dependencies: IdSet::default(),
            dependents: IdSet::default(),
            nbytes_total: 0,
            durations: Default::default(),
            start: 0.0,
            stop: 0.0,
            last_worker: None,
            last_worker_tasks_left: 0,
            collision_logged: false,
        };
        let id = match self.free_groups.pop() {
            Some(id) => {
                self.groups[id.0 as usize] = Some(group);
                id
            }
            None => {
                self.groups.push(Some(group));
                GroupId(self.groups.len() as u32 - 1)
            }
        };
        self.prefixes[prefix.0 as usize].groups.insert(id);
        self.group_index.insert(name, id);
        id
    }

    /// Drops a group all of whose tasks are forgotten.
    pub(super) fn drop_group_if_forgotten(&mut self, id: GroupId) {
        let g = self.group(id);
        let forgotten = g.states[TaskStateName::Forgotten as usize] as usize;
        if g.len() != forgotten {
            return;
        }
        let prefix = g.prefix;
        let name = g.name.clone();
        let p = &mut self.prefixes[prefix.0 as usize];
        p.groups.remove(id);
        p.states[TaskStateName::Forgotten as usize] -= forgotten as u32;
        // In stock Dask whoever depended on it goes on counting its tasks; ids are reused here, so the reference goes.
        let g = self.group_mut(id);
        let (dependents, dependencies) = (g.dependents.take(), g.dependencies.take());
        for other in dependents.into_iter().filter(|o| *o != id) {
            self.group_mut(other).dependencies.remove(id);
        }
        for other in dependencies.into_iter().filter(|o| *o != id) {
            self.group_mut(other).dependents.remove(id);
        }
        self.group_index.remove(&name);
        self.groups[id.0 as usize] = None;
        self.free_groups.push(id);
    }

    /// The prefix of an id.
    #[inline]
    pub fn prefix(&self, id: PrefixId) -> &Prefix {
        &self.prefixes[id.0 as usize]
    }

    /// All prefixes ever seen.
    pub fn all_prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    fn ensure_prefix(&mut self, name: &str) -> PrefixId {
        if let Some(id) = self.prefix_index.get(name) {
            return *id;
        }
        let shared: Arc<str> = name.into();
        let known = self
            .config
            .default_task_durations
            .iter()
            .find(|(n, _)| n == name);
        self.prefixes.push(Prefix {
            name: shared.clone(),
            duration_average: known.map_or(-1.0, |(_, s)| *s),
            nbytes_average: -1.0,
            max_exec_time: -1.0,
            states: [0; N_STATES],
            state_totals: [0; N_STATES],
            durations: Default::default(),
            suspicious: 0,
            processing: 0,
            groups: IdSet::default(),
        });
        let id = PrefixId(self.prefixes.len() as u32 - 1);
        self.prefix_index.insert(shared, id);
        id
    }

    // ---- workers

    /// A worker, gone ones included.
    #[inline]
    pub fn worker(&self, id: WorkerId) -> &Worker {
        &self.workers[id.0 as usize]
    }

    #[inline]
    pub(super) fn worker_mut(&mut self, id: WorkerId) -> &mut Worker {
        &mut self.workers[id.0 as usize]
    }

    /// The registered worker with this address.
    pub fn worker_id(&self, address: &str) -> Option<WorkerId> {
        self.worker_index.get(address).copied()
    }

    /// The registered worker of this name, in the text form of the name.
    pub fn worker_by_name(&self, name: &str) -> Option<WorkerId> {
        self.aliases.get(name).copied()
    }

    /// Registered workers.
    pub fn all_workers(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.live_workers.iter().map(|id| (id, self.worker(id)))
    }

    /// Number of registered workers.
    pub fn n_workers(&self) -> usize {
        self.live_workers.len()
    }

    /// Whether the worker is still registered.
    pub fn is_registered(&self, id: WorkerId) -> bool {
        self.live_workers.contains(id)
    }

    /// Workers that take work.
    pub fn running_workers(&self) -> &[WorkerId] {
        self.running.as_slice()
    }

    /// Workers with less work than threads.
    pub fn idle_workers(&self) -> &[WorkerId] {
        self.idle.as_slice()
    }

    /// Workers with much more work than the others.
    pub fn saturated_workers(&self) -> &[WorkerId] {
        self.saturated.as_slice()
    }

    /// Threads of all workers.
    pub fn total_nthreads(&self) -> u32 {
        self.total_nthreads
    }

    /// Memory limits of all workers, bytes.
    pub fn total_memory(&self) -> u64 {
        self.total_memory
    }

    /// Tasks no worker may run.
    pub fn unrunnable_tasks(&self) -> &[TaskId] {
        self.unrunnable.as_slice()
    }

    /// Number of tasks held back on the scheduler.
    pub fn n_queued(&self) -> usize {
        self.queued_len
    }

    /// Host names or addresses and their workers.
    pub fn all_hosts(&self) -> impl Iterator<Item = (&Arc<str>, &HostInfo)> {
        self.hosts.iter()
    }

    // ---- clients

    /// The client of a live id.
    pub fn client(&self, id: ClientId) -> &Client {
        match &self.clients[id.0 as usize] {
            Some(c) => c,
            None => unreachable!("stale client id {id:?}"),
        }
    }

    pub(super) fn client_mut(&mut self, id: ClientId) -> &mut Client {
        match &mut self.clients[id.0 as usize] {
            Some(c) => c,
            None => unreachable!("stale client id {id:?}"),
        }
    }

    /// Whether the id is that of a client that has not left.
    pub fn live_client(&self, id: ClientId) -> bool {
        self.clients.get(id.0 as usize).is_some_and(Option::is_some)
    }

    /// The client of this name.
    pub fn client_id(&self, name: &str) -> Option<ClientId> {
        self.client_index.get(name).copied()
    }

    /// All clients, pseudo-clients included.
    pub fn all_clients(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.clients
            .iter()
            .enumerate()
            .filter_map(|(i, c)| Some((ClientId(i as u32), c.as_ref()?)))
    }
}

/// The pseudo-client that wants fire-and-forget tasks until they are done.
pub const FIRE_AND_FORGET: &str = "fire-and-forget";
