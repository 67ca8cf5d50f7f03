//! How a run must end: everything wanted is there and right, and once nobody wants anything, nothing is left.

use oxidask_runtime::scheduler::TaskStateName;

use crate::client::{FromClient, View};
use crate::machine::K;
use crate::world::{What, World};

/// Virtual seconds within which the cluster must come to rest.
const PATIENCE: f64 = 600.0;

impl World {
    pub fn run(&mut self) {
        while self.rough {
            assert!(self.step(), "nothing happens any more");
        }
        self.log(|| "---- faults end".into());
        for slot in 0..self.slots.len() {
            self.after(0.0, What::Start(slot));
        }
        self.rest();
        for _ in 0..30 {
            if !self.retry_what_is_not_doomed() {
                break;
            }
            self.rest();
        }
        self.check_results();
        self.log(|| "---- clients leave".into());
        for c in 0..self.clients.len() {
            if self.clients[c].id.is_none() {
                continue;
            }
            if self.rng.chance(0.5) {
                let keys: Vec<K> = self.clients[c].futures.keys().copied().collect();
                self.clients[c].futures.clear();
                self.send_from_client(c, FromClient::Release(keys));
            }
            self.send_from_client(c, FromClient::Close);
        }
        self.rest();
        self.check_empty();
    }

    /// Runs until nothing but heartbeats happens for a while.
    fn rest(&mut self) {
        let end = self.now + PATIENCE;
        let mut calm_since = self.now;
        while self.now < calm_since + 4.5 {
            assert!(self.step(), "nothing happens any more");
            if self.pending > 0 || !self.state.out.is_empty() {
                calm_since = self.now;
            }
            assert!(
                self.now < end,
                "does not come to rest: {}",
                self.unfinished()
            );
        }
        let ready = self.slots.iter().all(|s| {
            let p = s.process.map(|p| &self.processes[p]);
            p.and_then(|p| p.worker)
                .is_some_and(|w| self.state.is_registered(w) && self.state.worker(w).running())
        });
        assert!(ready, "not all workers are back");
    }

    fn unfinished(&self) -> String {
        let tasks = self.state.all_tasks();
        let list: Vec<String> = tasks
            .filter(|(_, t)| !matches!(t.state, TaskStateName::Memory | TaskStateName::Released))
            .map(|(_, t)| format!("{} {} on {:?}", t.key, t.state.as_str(), t.processing_on))
            .collect();
        list.join(", ")
    }

    fn retry_what_is_not_doomed(&mut self) -> bool {
        let mut any = false;
        for c in 0..self.clients.len() {
            let futures = &self.clients[c].futures;
            let hope = futures
                .iter()
                .any(|(k, v)| *v == View::Error && !self.book.is_doomed(*k));
            if hope {
                self.retry_failed(c);
                any = true;
            }
        }
        any
    }

    fn check_results(&mut self) {
        for c in 0..self.clients.len() {
            let Some(id) = self.clients[c].id else {
                continue;
            };
            let mut wanted: Vec<K> = Vec::new();
            for t in self.state.client(id).wants_what.iter() {
                wanted.push(self.book.number(&self.state.task(t).key));
            }
            wanted.sort_unstable();
            let futures: Vec<K> = self.clients[c].futures.keys().copied().collect();
            assert_eq!(
                wanted, futures,
                "client {c} wants other keys than the scheduler believes"
            );
            for k in futures {
                self.check_result(c, k);
            }
        }
    }

    fn check_result(&self, c: usize, k: K) {
        let key = self.book.key(k);
        let id = self.state.task_id(key).expect("a wanted key is known");
        let task = self.state.task(id);
        let view = self.clients[c].futures[&k];
        let doomed = self.book.is_doomed(k);
        let vague = self.book.is_ambiguous(k);
        match task.state {
            TaskStateName::Memory => {
                assert!(!doomed || vague, "{k} {key} cannot have a result");
                assert_eq!(
                    view,
                    View::Finished,
                    "client {c} has not heard of {k} {key}"
                );
                for w in &task.who_has {
                    let process = &self.processes[self.by_worker[w]];
                    let value = process.machine.data.get(&k);
                    let value = value.unwrap_or_else(|| panic!("{k} {key} is not on {w:?}"));
                    assert!(self.book.is_right(k, *value), "{k} {key} has a wrong value");
                }
            }
            TaskStateName::Erred => {
                assert!(doomed, "{k} {key} fails for no reason");
                assert_eq!(view, View::Error, "client {c} has not heard of {k} {key}");
            }
            other => panic!("{k} {key} is {} in the end", other.as_str()),
        }
    }

    fn check_empty(&self) {
        let left: Vec<String> = self
            .state
            .all_tasks()
            .map(|(_, t)| format!("{} {}", t.key, t.state.as_str()))
            .collect();
        assert!(left.is_empty(), "tasks are left: {left:?}");
        for (p, process) in self.processes.iter().enumerate() {
            if process.alive {
                let left: Vec<_> = process
                    .machine
                    .tasks
                    .iter()
                    .map(|(k, t)| (k, t.state))
                    .collect();
                assert!(left.is_empty(), "worker {p} still knows {left:?}");
            }
        }
    }
}
