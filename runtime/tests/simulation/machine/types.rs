//! Words of the worker's state machine.

use std::collections::BTreeSet;
use std::sync::Arc;

/// A key, by its number in the simulation.
pub type K = u32;
pub type Address = Arc<str>;
pub type Name = Arc<str>;
/// Lower runs first.
pub type Priority = (i64, i64, i64, i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Released,
    Waiting,
    Ready,
    Constrained,
    Executing,
    LongRunning,
    Fetch,
    Flight,
    Missing,
    Memory,
    Error,
    Cancelled,
    Resumed,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Constrained => "constrained",
            Self::Executing => "executing",
            Self::LongRunning => "long-running",
            Self::Fetch => "fetch",
            Self::Flight => "flight",
            Self::Missing => "missing",
            Self::Memory => "memory",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Resumed => "resumed",
        }
    }

    pub fn busy(self) -> bool {
        matches!(self, Self::Executing | Self::LongRunning)
    }
}

/// Where a task is to go, with what it takes along.
#[derive(Clone, Debug)]
pub enum Target {
    Released,
    Waiting,
    Ready,
    Constrained,
    Executing,
    LongRunning(Option<f64>),
    Fetch,
    Flight,
    Missing,
    Memory(u64, u64),
    Error(u64),
    Rescheduled,
    Forgotten,
}

impl Target {
    pub fn is(&self, phase: Phase) -> bool {
        matches!(
            (self, phase),
            (Self::Released, Phase::Released)
                | (Self::Waiting, Phase::Waiting)
                | (Self::Ready, Phase::Ready)
                | (Self::Constrained, Phase::Constrained)
                | (Self::Executing, Phase::Executing)
                | (Self::LongRunning(_), Phase::LongRunning)
                | (Self::Fetch, Phase::Fetch)
                | (Self::Flight, Phase::Flight)
                | (Self::Missing, Phase::Missing)
                | (Self::Memory(..), Phase::Memory)
                | (Self::Error(_), Phase::Error)
        )
    }
}

#[derive(Debug)]
pub struct Task {
    pub state: Phase,
    pub previous: Option<Phase>,
    pub next: Option<Phase>,
    pub done: bool,
    pub dependencies: BTreeSet<K>,
    pub dependents: BTreeSet<K>,
    pub waiting_for: BTreeSet<K>,
    pub waiters: BTreeSet<K>,
    pub who_has: BTreeSet<Address>,
    pub priority: Priority,
    pub run_id: u64,
    pub spec: Option<u32>,
    pub resources: Vec<(Name, f64)>,
    pub nbytes: i64,
}

impl Task {
    pub fn new(priority: Priority) -> Self {
        Self {
            state: Phase::Released,
            previous: None,
            next: None,
            done: false,
            dependencies: BTreeSet::new(),
            dependents: BTreeSet::new(),
            waiting_for: BTreeSet::new(),
            waiters: BTreeSet::new(),
            who_has: BTreeSet::new(),
            priority,
            run_id: 0,
            spec: None,
            resources: Vec::new(),
            nbytes: 0,
        }
    }
}

/// A dependency as a message tells of it.
#[derive(Clone, Debug)]
pub struct Holders {
    pub key: K,
    pub who_has: Vec<Address>,
    pub nbytes: i64,
}

/// What the scheduler says.
#[derive(Clone, Debug)]
pub enum ToWorker {
    Compute {
        key: K,
        run_id: u64,
        priority: (i64, i64, i64),
        spec: u32,
        dependencies: Vec<Holders>,
        resources: Vec<(Name, f64)>,
    },
    FreeKeys(Vec<K>),
    RemoveReplicas(Vec<K>),
    AcquireReplicas(Vec<Holders>),
    StealRequest {
        key: K,
        request: u64,
    },
    RefreshWhoHas(Vec<Holders>),
    StatusChange(&'static str),
    RemoveWorker(Address),
    Close,
}

/// What a worker says.
#[derive(Clone, Debug)]
pub enum FromWorker {
    Finished {
        key: K,
        run_id: u64,
        nbytes: i64,
        seconds: f64,
    },
    Erred {
        key: K,
        run_id: u64,
    },
    ReleaseData(K),
    AddKeys(Vec<K>),
    LongRunning {
        key: K,
        run_id: u64,
        seconds: Option<f64>,
    },
    Reschedule(K),
    StealResponse {
        key: K,
        state: Option<&'static str>,
        request: u64,
    },
    RequestRefresh(Vec<K>),
    StatusChange(&'static str),
}

/// What happens to a worker.
#[derive(Clone, Debug)]
pub enum Event {
    Message(ToWorker),
    Scatter(K, u64, i64),
    Executed(K, u64, u64, i64),
    Failed(K, u64),
    AskedToReschedule(K),
    Seceded(K, f64),
    GatherDone(Address, Vec<(K, u64)>),
    GatherBusy(Address),
    GatherFailed(Address),
    RetryBusy(Address),
    FindMissing,
    Pause,
    Unpause,
}

/// What a worker's owner has to do.
#[derive(Debug)]
pub enum Instruction {
    Execute(K),
    Gather(Address, Vec<K>),
    RetryBusyLater(Address),
    Say(FromWorker),
}

/// Recommendations: taken from the end; a second one for a key keeps the place of the first.
#[derive(Default)]
pub struct Recs(Vec<(K, Target)>);

impl Recs {
    pub fn set(&mut self, k: K, target: Target) {
        match self.0.iter_mut().find(|(have, _)| *have == k) {
            Some((_, t)) => *t = target,
            None => self.0.push((k, target)),
        }
    }

    pub fn one(k: K, target: Target) -> Self {
        Self(vec![(k, target)])
    }

    pub fn pop(&mut self) -> Option<(K, Target)> {
        self.0.pop()
    }

    pub fn remove(&mut self, k: K) -> Option<Target> {
        let at = self.0.iter().position(|(have, _)| *have == k)?;
        Some(self.0.remove(at).1)
    }

    pub fn update(&mut self, other: Self) {
        for (k, t) in other.0 {
            self.set(k, t);
        }
    }
}

impl Recs {
    pub fn has(&self, k: K) -> bool {
        self.0.iter().any(|(have, _)| *have == k)
    }
}
