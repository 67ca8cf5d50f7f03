//! Worker processes: they run the machine's instructions in virtual time, join, pause, leave and die.

use std::collections::BTreeMap;

use oxidask_runtime::protocol::Value;
use oxidask_runtime::scheduler::{Status, WorkerId, WorkerInfo, WorkerMetrics};

use crate::machine::{Address, Event, FromWorker, Instruction, K, Machine, Name, ToWorker};
use crate::world::{Link, What, World};

/// A place where worker processes run, one after the other, under one address.
pub struct Slot {
    pub address: Address,
    pub host: Name,
    pub name: String,
    pub threads: usize,
    pub resources: Vec<(Name, f64)>,
    pub process: Option<usize>,
}

/// A task that is running.
pub struct Run {
    pub number: u64,
    pub run_id: u64,
    pub spec: u32,
    pub attempt: u32,
    pub started: f64,
    pub inputs: Vec<u64>,
}

pub struct Process {
    pub slot: usize,
    pub worker: Option<WorkerId>,
    pub machine: Machine,
    pub alive: bool,
    pub paused: bool,
    /// The scheduler closed the stream.
    pub dropped: bool,
    /// None: the end of the stream.
    pub up: Link<Option<FromWorker>>,
    pub down: Link<Option<ToWorker>>,
    pub runs: BTreeMap<K, Run>,
    pub seconds: BTreeMap<K, f64>,
}

impl World {
    pub fn make_slots(&mut self) {
        for i in 0..self.scenario.slots {
            let host = self.rng.below(self.scenario.hosts);
            let mut resources: Vec<(Name, f64)> = Vec::new();
            if i == 0 || self.rng.chance(0.3) {
                resources.push(("GPU".into(), 2.0));
            }
            if self.rng.chance(0.3) {
                resources.push(("MEM".into(), 10.0));
            }
            self.slots.push(Slot {
                address: format!("tcp://10.0.0.{host}:{}", 40_000 + i).into(),
                host: format!("10.0.0.{host}").into(),
                name: format!("w{i}"),
                threads: self.rng.range(1, self.scenario.max_threads),
                resources,
                process: None,
            });
            let delay = self.rng.unit() * if self.rng.chance(0.7) { 0.2 } else { 5.0 };
            self.after(delay, What::Start(i));
        }
    }

    pub fn start(&mut self, slot: usize) {
        let taken = self.slots[slot].process;
        if taken.is_some_and(|p| self.processes[p].alive) {
            return;
        }
        let s = &self.slots[slot];
        let machine = Machine::new(s.address.clone(), s.threads, &s.resources);
        let p = self.processes.len();
        self.processes.push(Process {
            slot,
            worker: None,
            machine,
            alive: true,
            paused: false,
            dropped: false,
            up: Link::default(),
            down: Link::default(),
            runs: BTreeMap::new(),
            seconds: BTreeMap::new(),
        });
        self.slots[slot].process = Some(p);
        self.register(p);
    }

    pub fn register(&mut self, p: usize) {
        if !self.processes[p].alive {
            return;
        }
        let slot = &self.slots[self.processes[p].slot];
        let info = WorkerInfo {
            address: slot.address.clone(),
            host: slot.host.clone(),
            name: slot.name.as_str().into(),
            server_id: format!("Worker-{p}"),
            nthreads: slot.threads as u32,
            memory_limit: 1 << 40,
            local_directory: String::new(),
            nanny: None,
            pid: p as i64,
            services: Value::Nil,
            versions: Value::Nil,
            extra: Value::Nil,
            resources: slot.resources.clone(),
        };
        match self.scheduler(|s| s.add_worker(info, Status::Init)) {
            Ok(w) => {
                self.log(|| {
                    format!(
                        "worker {p} joins as {w:?} at {}",
                        self.processes[p].machine.address
                    )
                });
                self.processes[p].worker = Some(w);
                self.by_worker.insert(w, p);
                self.send_from_worker(p, Some(FromWorker::StatusChange("running")));
                self.after(0.5, What::Heartbeat(p));
            }
            // The last process at this address is not yet known to be gone.
            Err(_) => self.after(0.1, What::Register(p)),
        }
    }

    /// Gives an event to a worker's machine and does what the machine wants done.
    pub fn tell(&mut self, p: usize, event: Event) {
        if !self.processes[p].alive {
            return;
        }
        self.processes[p].machine.handle(event);
        loop {
            let out = std::mem::take(&mut self.processes[p].machine.out);
            if out.is_empty() {
                return;
            }
            for instruction in out {
                match instruction {
                    Instruction::Execute(k) => self.execute(p, k),
                    Instruction::Gather(peer, keys) => {
                        let delay = self.latency();
                        self.after(delay, What::Asked(p, peer, keys));
                    }
                    Instruction::RetryBusyLater(peer) => {
                        self.after(0.15, What::RetryBusy(p, peer));
                    }
                    Instruction::Say(mut msg) => {
                        if let FromWorker::Finished { key, seconds, .. } = &mut msg {
                            *seconds = self.processes[p].seconds.get(key).copied().unwrap_or(0.0);
                        }
                        self.send_from_worker(p, Some(msg));
                    }
                }
            }
        }
    }

    // ---- tasks

    fn execute(&mut self, p: usize, k: K) {
        let machine = &self.processes[p].machine;
        let task = machine.task(k);
        let spec_id = task.spec.expect("a task to run has a definition");
        let run_id = task.run_id;
        let spec = self.book.specs[spec_id as usize].clone();
        assert_eq!(spec.key, k, "a definition of another key");
        let inputs = spec
            .dependencies
            .iter()
            .map(|d| machine.data.get(d).copied());
        let Some(inputs) = inputs.collect::<Option<Vec<u64>>>() else {
            // Happens between two messages that free a lost actor's proxy and the task that needs it.
            assert!(
                self.scenario.actors > 0.0,
                "worker {p} runs {k} without all its inputs"
            );
            let (number, attempt) = (self.events, u32::MAX);
            let (started, inputs) = (self.now, Vec::new());
            let run = Run {
                number,
                run_id,
                spec: spec_id,
                attempt,
                started,
                inputs,
            };
            self.processes[p].runs.insert(k, run);
            self.after(0.0, What::Executed(p, k, number));
            return;
        };
        let attempt = self.book.attempts[spec_id as usize];
        self.book.attempts[spec_id as usize] += 1;
        let number = self.events;
        self.log(|| format!("worker {p} runs {k} (definition {spec_id}, run {run_id})"));
        let seconds = self.rng.delay(spec.seconds);
        if spec.secedes {
            self.after(seconds * 0.5, What::Seceded(p, k, number));
        }
        self.after(seconds, What::Executed(p, k, number));
        self.processes[p].runs.insert(
            k,
            Run {
                number,
                run_id,
                spec: spec_id,
                attempt,
                started: self.now,
                inputs,
            },
        );
    }

    fn is_run(&self, p: usize, k: K, number: u64) -> bool {
        let process = &self.processes[p];
        process.alive && process.runs.get(&k).is_some_and(|r| r.number == number)
    }

    pub fn seceded(&mut self, p: usize, k: K, number: u64) {
        if self.is_run(p, k, number) {
            let seconds = self.now - self.processes[p].runs[&k].started;
            self.tell(p, Event::Seceded(k, seconds));
        }
    }

    pub fn executed(&mut self, p: usize, k: K, number: u64) {
        if !self.is_run(p, k, number) {
            return;
        }
        let run = self.processes[p].runs.remove(&k).expect("a run");
        let spec = self.book.specs[run.spec as usize].clone();
        let seconds = self.now - run.started;
        self.processes[p].seconds.insert(k, seconds);
        if self.rough && run.attempt < spec.kills {
            self.log(|| format!("{k} takes worker {p} down"));
            self.die(p);
        } else if run.attempt < spec.reschedules {
            self.tell(p, Event::AskedToReschedule(k));
        } else if spec.doomed || run.attempt < spec.fails || run.attempt == u32::MAX {
            self.tell(p, Event::Failed(k, run.run_id));
        } else {
            let value = self.book.compute(run.spec, &run.inputs);
            self.tell(p, Event::Executed(k, run.run_id, value, spec.nbytes));
        }
    }

    // ---- transfers

    fn process_at(&self, address: &Address) -> Option<usize> {
        let slot = self.slots.iter().find(|s| s.address == *address)?;
        slot.process.filter(|p| self.processes[*p].alive)
    }

    pub fn asked(&mut self, p: usize, peer: Address, keys: Vec<K>) {
        let delay = self.latency();
        let Some(holder) = self.process_at(&peer) else {
            self.after(delay, What::Answered(p, peer, None));
            return;
        };
        if self.rough && self.rng.chance(self.scenario.busy) {
            self.after(delay, What::Busy(p, peer));
            return;
        }
        let data = &self.processes[holder].machine.data;
        let found: Vec<(K, u64)> = keys
            .iter()
            .filter_map(|k| Some((*k, *data.get(k)?)))
            .collect();
        self.after(delay, What::Answered(p, peer, Some(found)));
    }

    pub fn answered(&mut self, p: usize, peer: Address, data: Option<Vec<(K, u64)>>) {
        match data {
            Some(data) => self.tell(p, Event::GatherDone(peer, data)),
            None => self.tell(p, Event::GatherFailed(peer)),
        }
    }

    pub fn busy(&mut self, p: usize, peer: Address) {
        self.tell(p, Event::GatherBusy(peer));
    }

    pub fn retry_busy(&mut self, p: usize, peer: Address) {
        self.tell(p, Event::RetryBusy(peer));
    }

    // ---- life

    /// The process is gone; some of what it said last is lost.
    pub fn die(&mut self, p: usize) {
        if !self.processes[p].alive {
            return;
        }
        self.processes[p].alive = false;
        let said = self.processes[p].up.queue.len();
        let heard = if self.rng.chance(0.5) {
            said
        } else {
            self.rng.range(0, said)
        };
        self.log(|| format!("worker {p} dies; {} messages are lost", said - heard));
        self.processes[p].up.queue.truncate(heard);
        if self.processes[p].worker.is_some() {
            self.send_from_worker(p, None);
        }
        let slot = self.processes[p].slot;
        if !self.rough || self.rng.chance(0.7) {
            let delay = self.rng.unit() * if self.rng.chance(0.5) { 0.1 } else { 3.0 };
            self.after(delay, What::Start(slot));
        }
    }

    pub fn give_to_worker(&mut self, p: usize) {
        let Some(msg) = self.processes[p].down.queue.pop_front() else {
            return;
        };
        if !self.processes[p].alive {
            return;
        }
        self.log(|| format!("worker {p} hears {msg:?}"));
        match msg {
            None | Some(ToWorker::Close) => self.die(p),
            Some(ToWorker::StatusChange(status)) => {
                self.send_from_worker(p, Some(FromWorker::StatusChange(status)));
                let event = if status == "running" {
                    Event::Unpause
                } else {
                    Event::Pause
                };
                self.tell(p, event);
            }
            Some(msg) => self.tell(p, Event::Message(msg)),
        }
    }

    pub fn fault(&mut self) {
        if !self.rough {
            return;
        }
        const TICK: f64 = 0.1;
        for slot in 0..self.slots.len() {
            let Some(p) = self.slots[slot].process else {
                continue;
            };
            if !self.processes[p].alive {
                if self.rng.chance(0.01) {
                    self.start(slot);
                }
                continue;
            }
            if self.rng.chance(self.scenario.death_rate * TICK) {
                self.die(p);
            } else if self.rng.chance(self.scenario.pause_rate * TICK) {
                self.pause(p);
            } else if self.rng.chance(self.scenario.retire_rate * TICK) {
                self.retire(p);
            }
        }
        self.after(TICK, What::Fault);
    }

    fn pause(&mut self, p: usize) {
        if self.processes[p].paused || self.processes[p].worker.is_none() {
            return;
        }
        self.log(|| format!("worker {p} pauses"));
        self.processes[p].paused = true;
        self.send_from_worker(p, Some(FromWorker::StatusChange("paused")));
        self.tell(p, Event::Pause);
        let delay = self.rng.delay(1.0);
        self.after(delay, What::Unpause(p));
    }

    pub fn unpause(&mut self, p: usize) {
        if !self.processes[p].alive {
            return;
        }
        self.processes[p].paused = false;
        self.send_from_worker(p, Some(FromWorker::StatusChange("running")));
        self.tell(p, Event::Unpause);
    }

    /// The scheduler asks a worker to leave in good order.
    fn retire(&mut self, p: usize) {
        let Some(w) = self.processes[p]
            .worker
            .filter(|w| self.state.is_registered(*w))
        else {
            return;
        };
        self.log(|| format!("worker {p} is to leave"));
        self.scheduler(|s| s.set_worker_status(w, Status::ClosingGracefully));
        let delay = self.rng.delay(0.5);
        self.after(delay, What::Retired(p));
    }

    pub fn retired(&mut self, p: usize) {
        if let Some(w) = self.processes[p].worker {
            self.scheduler(|s| s.remove_worker(w, true, true));
        }
    }

    pub fn heartbeat(&mut self, p: usize) {
        let process = &self.processes[p];
        if !process.alive {
            return;
        }
        let executing: Vec<_> = process
            .runs
            .iter()
            .map(|(k, r)| (self.book.key(*k).clone(), self.now - r.started))
            .collect();
        let bytes = 1000 * process.machine.data.len() as i64;
        if let Some(w) = process.worker.filter(|w| self.state.is_registered(*w)) {
            let metrics = WorkerMetrics {
                memory: bytes,
                ..WorkerMetrics::default()
            };
            let now = 1.7e9 + self.now;
            self.scheduler(|s| s.heartbeat(w, metrics, None, &executing, Some(now)));
        }
        self.tell(p, Event::FindMissing);
        self.after(1.0, What::Heartbeat(p));
    }
}
