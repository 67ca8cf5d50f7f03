//! The state machine of a `distributed` worker, as far as the scheduler can tell: the rules of
//! `distributed.worker_state_machine.WorkerState`, with tables turned into sets that are searched.

mod events;
mod gather;
mod rules;
mod types;

pub use types::*;

use std::collections::{BTreeMap, BTreeSet};

/// One worker's view of tasks, data and peers.
pub struct Machine {
    pub address: Address,
    pub nthreads: usize,
    pub running: bool,
    pub tasks: BTreeMap<K, Task>,
    pub data: BTreeMap<K, u64>,
    pub executing: BTreeSet<K>,
    pub long_running: BTreeSet<K>,
    pub in_flight: BTreeMap<Address, Vec<K>>,
    pub busy: BTreeSet<Address>,
    pub available: BTreeMap<Name, f64>,
    ready: BTreeSet<(Priority, K)>,
    constrained: BTreeSet<(Priority, K)>,
    generation: i64,
    /// What the owner has to do, in order.
    pub out: Vec<Instruction>,
}

impl Machine {
    pub fn new(address: Address, nthreads: usize, resources: &[(Name, f64)]) -> Self {
        Self {
            address,
            nthreads,
            running: true,
            tasks: BTreeMap::new(),
            data: BTreeMap::new(),
            executing: BTreeSet::new(),
            long_running: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            busy: BTreeSet::new(),
            available: resources.iter().cloned().collect(),
            ready: BTreeSet::new(),
            constrained: BTreeSet::new(),
            generation: 0,
            out: Vec::new(),
        }
    }

    pub fn task(&self, k: K) -> &Task {
        &self.tasks[&k]
    }

    fn task_mut(&mut self, k: K) -> &mut Task {
        self.tasks.get_mut(&k).expect("a task of this worker")
    }

    /// Handles one event; what follows is in `out`.
    pub fn handle(&mut self, event: Event) {
        let recs = self.on_event(event);
        self.process(recs);
        let recs = self.ensure_communicating();
        self.process(recs);
    }

    fn process(&mut self, mut recs: Recs) {
        while let Some((k, target)) = recs.pop() {
            if self.tasks.contains_key(&k) {
                recs.update(self.transition(k, target));
            }
        }
    }

    fn transition(&mut self, k: K, target: Target) -> Recs {
        let start = self.task(k).state;
        if target.is(start) {
            return Recs::default();
        }
        match self.rule(k, start, &target) {
            Some(recs) => recs,
            None => {
                assert!(
                    start != Phase::Released && !matches!(target, Target::Released),
                    "{}: impossible transition of {k} from {start:?} to {target:?}",
                    self.address
                );
                let mut recs = self.transition(k, Target::Released);
                while let Some(then) = recs.remove(k) {
                    if !matches!(then, Target::Forgotten) {
                        recs.update(self.transition(k, then));
                    }
                }
                recs.update(self.transition(k, target));
                recs
            }
        }
    }

    fn say(&mut self, message: FromWorker) {
        self.out.push(Instruction::Say(message));
    }
}
