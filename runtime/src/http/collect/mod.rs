//! From the scheduler's state to the answers of [`view`](super::view). Pure; runs on the core thread, so each function says
//! what it costs.

mod events;
mod figures;
mod json;
mod stream;
mod tasks;
mod workers;

#[cfg(test)]
mod tests;

pub(super) use events::{RawEvent, event_rows, events};
pub(super) use figures::{counts, metrics, progress};
pub(super) use json::to_json;
pub(super) use stream::{RawRecord, record, records, transition};
pub(super) use tasks::{erred_tasks, find_task, graph, task_detail};
pub(super) use workers::{worker_detail, worker_rows};
