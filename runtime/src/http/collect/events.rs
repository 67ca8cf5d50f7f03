//! The event log.

use super::super::view::EventRow;
use super::json::to_json;
use crate::protocol::Value;
use crate::scheduler::State;
use std::sync::Arc;

/// Topics looked at: the log of "all" has nearly everything, the others are looked at as far as there are few.
const MAX_TOPICS: usize = 300;
/// Longest text of one event.
const MAX_TEXT: usize = 600;

/// An event as the state keeps it.
#[derive(Clone)]
pub(in crate::http) struct RawEvent {
    /// Seconds since the epoch.
    pub(in crate::http) time: f64,
    pub(in crate::http) topic: Arc<str>,
    pub(in crate::http) msg: Arc<Value>,
}

/// The latest events of each of the first topics; costs their number times `limit` at most.
pub(in crate::http) fn events(state: &State, limit: usize) -> Vec<RawEvent> {
    let mut events: Vec<RawEvent> = Vec::new();
    for (topic, log) in state.events.topics().take(MAX_TOPICS) {
        let one = |event: &crate::scheduler::events::Event| RawEvent {
            time: event.time,
            topic: topic.clone(),
            msg: event.msg.clone(),
        };
        events.extend(log.iter().rev().take(limit).map(one));
    }
    events
}

/// Newest first; an event logged under several topics is one row.
pub(in crate::http) fn event_rows(mut events: Vec<RawEvent>, limit: usize) -> Vec<EventRow> {
    events.sort_by(|a, b| {
        b.time
            .total_cmp(&a.time)
            .then_with(|| Arc::as_ptr(&a.msg).cmp(&Arc::as_ptr(&b.msg)))
    });
    let mut rows: Vec<EventRow> = Vec::new();
    let mut last: Option<Arc<Value>> = None;
    for event in events {
        let same = last
            .as_ref()
            .is_some_and(|message| Arc::ptr_eq(message, &event.msg));
        if let Some(row) = rows.last_mut().filter(|_| same) {
            row.topic.push_str(", ");
            row.topic.push_str(&event.topic);
            continue;
        }
        if rows.len() >= limit {
            break;
        }
        let text = to_json(&event.msg).to_string();
        let cut: String = text.chars().take(MAX_TEXT).collect();
        let text = if cut.len() < text.len() {
            cut + "…"
        } else {
            text
        };
        rows.push(EventRow {
            time: event.time,
            topic: event.topic.to_string(),
            text,
        });
        last = Some(event.msg);
    }
    rows
}
