//! Transitions of single tasks on a worker.

use super::*;

impl Machine {
    /// The rule for this pair of states, applied. None if there is none: such pairs go through released.
    pub(super) fn rule(&mut self, k: K, start: Phase, target: &Target) -> Option<Recs> {
        use Phase::{
            Cancelled, Constrained, Error, Executing, Fetch, Flight, LongRunning, Memory, Missing,
            Ready, Released, Resumed, Waiting,
        };
        Some(match (start, target) {
            (Cancelled, Target::Fetch) => self.cancelled_fetch(k),
            (Cancelled | Resumed, Target::LongRunning(_)) => {
                self.task_mut(k).previous = Some(LongRunning);
                self.executing.remove(&k);
                self.long_running.insert(k);
                self.ensure_computing()
            }
            (
                Cancelled,
                Target::Error(_)
                | Target::Memory(..)
                | Target::Missing
                | Target::Released
                | Target::Rescheduled,
            ) => self.cancelled_released(k),
            (Cancelled, Target::Waiting) => self.cancelled_waiting(k),
            (Resumed, Target::Error(_) | Target::Rescheduled) => self.resumed_failed(k),
            (Resumed, Target::Fetch) => self.resumed_fetch(k),
            (Resumed, Target::Memory(value, run_id)) => {
                let task = self.task_mut(k);
                let ran = task.previous.is_some_and(Phase::busy);
                (task.previous, task.next) = (None, None);
                self.arrive_in_memory(
                    k,
                    *value,
                    *run_id,
                    if ran { Told::AddKeys } else { Told::Finished },
                )
            }
            (Resumed, Target::Released) => {
                let task = self.task_mut(k);
                assert!(!task.done);
                task.state = Cancelled;
                task.next = None;
                Recs::default()
            }
            (Ready | Constrained, Target::Executing) => {
                self.task_mut(k).state = Executing;
                self.out.push(Instruction::Execute(k));
                Recs::default()
            }
            (Ready | Constrained | Error | Waiting, Target::Released) => self.generic_released(k),
            (Fetch | Missing, Target::Released) => self.generic_released(k),
            (Memory, Target::Released) => {
                let recs = self.generic_released(k);
                self.say(FromWorker::ReleaseData(k));
                recs
            }
            (Executing | LongRunning, Target::Released) => {
                let task = self.task_mut(k);
                assert!(task.next.is_none() && !task.done);
                task.previous = Some(task.state);
                task.state = Cancelled;
                Recs::default()
            }
            (Flight, Target::Released) => {
                let task = self.task_mut(k);
                assert!(!task.done);
                task.previous = Some(Flight);
                task.next = None;
                task.state = Cancelled;
                Recs::default()
            }
            (Executing | LongRunning | Flight | Missing | Released, Target::Error(run_id)) => {
                self.task_mut(k).state = Error;
                self.say(FromWorker::Erred {
                    key: k,
                    run_id: *run_id,
                });
                Recs::default()
            }
            (Executing | LongRunning, Target::Memory(value, run_id)) => {
                self.arrive_in_memory(k, *value, *run_id, Told::Finished)
            }
            (Flight, Target::Memory(value, run_id)) => {
                self.arrive_in_memory(k, *value, *run_id, Told::AddKeys)
            }
            (Released, Target::Memory(value, run_id)) => {
                self.arrive_in_memory(k, *value, *run_id, Told::Nothing)
            }
            (Executing, Target::LongRunning(seconds)) => {
                let task = self.task_mut(k);
                task.state = LongRunning;
                let run_id = task.run_id;
                self.executing.remove(&k);
                self.long_running.insert(k);
                self.say(FromWorker::LongRunning {
                    key: k,
                    run_id,
                    seconds: *seconds,
                });
                self.ensure_computing()
            }
            (Executing | LongRunning, Target::Rescheduled) => {
                self.say(FromWorker::Reschedule(k));
                self.generic_released(k)
            }
            (Fetch, Target::Flight) => {
                let task = self.task_mut(k);
                task.done = false;
                task.state = Flight;
                Recs::default()
            }
            (Fetch | Released, Target::Missing) => self.generic_missing(k),
            (Flight, Target::Missing) => {
                assert!(self.task(k).done);
                self.generic_missing(k)
            }
            (Flight, Target::Fetch) => {
                if self.task(k).done {
                    self.generic_fetch(k)
                } else {
                    Recs::default()
                }
            }
            (Missing, Target::Fetch) => {
                if self.task(k).who_has.is_empty() {
                    Recs::default()
                } else {
                    self.generic_fetch(k)
                }
            }
            (Released, Target::Fetch) => self.generic_fetch(k),
            (Missing, Target::Waiting) => {
                self.purge(k);
                self.released_waiting(k)
            }
            (Released, Target::Waiting) => self.released_waiting(k),
            (Waiting, Target::Ready) => self.waiting_ready(k),
            (Waiting, Target::Constrained) => {
                let task = self.task_mut(k);
                task.state = Constrained;
                let entry = (task.priority, k);
                self.constrained.insert(entry);
                self.ensure_computing()
            }
            (Released, Target::Forgotten) => self.forget(k),
            _ => return None,
        })
    }

    fn cancelled_fetch(&mut self, k: K) -> Recs {
        let task = self.task_mut(k);
        if task.previous == Some(Phase::Flight) {
            if task.done {
                return Recs::one(k, Target::Released);
            }
            task.state = Phase::Flight;
            task.previous = None;
        } else {
            assert!(!task.done);
            task.state = Phase::Resumed;
            task.next = Some(Phase::Fetch);
        }
        Recs::default()
    }

    fn cancelled_waiting(&mut self, k: K) -> Recs {
        let task = self.task_mut(k);
        assert!(!task.done);
        match task.previous {
            Some(Phase::Executing) => {
                task.state = Phase::Executing;
                task.previous = None;
            }
            Some(Phase::LongRunning) => {
                task.state = Phase::LongRunning;
                task.previous = None;
                let run_id = task.run_id;
                self.say(FromWorker::LongRunning {
                    key: k,
                    run_id,
                    seconds: None,
                });
            }
            _ => {
                task.state = Phase::Resumed;
                task.next = Some(Phase::Waiting);
            }
        }
        Recs::default()
    }

    fn cancelled_released(&mut self, k: K) -> Recs {
        let task = self.task_mut(k);
        if !task.done {
            return Recs::default();
        }
        task.previous = None;
        task.done = false;
        self.generic_released(k)
    }

    /// What ran or was fetched failed, but meanwhile the opposite is asked for.
    fn resumed_failed(&mut self, k: K) -> Recs {
        let task = self.task_mut(k);
        assert!(task.done);
        let ran = task.previous.is_some_and(Phase::busy);
        task.state = Phase::Released;
        task.done = false;
        (task.previous, task.next) = (None, None);
        Recs::one(k, if ran { Target::Fetch } else { Target::Waiting })
    }

    fn resumed_fetch(&mut self, k: K) -> Recs {
        let task = self.task_mut(k);
        if task.previous == Some(Phase::Flight) {
            let done = task.done;
            (task.previous, task.next) = (None, None);
            if done {
                task.state = Phase::Released;
                task.done = false;
                return Recs::one(k, Target::Waiting);
            }
            task.state = Phase::Flight;
        }
        Recs::default()
    }

    fn generic_missing(&mut self, k: K) -> Recs {
        let task = self.task_mut(k);
        assert!(task.who_has.is_empty());
        task.state = Phase::Missing;
        task.done = false;
        Recs::default()
    }

    fn generic_fetch(&mut self, k: K) -> Recs {
        let task = self.task_mut(k);
        if task.who_has.is_empty() {
            return Recs::one(k, Target::Missing);
        }
        task.state = Phase::Fetch;
        task.done = false;
        Recs::default()
    }

    fn released_waiting(&mut self, k: K) -> Recs {
        let mut recs = Recs::default();
        let mut waiting = std::collections::BTreeSet::new();
        for d in self.task(k).dependencies.clone() {
            if self.task(d).state != Phase::Memory {
                waiting.insert(d);
                self.task_mut(d).waiters.insert(k);
                recs.set(d, Target::Fetch);
            }
        }
        if waiting.is_empty() {
            recs.set(k, Target::Ready);
        }
        let task = self.task_mut(k);
        task.waiting_for = waiting;
        task.state = Phase::Waiting;
        recs
    }

    fn waiting_ready(&mut self, k: K) -> Recs {
        for d in &self.task(k).dependencies {
            assert!(
                self.data.contains_key(d),
                "{}: {k} is ready without {d}",
                self.address
            );
        }
        let task = self.task_mut(k);
        if !task.resources.is_empty() {
            return Recs::one(k, Target::Constrained);
        }
        task.state = Phase::Ready;
        let entry = (task.priority, k);
        self.ready.insert(entry);
        self.ensure_computing()
    }

    fn generic_released(&mut self, k: K) -> Recs {
        self.purge(k);
        let mut recs = Recs::default();
        for d in self.task(k).dependencies.clone() {
            let dep = self.task(d);
            let kept = matches!(
                dep.state,
                Phase::Ready | Phase::Constrained | Phase::Memory | Phase::Waiting
            ) || dep.state.busy();
            if dep.waiters.is_empty() && !kept {
                recs.set(d, Target::Released);
            }
        }
        let task = self.task_mut(k);
        task.state = Phase::Released;
        if task.dependents.is_empty() {
            recs.set(k, Target::Forgotten);
        }
        recs
    }

    /// Takes a task out of every table and resets it.
    fn purge(&mut self, k: K) {
        self.data.remove(&k);
        for d in self.task(k).dependencies.clone() {
            self.task_mut(d).waiters.remove(&k);
        }
        let task = self.task_mut(k);
        task.who_has.clear();
        task.waiting_for.clear();
        (task.previous, task.next) = (None, None);
        task.done = false;
        let entry = (task.priority, k);
        self.ready.remove(&entry);
        self.constrained.remove(&entry);
        self.executing.remove(&k);
        self.long_running.remove(&k);
    }

    fn forget(&mut self, k: K) -> Recs {
        let mut recs = Recs::default();
        self.purge(k);
        for d in self.task(k).dependencies.clone() {
            let dep = self.task_mut(d);
            dep.dependents.remove(&k);
            if dep.state == Phase::Released && dep.dependents.is_empty() {
                recs.set(d, Target::Forgotten);
            }
        }
        for d in self.task(k).dependents.clone() {
            self.task_mut(d).dependencies.remove(&k);
        }
        self.tasks.remove(&k);
        recs
    }

    fn arrive_in_memory(&mut self, k: K, value: u64, run_id: u64, told: Told) -> Recs {
        let mut recs = Recs::default();
        let before = self.data.insert(k, value);
        assert!(before.is_none());
        let task = self.task_mut(k);
        task.state = Phase::Memory;
        let nbytes = task.nbytes;
        for d in task.dependents.clone() {
            let dependent = self.task_mut(d);
            dependent.waiting_for.remove(&k);
            if dependent.waiting_for.is_empty() && dependent.state == Phase::Waiting {
                recs.set(d, Target::Ready);
            }
        }
        match told {
            Told::AddKeys => self.say(FromWorker::AddKeys(vec![k])),
            Told::Finished => self.say(FromWorker::Finished {
                key: k,
                run_id,
                nbytes,
                seconds: 0.0,
            }),
            Told::Nothing => {}
        }
        recs
    }

    pub(super) fn ensure_computing(&mut self) -> Recs {
        let mut recs = Recs::default();
        if !self.running {
            return recs;
        }
        while self.executing.len() < self.nthreads {
            let Some(k) = self.next_ready() else { break };
            recs.set(k, Target::Executing);
            self.use_resources(k, -1.0);
            self.executing.insert(k);
        }
        recs
    }

    fn next_ready(&mut self) -> Option<K> {
        let (r, c) = (
            self.ready.first().copied(),
            self.constrained.first().copied(),
        );
        let fits = c.is_some_and(|(_, k)| {
            let needed = &self.task(k).resources;
            needed
                .iter()
                .all(|(n, x)| self.available.get(n).is_some_and(|have| have >= x))
        });
        match (r, c) {
            (Some(r), Some(c)) if !(c < r && fits) => {
                self.ready.remove(&r);
                Some(r.1)
            }
            (_, Some(c)) if fits => {
                self.constrained.remove(&c);
                Some(c.1)
            }
            (Some(r), _) => {
                self.ready.remove(&r);
                Some(r.1)
            }
            _ => None,
        }
    }

    pub(super) fn use_resources(&mut self, k: K, sign: f64) {
        for (name, amount) in self.task(k).resources.clone() {
            *self.available.entry(name).or_default() += sign * amount;
        }
    }
}

enum Told {
    AddKeys,
    Finished,
    Nothing,
}
