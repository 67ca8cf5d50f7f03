//! A small cluster for tests: `Bed::new().worker(2)`, `bed.graph(&[("x", &[])])`, `bed.finish("x")`.

use std::sync::Arc;

use bytes::Bytes;

use super::config::CoreConfig;
use super::ids::{ClientId, TaskId, WorkerId};
use super::out::{Out, ToWorker};
use super::results::{StartStop, TaskFinished};
use super::state::{Clock, State};
use super::submit::{Actors, Submission};
use super::task::TaskStateName;
use super::worker::{Status, WorkerInfo, WorkerMetrics};
use crate::graph::{Graph, RunSpec};
use crate::protocol::{Key, Payload, Value};

/// A scheduler with a client, and what a test does to it.
pub(super) struct Bed {
    pub state: State,
    pub client: ClientId,
    n_workers: u32,
}

impl Bed {
    pub fn new() -> Self {
        Self::with(CoreConfig::default())
    }

    pub fn with(config: CoreConfig) -> Self {
        let clock = Clock {
            wall: 1e9,
            mono: 100.0,
        };
        let mut state = State::new(config, clock);
        let client = state.add_client("client", Value::Nil);
        Self {
            state,
            client,
            n_workers: 0,
        }
    }

    /// Adds a running worker without a memory limit.
    pub fn worker(&mut self, nthreads: u32) -> WorkerId {
        self.worker_with(nthreads, |_| {})
    }

    pub fn worker_with(&mut self, nthreads: u32, set: impl FnOnce(&mut WorkerInfo)) -> WorkerId {
        let n = self.n_workers;
        self.n_workers += 1;
        let mut info = WorkerInfo {
            address: format!("tcp://10.0.0.{n}:1").into(),
            host: format!("10.0.0.{n}").into(),
            name: Value::Int(i64::from(n)),
            server_id: String::new(),
            nthreads,
            memory_limit: 0,
            local_directory: String::new(),
            nanny: None,
            pid: 1,
            services: Value::Nil,
            versions: Value::Nil,
            extra: Value::Nil,
            resources: Vec::new(),
        };
        set(&mut info);
        self.state.add_worker(info, Status::Running).unwrap()
    }

    /// Submits tasks with their dependencies; all are wanted. Unknown dependencies must be known already.
    pub fn graph(&mut self, tasks: &[(&str, &[&str])]) {
        let keys: Vec<Key> = tasks.iter().map(|(k, _)| Key::new_str(k)).collect();
        let wanted = keys.clone();
        self.graph_wanting(tasks, wanted);
    }

    pub fn graph_wanting(&mut self, tasks: &[(&str, &[&str])], wanted: Vec<Key>) {
        let mut graph = Graph {
            dep_offsets: vec![0],
            ..Graph::default()
        };
        graph.keys = tasks.iter().map(|(k, _)| Key::new_str(k)).collect();
        for (_, deps) in tasks {
            for dep in *deps {
                let at = tasks.iter().position(|(k, _)| k == dep).unwrap_or_else(|| {
                    graph.externals.push(Key::new_str(dep));
                    tasks.len() + graph.externals.len() - 1
                });
                graph.deps.push(at as u32);
            }
            graph.dep_offsets.push(graph.deps.len() as u32);
            graph
                .specs
                .push(RunSpec::Whole(Box::new(Payload::pickled(b"x"))));
            graph.flags.push(0);
        }
        let order: Vec<u32> = (0..tasks.len() as u32).collect();
        let sub = Submission {
            client: self.client,
            keys: wanted,
            internal_priority: None,
            submitting_task: None,
            user_priority: 0.0,
            fifo_timeout: 0.1,
            actors: Actors::None,
            start: self.state.clock.wall,
        };
        self.state.update_graph(&sub, graph, &order);
    }

    /// `n` independent tasks `name-0`, `name-1`, …
    pub fn map(&mut self, name: &str, n: usize) {
        let names: Vec<String> = (0..n).map(|i| format!("{name}-{i}")).collect();
        let tasks: Vec<(&str, &[&str])> =
            names.iter().map(|k| (k.as_str(), &[] as &[&str])).collect();
        self.graph(&tasks);
    }

    /// Makes a result on given workers, as `scatter` does.
    pub fn data(&mut self, key: &str, nbytes: i64, holders: &[WorkerId]) -> TaskId {
        let addresses: Vec<Arc<str>> = holders.iter().map(|w| self.address(*w)).collect();
        self.graph(&[(key, &[])]);
        let id = self.id(key);
        if self.state.task(id).state == TaskStateName::Processing {
            self.finish_with(key, nbytes, 1.0);
        }
        for address in addresses {
            let w = self.state.worker_id(&address).unwrap();
            self.state.add_replica(id, w);
        }
        for w in self.state.task(id).who_has.clone() {
            if !holders.contains(&w) {
                self.state.remove_replica(id, w);
            }
        }
        id
    }

    pub fn address(&self, w: WorkerId) -> Arc<str> {
        self.state.worker(w).info.address.clone()
    }

    pub fn id(&self, key: &str) -> TaskId {
        self.state.task_id(&Key::new_str(key)).unwrap()
    }

    pub fn state_of(&self, key: &str) -> TaskStateName {
        self.state.task(self.id(key)).state
    }

    /// The worker a task was sent to.
    pub fn on(&self, key: &str) -> Option<WorkerId> {
        self.state.task(self.id(key)).processing_on
    }

    /// The worker of a task reports its result, 8 bytes, after a second.
    pub fn finish(&mut self, key: &str) {
        self.finish_with(key, 8, 1.0);
    }

    pub fn finish_with(&mut self, key: &str, nbytes: i64, seconds: f64) {
        self.finish_key(&Key::new_str(key), nbytes, seconds);
    }

    pub fn finish_key(&mut self, key: &Key, nbytes: i64, seconds: f64) {
        let id = self.state.task_id(key).unwrap();
        let task = self.state.task(id);
        let (w, run_id) = (task.processing_on.unwrap(), task.run_id);
        let stop = self.state.clock.wall;
        let startstops = [StartStop {
            action: "compute",
            start: stop - seconds,
            stop,
        }];
        let msg = TaskFinished {
            key: key.as_bytes(),
            run_id,
            nbytes,
            type_pickle: Bytes::new(),
            typename: "int",
            metadata: None,
            startstops: &startstops,
        };
        self.state.handle_task_finished(w, msg, &[]);
    }

    /// A heartbeat that reports `memory` bytes in the process.
    pub fn heartbeat(&mut self, w: WorkerId, memory: i64) {
        let metrics = WorkerMetrics {
            memory,
            ..WorkerMetrics::default()
        };
        self.state.heartbeat(w, metrics, None, &[], None);
    }

    pub fn advance(&mut self, seconds: f64) {
        self.state.clock.wall += seconds;
        self.state.clock.mono += seconds;
    }

    /// Messages to workers since the last call.
    pub fn sent(&mut self) -> Vec<(WorkerId, ToWorker)> {
        let out = std::mem::take(&mut self.state.out);
        out.into_iter()
            .filter_map(|o| match o {
                Out::Worker(w, msg) => Some((w, msg)),
                _ => None,
            })
            .collect()
    }

    /// Events of a topic whose "action" is this.
    pub fn actions(&self, topic: &str, action: &str) -> Vec<Arc<Value>> {
        self.state
            .events
            .topic(topic)
            .filter(|e| e.msg.get("action").and_then(Value::as_str) == Some(action))
            .map(|e| e.msg.clone())
            .collect()
    }
}
