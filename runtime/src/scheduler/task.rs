//! Tasks, their groups and their prefixes.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::ids::{ClientId, GroupId, IdSet, PrefixId, TaskId, WorkerId};
use crate::graph::RunSpec;
use crate::protocol::{Key, Payload, Value};

/// A task's state on the scheduler, as in `distributed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TaskStateName {
    /// Known, not wanted to run now.
    Released,
    /// Wanted, waits for dependencies.
    Waiting,
    /// Ready, but no worker may run it.
    NoWorker,
    /// Ready, held back until a worker has a free slot.
    Queued,
    /// Sent to a worker.
    Processing,
    /// Result held by at least one worker.
    Memory,
    /// Failed, or a dependency failed.
    Erred,
    /// Gone.
    Forgotten,
}

/// Number of task states.
pub const N_STATES: usize = 8;

impl TaskStateName {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; N_STATES] = [
        Self::Released,
        Self::Waiting,
        Self::NoWorker,
        Self::Queued,
        Self::Processing,
        Self::Memory,
        Self::Erred,
        Self::Forgotten,
    ];

    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Waiting => "waiting",
            Self::NoWorker => "no-worker",
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Memory => "memory",
            Self::Erred => "erred",
            Self::Forgotten => "forgotten",
        }
    }
}

/// Order in which ready tasks run; lower sorts first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Priority {
    /// Minus the user's priority; a child of a running task gets its parent's value less 0.01 in `generation`.
    pub user: f64,
    /// Number of the graph, in order of submission.
    pub generation: f64,
    /// Place in the graph's static order.
    pub internal: i64,
}

impl Priority {
    /// Total order (NaN, which no peer sends, sorts last).
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.user
            .total_cmp(&other.user)
            .then(self.generation.total_cmp(&other.generation))
            .then(self.internal.cmp(&other.internal))
    }
}

/// An exception as it travels: opaque to the scheduler.
#[derive(Clone, Debug)]
pub enum ErrorPayload {
    /// As the worker sent it.
    Payload(Payload),
    /// A pickle made by the scheduler itself.
    Pickle(Bytes),
    /// Absent.
    Nil,
}

/// Why a task failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The exception.
    pub exception: ErrorPayload,
    /// The traceback, if any.
    pub traceback: ErrorPayload,
    /// `repr` of the exception.
    pub exception_text: String,
    /// The formatted traceback.
    pub traceback_text: String,
}

/// Where a task may run.
#[derive(Clone, Debug, Default)]
pub struct Restrictions {
    /// Worker addresses.
    pub workers: Vec<Arc<str>>,
    /// Host names or addresses, or aliases of workers whose host is meant.
    pub hosts: Vec<Arc<str>>,
    /// Amount needed of each named resource.
    pub resources: Vec<(Arc<str>, f64)>,
}

impl Restrictions {
    /// Whether nothing is restricted.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty() && self.hosts.is_empty() && self.resources.is_empty()
    }
}

/// What few tasks have; boxed so that the many stay small.
#[derive(Clone, Debug, Default)]
pub struct Rare {
    /// Worker, host and resource restrictions.
    pub restrictions: Restrictions,
    /// Restrictions may be ignored if no worker satisfies them.
    pub loose_restrictions: bool,
    /// Annotations as given by the user, sent along to the worker. Shared by the tasks of a graph.
    pub annotations: Option<Arc<Vec<(String, Value)>>>,
    /// Times the task may still fail.
    pub retries: u32,
    /// Workers that were lost while running it.
    pub suspicious: u32,
    /// The task whose failure this one shares (itself, if it failed).
    pub exception_blame: Option<TaskId>,
    /// The failure, on the task that failed.
    pub failure: Option<Arc<Failure>>,
    /// Addresses of workers on which it failed.
    pub erred_on: Vec<Arc<str>>,
    /// Metadata sent with results.
    pub metadata: Vec<(Value, Value)>,
}

/// A task.
#[derive(Debug)]
pub struct Task {
    /// The key, as known to clients and workers.
    pub key: Key,
    /// State; change it only through `State::set_state`.
    pub state: TaskStateName,
    /// Its group.
    pub group: GroupId,
    /// Its prefix.
    pub prefix: PrefixId,
    /// What to run; none for scattered data and keys only heard of.
    pub spec: Option<RunSpec>,
    /// Order; none until a graph sets it.
    pub priority: Option<Priority>,
    /// Tasks whose results it needs.
    pub dependencies: IdSet<TaskId>,
    /// Tasks that need its result.
    pub dependents: IdSet<TaskId>,
    /// Dependencies without a replica, while waiting.
    pub waiting_on: IdSet<TaskId>,
    /// Dependents that still have to run.
    pub waiters: IdSet<TaskId>,
    /// Clients that want the result.
    pub who_wants: SmallVec<[ClientId; 2]>,
    /// Workers that hold the result.
    pub who_has: SmallVec<[WorkerId; 2]>,
    /// The worker it was sent to.
    pub processing_on: Option<WorkerId>,
    /// Number of the last compute-task message for it.
    pub run_id: u64,
    /// Size of the result in bytes, −1 if unknown.
    pub nbytes: i64,
    /// Interned type name of the result.
    pub typename: Option<Arc<str>>,
    /// The result is an actor.
    pub actor: bool,
    /// May be held back on the scheduler.
    pub queueable: bool,
    /// Marked by Dask as a task that loads or makes data.
    pub data_producer: bool,
    /// A dependency was forgotten; cannot run any more.
    pub has_lost_dependencies: bool,
    /// The barrier of a peer-to-peer shuffle.
    pub p2p_barrier: bool,
    /// Which entry of the queue is its own.
    pub(super) queue_seq: u64,
    /// Place among the pending recommendations; `u32::MAX` if none.
    pub(super) rec_at: u32,
    /// When it became `no-worker`, on the monotonic clock, s.
    pub unrunnable_since: f64,
    /// The rest.
    pub rare: Option<Box<Rare>>,
}

impl Task {
    /// A new, released task.
    pub fn new(key: Key, group: GroupId, prefix: PrefixId) -> Self {
        Self {
            key,
            state: TaskStateName::Released,
            group,
            prefix,
            spec: None,
            priority: None,
            dependencies: IdSet::default(),
            dependents: IdSet::default(),
            waiting_on: IdSet::default(),
            waiters: IdSet::default(),
            who_wants: SmallVec::new(),
            who_has: SmallVec::new(),
            processing_on: None,
            run_id: 0,
            nbytes: -1,
            typename: None,
            actor: false,
            queueable: true,
            data_producer: false,
            has_lost_dependencies: false,
            p2p_barrier: false,
            queue_seq: 0,
            rec_at: u32::MAX,
            unrunnable_since: 0.0,
            rare: None,
        }
    }

    /// The rare fields, made if absent.
    pub fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Restrictions, if there are any.
    pub fn restrictions(&self) -> Option<&Restrictions> {
        self.rare
            .as_ref()
            .map(|r| &r.restrictions)
            .filter(|r| !r.is_empty())
    }

    /// Whether restrictions may be ignored.
    pub fn loose_restrictions(&self) -> bool {
        self.rare.as_ref().is_some_and(|r| r.loose_restrictions)
    }

    /// The task whose failure this one shares.
    pub fn exception_blame(&self) -> Option<TaskId> {
        self.rare.as_ref().and_then(|r| r.exception_blame)
    }

    /// An annotation by name.
    pub fn annotation(&self, name: &str) -> Option<&Value> {
        let list = self.rare.as_ref()?.annotations.as_ref()?;
        list.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// Whether nobody waits for the result: no client, no dependent that still has to run.
    pub fn unneeded(&self) -> bool {
        self.waiters.is_empty() && self.who_wants.is_empty()
    }
}

/// Seconds spent by the tasks of a group or prefix, by activity.
#[derive(Clone, Debug, Default)]
pub struct Durations(pub SmallVec<[(Arc<str>, f64); 2]>);

impl Durations {
    /// Adds `seconds` to `action`.
    pub fn add(&mut self, action: &str, seconds: f64) {
        // Activities are a short closed list; a peer that invents more is not followed.
        let full = self.0.len() >= 16;
        match self.0.iter_mut().find(|(a, _)| &**a == action) {
            Some((_, s)) => *s += seconds,
            None if !full => self.0.push((action.into(), seconds)),
            None => {}
        }
    }

    /// Seconds of `action`.
    pub fn get(&self, action: &str) -> f64 {
        self.0
            .iter()
            .find(|(a, _)| &**a == action)
            .map_or(0.0, |(_, s)| *s)
    }
}

/// Tasks of one operation of one collection.
#[derive(Debug)]
pub struct Group {
    /// Name.
    pub name: Arc<str>,
    /// Prefix.
    pub prefix: PrefixId,
    /// Number of tasks in each state, forgotten ones included while the group lives.
    pub states: [u32; N_STATES],
    /// Groups its tasks depend on.
    pub dependencies: IdSet<GroupId>,
    /// Groups whose tasks depend on it.
    pub dependents: IdSet<GroupId>,
    /// Bytes of results ever stored, as `distributed` counts them.
    pub nbytes_total: i64,
    /// Seconds by activity.
    pub durations: Durations,
    /// First start and last stop, s since the epoch.
    pub start: f64,
    /// Last stop, s since the epoch.
    pub stop: f64,
    /// Worker that got the last task, when queuing is off.
    pub last_worker: Option<WorkerId>,
    /// Tasks that worker still gets.
    pub last_worker_tasks_left: i64,
    /// A warning about keys that collide was logged.
    pub collision_logged: bool,
}

impl Group {
    /// Number of tasks ever in the group.
    pub fn len(&self) -> usize {
        self.states.iter().map(|n| *n as usize).sum()
    }

    /// Whether the group never had a task.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All tasks of one operation name; durations are learned per prefix.
#[derive(Debug)]
pub struct Prefix {
    /// Name.
    pub name: Arc<str>,
    /// Average seconds of "compute", −1 if unknown.
    pub duration_average: f64,
    /// Size of its results, bytes, leaning to the large ones; −1 if unknown.
    pub nbytes_average: f64,
    /// Longest running time heard of in heartbeats, −1 if none.
    pub max_exec_time: f64,
    /// Number of tasks in each state now.
    pub states: [u32; N_STATES],
    /// Transitions into each state so far.
    pub state_totals: [u64; N_STATES],
    /// Seconds by activity.
    pub durations: Durations,
    /// Workers lost while running a task of it.
    pub suspicious: u64,
    /// Tasks processing (long-running ones not counted) over all workers.
    pub processing: u32,
    /// Its live groups.
    pub groups: IdSet<GroupId>,
}
