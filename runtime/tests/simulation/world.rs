//! The simulated world: virtual time, connections that keep order, and the scheduler in the middle.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use oxidask_runtime::scheduler::{Clock, Out, State, WorkerId};

use crate::book::Book;
use crate::client::{Client, FromClient};
use crate::machine::{Address, FromWorker, K};
use crate::process::{Process, Slot};
use crate::rng::Rng;
use crate::scenario::Scenario;

/// What happens next.
#[derive(Clone, Debug)]
pub enum What {
    /// The next message of a worker reaches the scheduler.
    FromWorker(usize),
    /// The next message of the scheduler reaches a worker.
    ToWorker(usize),
    FromClient(usize),
    ToClient(usize),
    /// A process tries to register.
    Register(usize),
    /// A task's function returns or raises.
    Executed(usize, K, u64),
    Seceded(usize, K, u64),
    /// A request for data reaches a peer.
    Asked(usize, Address, Vec<K>),
    /// The answer is back; none if the peer broke off.
    Answered(usize, Address, Option<Vec<(K, u64)>>),
    Busy(usize, Address),
    RetryBusy(usize, Address),
    Unpause(usize),
    Retired(usize),
    /// A new process in a slot whose last one died.
    Start(usize),
    ClientActs,
    Fault,
    Heartbeat(usize),
    Timers,
}

impl What {
    /// Comes again and again; says nothing about whether work is left.
    pub fn is_periodic(&self) -> bool {
        matches!(self, Self::Fault | Self::Heartbeat(_) | Self::Timers)
    }
}

/// Messages of one connection in one direction: delayed, never reordered.
pub struct Link<T> {
    pub queue: VecDeque<T>,
    pub last: f64,
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            last: 0.0,
        }
    }
}

struct Entry {
    time: f64,
    seq: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.time
            .total_cmp(&other.time)
            .then(self.seq.cmp(&other.seq))
    }
}

pub struct World {
    pub rng: Rng,
    pub scenario: Scenario,
    pub now: f64,
    pub state: State,
    pub book: Book,
    pub slots: Vec<Slot>,
    pub processes: Vec<Process>,
    pub by_worker: BTreeMap<WorkerId, usize>,
    pub clients: Vec<Client>,
    /// Faults and new work still happen.
    pub rough: bool,
    pub actions_left: usize,
    pub graphs: usize,
    pub events: u64,
    trace: bool,
    heap: BinaryHeap<Reverse<Entry>>,
    seq: u64,
    /// Entries of the heap that are not periodic.
    pub pending: usize,
}

impl World {
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::draw(&mut rng);
        let state = State::new(scenario.config.clone(), clock(0.0));
        let mut world = Self {
            now: 0.0,
            state,
            book: Book::default(),
            slots: Vec::new(),
            processes: Vec::new(),
            by_worker: BTreeMap::new(),
            clients: Vec::new(),
            rough: true,
            actions_left: scenario.actions,
            graphs: 0,
            events: 0,
            trace,
            heap: BinaryHeap::new(),
            seq: 0,
            pending: 0,
            rng,
            scenario,
        };
        if trace {
            println!("{:#?}", world.scenario);
        }
        world.make_slots();
        world.make_clients();
        world.state.start_timers();
        world.after(0.1, What::ClientActs);
        world.after(0.1, What::Fault);
        world.after(0.1, What::Timers);
        world
    }

    pub fn log(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:09.4} {}", self.now, text());
        }
    }

    pub fn after(&mut self, delay: f64, what: What) {
        self.at(self.now + delay, what);
    }

    pub fn at(&mut self, time: f64, what: What) {
        self.seq += 1;
        if !what.is_periodic() {
            self.pending += 1;
        }
        self.heap.push(Reverse(Entry {
            time: time.max(self.now),
            seq: self.seq,
            what,
        }));
    }

    /// Lets one thing happen. False if nothing is left.
    pub fn step(&mut self) -> bool {
        let Some(Reverse(entry)) = self.heap.pop() else {
            return false;
        };
        if !entry.what.is_periodic() {
            self.pending -= 1;
        }
        self.now = entry.time;
        self.events += 1;
        self.happen(entry.what);
        true
    }

    /// Runs one event of the scheduler, checks it, and sends what it says.
    pub fn scheduler<R>(&mut self, f: impl FnOnce(&mut State) -> R) -> R {
        self.state.clock = clock(self.now);
        let before = self.state.transition_counter;
        let result = f(&mut self.state);
        if self.trace {
            self.log_transitions(before);
        }
        if let Err(violation) = self.state.validate() {
            panic!("at {:.4}: {violation}", self.now);
        }
        if !self.rng.chance(self.scenario.deferred) {
            self.flush();
        }
        result
    }

    fn log_transitions(&self, before: u64) {
        let all: Vec<_> = self.state.transition_log.iter().collect();
        let new = (self.state.transition_counter - before) as usize;
        for t in &all[all.len().saturating_sub(new)..] {
            let recs: Vec<String> = t
                .recommendations
                .iter()
                .map(|(k, s)| format!("{k}: {}", s.as_str()))
                .collect();
            let (start, finish) = (t.start.as_str(), t.finish.as_str());
            let recs = recs.join(", ");
            self.log(|| {
                format!(
                    "      {} {start} -> {finish} ({}) [{recs}]",
                    t.key, t.stimulus.kind
                )
            });
        }
    }

    /// Writes the scheduler's messages to the connections, as `net::encode` would.
    pub fn flush(&mut self) {
        for out in std::mem::take(&mut self.state.out) {
            match out {
                Out::Worker(w, msg) => self.write_to_worker(w, msg),
                Out::Client(c, msg) => self.write_to_client(c, msg),
                Out::DropWorker(w) => self.drop_worker(w),
            }
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::FromWorker(p) => self.take_from_worker(p),
            What::ToWorker(p) => self.give_to_worker(p),
            What::FromClient(c) => self.take_from_client(c),
            What::ToClient(c) => self.give_to_client(c),
            What::Register(p) => self.register(p),
            What::Executed(p, k, run) => self.executed(p, k, run),
            What::Seceded(p, k, run) => self.seceded(p, k, run),
            What::Asked(p, peer, keys) => self.asked(p, peer, keys),
            What::Answered(p, peer, data) => self.answered(p, peer, data),
            What::Busy(p, peer) => self.busy(p, peer),
            What::RetryBusy(p, peer) => self.retry_busy(p, peer),
            What::Unpause(p) => self.unpause(p),
            What::Retired(p) => self.retired(p),
            What::Start(slot) => self.start(slot),
            What::ClientActs => self.clients_act(),
            What::Fault => self.fault(),
            What::Heartbeat(p) => self.heartbeat(p),
            What::Timers => {
                let next = self.scheduler(oxidask_runtime::scheduler::State::run_timers);
                assert!(next > self.now, "timers want to run again at once");
                self.at(next.min(self.now + 1.0), What::Timers);
            }
        }
    }

    // ---- connections

    pub fn latency(&mut self) -> f64 {
        let mean = self.scenario.latency;
        // Now and then a message is much later than usual.
        let mean = if self.rng.chance(0.02) {
            mean * 10.0
        } else {
            mean
        };
        self.rng.delay(mean)
    }

    fn arrival(&mut self, last: f64) -> f64 {
        (self.now + self.latency()).max(last)
    }

    pub fn send_from_worker(&mut self, p: usize, msg: Option<FromWorker>) {
        let time = self.arrival(self.processes[p].up.last);
        self.processes[p].up.last = time;
        self.processes[p].up.queue.push_back(msg);
        self.at(time, What::FromWorker(p));
    }

    pub fn send_to_worker(&mut self, p: usize, msg: Option<crate::machine::ToWorker>) {
        let time = self.arrival(self.processes[p].down.last);
        self.processes[p].down.last = time;
        self.processes[p].down.queue.push_back(msg);
        self.at(time, What::ToWorker(p));
    }

    pub fn send_from_client(&mut self, c: usize, msg: FromClient) {
        let time = self.arrival(self.clients[c].up.last);
        self.clients[c].up.last = time;
        self.clients[c].up.queue.push_back(msg);
        self.at(time, What::FromClient(c));
    }

    pub fn send_to_client(&mut self, c: usize, msg: crate::client::Report) {
        let time = self.arrival(self.clients[c].down.last);
        self.clients[c].down.last = time;
        self.clients[c].down.queue.push_back(msg);
        self.at(time, What::ToClient(c));
    }
}

fn clock(now: f64) -> Clock {
    Clock {
        wall: 1.7e9 + now,
        mono: now,
    }
}
