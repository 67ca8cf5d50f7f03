//! Records of finished tasks, for `Client.get_task_stream` and the dashboard.

use std::collections::VecDeque;
use std::sync::Arc;

/// One finished or failed task: the worker's own message, kept as it came.
#[derive(Clone, Debug)]
pub struct Record {
    /// The worker.
    pub worker: Arc<str>,
    /// The msgpack map of its `task-finished` or `task-erred` message.
    pub message: Box<[u8]>,
    /// Whether it failed.
    pub erred: bool,
}

/// A ring of records. It costs nothing until somebody asks for it.
#[derive(Debug)]
pub struct TaskStream {
    on: bool,
    length: usize,
    records: VecDeque<Record>,
    /// Number of records so far, dropped ones included.
    pub index: u64,
}

impl TaskStream {
    /// A ring of `length` records, switched off.
    pub fn new(length: usize) -> Self {
        Self {
            on: false,
            length,
            records: VecDeque::new(),
            index: 0,
        }
    }

    /// Starts recording.
    pub fn start(&mut self) {
        self.on = true;
    }

    /// Whether records are kept.
    pub fn is_on(&self) -> bool {
        self.on
    }

    pub(super) fn push_finished(&mut self, worker: &Arc<str>, message: &[u8]) {
        self.push(worker, message, false);
    }

    pub(super) fn push_erred(&mut self, worker: &Arc<str>, message: &[u8]) {
        self.push(worker, message, true);
    }

    fn push(&mut self, worker: &Arc<str>, message: &[u8], erred: bool) {
        if !self.on {
            return;
        }
        if self.records.len() >= self.length {
            self.records.pop_front();
        }
        self.records.push_back(Record {
            worker: worker.clone(),
            message: message.into(),
            erred,
        });
        self.index += 1;
    }

    /// Records from number `from` on.
    pub fn since(&self, from: u64) -> impl Iterator<Item = &Record> {
        let first = self.index - self.records.len() as u64;
        self.records
            .iter()
            .skip(from.saturating_sub(first) as usize)
    }
}
