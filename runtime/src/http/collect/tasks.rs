//! Tasks.

use super::super::view::{ErredTask, GraphNode, GraphView, StoryRow, TaskDetail};
use super::workers::{positive, worker_row};
use crate::config::{Tree, literal};
use crate::protocol::{Key, Value};
use crate::scheduler::task::Task;
use crate::scheduler::{State, TaskId};
use std::collections::HashMap;

/// Transitions shown of one task.
const MAX_STORY: usize = 200;

/// The task whose key has this text: the string itself, or `str()` or the JSON of a tuple or number.
pub(in crate::http) fn find_task(state: &State, text: &str) -> Option<TaskId> {
    if let Some(id) = state.task_id(&Key::new_str(text)) {
        return Some(id);
    }
    let tree = literal::parse_python(text).or_else(|| literal::parse_json(text))?;
    state.task_id(&Key::from_value(&key_value(&tree)?).ok()?)
}

fn key_value(tree: &Tree) -> Option<Value> {
    Some(match tree {
        Tree::Str(text) => text.as_str().into(),
        Tree::Int(i) => (*i).into(),
        Tree::Float(f) => (*f).into(),
        Tree::Bool(b) => (*b).into(),
        Tree::Null => Value::Nil,
        Tree::List(items) => Value::Array(items.iter().map(key_value).collect::<Option<_>>()?),
        Tree::Map(_) => return None,
    })
}

/// One task with at most `limit` relatives of each kind; costs the length of the transition log.
pub(in crate::http) fn task_detail(state: &State, id: TaskId, limit: usize) -> TaskDetail {
    let task = state.task(id);
    let relatives = |ids: &[TaskId]| -> Vec<(String, String)> {
        let one = |id: &TaskId| {
            (
                state.task(*id).key.to_string(),
                state.task(*id).state.as_str().to_owned(),
            )
        };
        ids.iter().take(limit).map(one).collect()
    };
    let failure = task
        .exception_blame()
        .and_then(|blame| state.task(blame).rare.as_ref()?.failure.clone());
    let key = task.key.to_string();
    TaskDetail {
        state: task.state.as_str().to_owned(),
        processing_on: task
            .processing_on
            .map(|worker| state.worker(worker).info.address.to_string()),
        type_name: task.typename.as_deref().unwrap_or_default().to_owned(),
        nbytes: u64::try_from(task.nbytes).ok(),
        waiting_on: task
            .waiting_on
            .as_slice()
            .iter()
            .take(limit)
            .map(|id| state.task(*id).key.to_string())
            .collect(),
        priority: priority_text(task),
        attributes: attributes(task),
        exception_text: failure
            .as_ref()
            .map(|f| f.exception_text.clone())
            .unwrap_or_default(),
        traceback_text: failure
            .map(|f| f.traceback_text.clone())
            .unwrap_or_default(),
        dependencies: relatives(task.dependencies.as_slice()),
        dependents: relatives(task.dependents.as_slice()),
        who_has: task
            .who_has
            .iter()
            .take(limit)
            .map(|worker| worker_row(state, *worker))
            .collect(),
        who_wants: task
            .who_wants
            .iter()
            .take(limit)
            .map(|client| state.client(*client).name.to_string())
            .collect(),
        story: story(state, &task.key),
        key,
    }
}

pub(super) fn priority_text(task: &Task) -> String {
    match &task.priority {
        None => "None".to_owned(),
        Some(p) => format!("({}, {}, {})", p.user, p.generation, p.internal),
    }
}

fn attributes(task: &Task) -> Vec<(String, String)> {
    let mut list: Vec<(&str, String)> = Vec::new();
    if task.has_lost_dependencies {
        list.push(("Has Lost Dependencies", "True".to_owned()));
    }
    if let Some(restrictions) = task.restrictions() {
        let join = |names: &[std::sync::Arc<str>]| names.join(", ");
        list.push(("Host Restrictions", join(&restrictions.hosts)));
        list.push(("Worker Restrictions", join(&restrictions.workers)));
        let resources: Vec<String> = restrictions
            .resources
            .iter()
            .map(|(name, n)| format!("{name}: {n}"))
            .collect();
        list.push(("Resource Restrictions", resources.join(", ")));
    }
    if task.loose_restrictions() {
        list.push(("Loose Restrictions", "True".to_owned()));
    }
    if let Some(rare) = &task.rare {
        for (name, n) in [("Suspicious", rare.suspicious), ("Retries", rare.retries)] {
            if n > 0 {
                list.push((name, n.to_string()));
            }
        }
    }
    if task.actor {
        list.push(("Actor", "True".to_owned()));
    }
    list.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn story(state: &State, key: &Key) -> Vec<StoryRow> {
    let names = std::slice::from_ref(key);
    let rows = state
        .transition_log
        .story(names)
        .map(|transition| StoryRow {
            key: transition.key.to_string(),
            start: transition.start.as_str().to_owned(),
            finish: transition.finish.as_str().to_owned(),
            recommendations: transition
                .recommendations
                .iter()
                .map(|(key, state)| (key.to_string(), state.as_str().to_owned()))
                .collect(),
            stimulus_id: transition.stimulus.to_string(),
            time: transition.time,
        });
    let mut rows: Vec<_> = rows.collect();
    rows.drain(..rows.len().saturating_sub(MAX_STORY));
    rows
}

/// The graph, if it has at most `limit` tasks; costs its size.
pub(in crate::http) fn graph(state: &State, limit: usize) -> GraphView {
    let total = state.n_known_tasks();
    if total > limit {
        return GraphView {
            total: total as u64,
            ..GraphView::default()
        };
    }
    let index: HashMap<TaskId, u32> = state
        .all_tasks()
        .zip(0u32..)
        .map(|((id, _), i)| (id, i))
        .collect();
    let mut edges = Vec::new();
    let mut nodes = Vec::with_capacity(total);
    for ((_, task), i) in state.all_tasks().zip(0u32..) {
        nodes.push(GraphNode {
            key: task.key.to_string(),
            name: state.prefix(task.prefix).name.to_string(),
            state: task.state.as_str(),
        });
        // A dense graph is cut to what can still be drawn.
        let room = (limit * 10).saturating_sub(edges.len());
        edges.extend(
            task.dependencies
                .as_slice()
                .iter()
                .filter_map(|id| Some((*index.get(id)?, i)))
                .take(room),
        );
    }
    GraphView {
        total: total as u64,
        nodes,
        edges,
    }
}

/// The latest failed tasks.
pub(in crate::http) fn erred_tasks(state: &State, limit: usize) -> Vec<ErredTask> {
    let one = |erred: &crate::scheduler::state::ErredTask| ErredTask {
        key: erred.key.to_string(),
        time: erred.timestamp,
        erred_on: erred.erred_on.iter().map(ToString::to_string).collect(),
        exception_text: erred.exception_text.clone(),
        traceback_text: erred.traceback_text.clone(),
    };
    state.erred_tasks.iter().take(limit).map(one).collect()
}

/// Bytes of a prefix's results now in memory, as its groups count them.
pub(super) fn prefix_nbytes(state: &State, prefix: &crate::scheduler::task::Prefix) -> u64 {
    prefix
        .groups
        .as_slice()
        .iter()
        .map(|group| positive(state.group(*group).nbytes_total))
        .sum()
}
