//! What queues and variables hold.

use super::core_access::{CoreAccess, TaskView};
use crate::protocol::{Key, Value};

/// A value, or a reference to a task's result.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The key of a task.
    Future(Key),
    /// Anything that msgpack can carry.
    Data(Value),
}

impl Record {
    /// The key, of a future.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Record::Future(key) => Some(key),
            Record::Data(_) => None,
        }
    }
}

/// The records as clients get them: futures with the state of their task, and its exception if it erred.
pub async fn describe(records: Vec<Record>, core: &impl CoreAccess) -> Vec<Value> {
    let keys: Vec<Key> = records.iter().filter_map(Record::key).cloned().collect();
    let mut views = if keys.is_empty() {
        Vec::new()
    } else {
        core.tasks(keys).await
    }
    .into_iter();
    let describe = |record: Record| match record {
        Record::Data(value) => Value::map([("type", "msgpack".into()), ("value", value)]),
        Record::Future(key) => describe_future(&key, views.next().flatten()),
    };
    records.into_iter().map(describe).collect()
}

fn describe_future(key: &Key, task: Option<TaskView>) -> Value {
    let state = task.as_ref().map_or("lost", |task| task.state);
    let mut entries = vec![
        ("type".into(), "Future".into()),
        ("value".into(), key.to_value()),
        ("state".into(), state.into()),
    ];
    if state == "erred" {
        let error = task.and_then(|task| task.error).unwrap_or_default();
        entries.push(("exception".into(), error.exception));
        entries.push(("traceback".into(), error.traceback));
    }
    Value::Map(entries)
}
