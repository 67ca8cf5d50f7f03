//! Messages between the scheduler and its peers, as `net` reads and writes them.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_runtime::graph::RunSpec;
use oxidask_runtime::protocol::Key;
use oxidask_runtime::scheduler::out::{ToClient, ToWorker as Said};
use oxidask_runtime::scheduler::{
    ClientId, ErrorPayload, Failure, StartStop, Status, TaskFinished, TaskId, WorkerId,
};

use crate::client::Report;
use crate::machine::{FromWorker, Holders, Name, ToWorker};
use crate::world::World;

impl World {
    pub fn drop_worker(&mut self, w: WorkerId) {
        if let Some(p) = self.by_worker.get(&w).copied()
            && !std::mem::replace(&mut self.processes[p].dropped, true)
        {
            self.send_to_worker(p, None);
        }
    }

    pub fn write_to_worker(&mut self, w: WorkerId, msg: Said) {
        let p = self.by_worker[&w];
        if self.processes[p].dropped {
            return;
        }
        let msg = match msg {
            Said::ComputeTask { task, run_id } => match self.compute_message(w, task, run_id) {
                Some(msg) => msg,
                None => return,
            },
            Said::FreeKeys { keys, .. } => ToWorker::FreeKeys(self.numbers(&keys)),
            Said::RemoveReplicas { keys, .. } => ToWorker::RemoveReplicas(self.numbers(&keys)),
            Said::AcquireReplicas { keys, .. } => {
                let holders = keys.into_iter().map(|(k, who_has, nbytes)| Holders {
                    key: self.book.number(&k),
                    who_has,
                    nbytes,
                });
                ToWorker::AcquireReplicas(holders.collect())
            }
            Said::StealRequest { key, request } => ToWorker::StealRequest {
                key: self.book.number(&key),
                request,
            },
            Said::RefreshWhoHas { who_has, .. } => {
                let holders = who_has.into_iter().map(|(k, who_has)| Holders {
                    key: self.book.number(&k),
                    who_has,
                    nbytes: 0,
                });
                ToWorker::RefreshWhoHas(holders.collect())
            }
            Said::StatusChange { status, .. } => ToWorker::StatusChange(status),
            Said::RemoveWorker { address, .. } => ToWorker::RemoveWorker(address),
            Said::Close { .. } | Said::CloseStream => ToWorker::Close,
            Said::Raw(_) => return,
        };
        self.send_to_worker(p, Some(msg));
    }

    fn numbers(&mut self, keys: &[Key]) -> Vec<u32> {
        keys.iter().map(|k| self.book.number(k)).collect()
    }

    /// As `net::encode` writes compute-task: left out if the task has moved on, holders as they are now.
    fn compute_message(&mut self, w: WorkerId, id: TaskId, run_id: u64) -> Option<ToWorker> {
        let task = self.state.live_task(id)?;
        if task.run_id != run_id || task.processing_on != Some(w) {
            return None;
        }
        let spec = match task.spec.as_ref()? {
            RunSpec::Template(_, args) => u32::from_le_bytes(args[..].try_into().expect("4 bytes")),
            RunSpec::Whole(_) => panic!("the simulation makes no whole definitions"),
        };
        let priority = task.priority.expect("a running task has a priority");
        let scaled = |x: f64| (x * 1000.0).round() as i64;
        let mut dependencies = Vec::new();
        for d in task.dependencies.iter() {
            let dep = self.state.task(d);
            let who_has: Vec<Name> = self.state.holders(d);
            for (i, a) in who_has.iter().enumerate() {
                assert!(!who_has[..i].contains(a), "a holder is listed twice");
            }
            dependencies.push(Holders {
                key: self.book.number(&dep.key),
                who_has,
                nbytes: dep.nbytes,
            });
        }
        let resources = task.restrictions().map(|r| r.resources.clone());
        Some(ToWorker::Compute {
            key: self.book.number(&task.key),
            run_id,
            priority: (
                scaled(priority.user),
                scaled(priority.generation),
                priority.internal,
            ),
            spec,
            dependencies,
            resources: resources.unwrap_or_default(),
        })
    }

    pub fn write_to_client(&mut self, c: ClientId, msg: ToClient) {
        let Some(c) = self.clients.iter().position(|x| x.id == Some(c)) else {
            return;
        };
        let report = match msg {
            ToClient::KeyInMemory { key, .. } => Report::Finished(self.book.number(&key)),
            ToClient::LostData { key } => Report::Lost(self.book.number(&key)),
            ToClient::TaskRetried { key } => Report::Retried(self.book.number(&key)),
            ToClient::TaskErred { key, exception, .. } => {
                assert!(
                    !matches!(exception, ErrorPayload::Nil),
                    "{key} failed without an exception"
                );
                Report::Erred(self.book.number(&key))
            }
            ToClient::CancelledKeys { keys, .. } => Report::Cancelled(self.numbers(&keys)),
            ToClient::Restart | ToClient::Event { .. } | ToClient::Raw(_) => return,
        };
        self.send_to_client(c, report);
    }

    /// The next message of a worker is read.
    pub fn take_from_worker(&mut self, p: usize) {
        let Some(msg) = self.processes[p].up.queue.pop_front() else {
            return;
        };
        let Some(w) = self.processes[p].worker else {
            return;
        };
        let registered = self.state.is_registered(w);
        if !registered && !self.scenario.stale_messages {
            return;
        }
        self.log(|| format!("worker {p} says {msg:?}"));
        let Some(msg) = msg else {
            self.scheduler(|s| s.remove_worker(w, false, true));
            return;
        };
        match msg {
            FromWorker::Finished {
                key,
                run_id,
                nbytes,
                seconds,
            } => self.finished(w, key, run_id, nbytes, seconds),
            FromWorker::Erred { key, run_id } => {
                let key = self.book.key(key).clone();
                self.scheduler(|s| s.handle_task_erred(w, key.as_bytes(), run_id, failure(), &[]));
            }
            FromWorker::ReleaseData(key) => {
                let key = self.book.key(key).clone();
                self.scheduler(|s| s.handle_release_worker_data(w, key.as_bytes()));
            }
            FromWorker::AddKeys(keys) => {
                let keys: Vec<Key> = keys.iter().map(|k| self.book.key(*k).clone()).collect();
                self.scheduler(|s| s.handle_add_keys(w, &keys));
            }
            FromWorker::LongRunning {
                key,
                run_id,
                seconds,
            } => {
                let key = self.book.key(key).clone();
                self.scheduler(|s| s.handle_long_running(w, key.as_bytes(), run_id, seconds));
            }
            FromWorker::Reschedule(key) => {
                let key = self.book.key(key).clone();
                self.scheduler(|s| s.handle_reschedule(Some(w), key.as_bytes()));
            }
            FromWorker::StealResponse {
                key,
                state,
                request,
            } => {
                let key = self.book.key(key).clone();
                let stimulus = format!("steal-{request}");
                self.scheduler(|s| s.handle_steal_response(w, key.as_bytes(), state, &stimulus));
            }
            FromWorker::RequestRefresh(keys) => {
                let keys: Vec<Key> = keys.iter().map(|k| self.book.key(*k).clone()).collect();
                self.scheduler(|s| s.handle_request_refresh_who_has(w, &keys));
            }
            FromWorker::StatusChange(status) => {
                self.scheduler(|s| s.set_worker_status(w, Status::parse(status)));
            }
        }
    }

    fn finished(&mut self, w: WorkerId, key: u32, run_id: u64, nbytes: i64, seconds: f64) {
        let key = self.book.key(key).clone();
        let now = 1.7e9 + self.now;
        let startstops = [StartStop {
            action: "compute",
            start: now - seconds,
            stop: now,
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
        self.scheduler(|s| s.handle_task_finished(w, msg, &[]));
    }
}

/// What a task that raises is said to have raised.
fn failure() -> Failure {
    Failure {
        exception: ErrorPayload::Pickle(Bytes::from_static(b"exception")),
        traceback: ErrorPayload::Nil,
        exception_text: "ValueError()".into(),
        traceback_text: String::new(),
    }
}

/// Marks a definition as bytes that the scheduler does not look into.
pub fn run_spec(template: &Arc<oxidask_runtime::graph::SpecTemplate>, spec: u32) -> RunSpec {
    let args = Bytes::copy_from_slice(&spec.to_le_bytes());
    RunSpec::Template(template.clone(), args)
}
