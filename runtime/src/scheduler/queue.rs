//! Ready tasks that are held back until a worker has a free slot.

use std::cmp::Ordering;

use super::ids::TaskId;
use super::state::State;
use super::task::Priority;

/// An entry of the queue. A task that leaves the queue other than by its head leaves its entry behind; `seq` tells.
#[derive(Clone, Copy, Debug)]
pub struct QueueEntry {
    priority: Priority,
    seq: u64,
    task: TaskId,
}

impl PartialEq for QueueEntry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for QueueEntry {}
impl PartialOrd for QueueEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for QueueEntry {
    /// Reversed: the heap gives its greatest entry, which must be the best priority, oldest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .priority
            .order(&self.priority)
            .then(other.seq.cmp(&self.seq))
    }
}

const NO_PRIORITY: Priority = Priority {
    user: 0.0,
    generation: 0.0,
    internal: 0,
};

impl State {
    /// Puts a task in the queue.
    pub(super) fn queue_push(&mut self, id: TaskId) {
        self.queue_seq += 1;
        let seq = self.queue_seq;
        let task = self.task_mut(id);
        task.queue_seq = seq;
        let priority = task.priority.unwrap_or(NO_PRIORITY);
        self.queued.push(QueueEntry {
            priority,
            seq,
            task: id,
        });
        self.queued_len += 1;
    }

    /// Takes a task out of the queue, wherever it stands.
    pub(super) fn queue_remove(&mut self, id: TaskId) {
        if self.is_queued(id) {
            self.task_mut(id).queue_seq = 0;
            self.queued_len -= 1;
            // Entries left behind must not outgrow the queue itself.
            if self.queued.len() > 64 && self.queued.len() > 2 * self.queued_len {
                let entries = std::mem::take(&mut self.queued);
                self.queued = entries
                    .into_iter()
                    .filter(|e| self.entry_is_live(e))
                    .collect();
            }
        }
    }

    /// Whether the task is in the queue.
    pub(super) fn is_queued(&self, id: TaskId) -> bool {
        self.task(id).queue_seq != 0
    }

    fn entry_is_live(&self, entry: &QueueEntry) -> bool {
        self.tasks[entry.task.0 as usize]
            .as_ref()
            .is_some_and(|t| t.queue_seq == entry.seq)
    }

    /// The best task of the queue.
    pub(super) fn queue_peek(&mut self) -> Option<TaskId> {
        while let Some(entry) = self.queued.peek() {
            if self.entry_is_live(entry) {
                return Some(entry.task);
            }
            self.queued.pop();
        }
        None
    }

    /// Queued tasks, in no order.
    pub fn queued_tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.queued
            .iter()
            .filter(|e| self.entry_is_live(e))
            .map(|e| e.task)
    }
}
