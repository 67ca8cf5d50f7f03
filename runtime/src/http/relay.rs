//! Feeds `/eventstream` out of the event log and the task stream, while anybody listens. The core itself sends nothing: it
//! is asked ten times a second, and not at all when nobody is connected.

use super::collect::{self, RawEvent, RawRecord};
use super::view::StreamEvent;
use crate::net::core::CoreHandle;
use crate::protocol::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::broadcast;

/// Events a slow listener may lag behind.
const CAPACITY: usize = 8192;
const INTERVAL: Duration = Duration::from_millis(100);
/// Topics of the event log that are passed on: who comes and goes; graphs.
const TOPICS: [&str; 2] = ["all", "scheduler"];
/// Records taken at once.
const MAX_RECORDS: usize = 4096;

/// Passes events to all listeners.
pub(super) struct Relay {
    core: CoreHandle,
    sender: broadcast::Sender<Arc<StreamEvent>>,
    running: Arc<AtomicBool>,
}

impl Relay {
    pub(super) fn new(core: CoreHandle) -> Self {
        Self {
            core,
            sender: broadcast::channel(CAPACITY).0,
            running: Arc::default(),
        }
    }

    /// A new listener; must be called on a tokio runtime.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<StreamEvent>> {
        let receiver = self.sender.subscribe();
        if !self.running.swap(true, Ordering::AcqRel) {
            tokio::spawn(run(
                self.core.clone(),
                self.sender.clone(),
                self.running.clone(),
            ));
        }
        receiver
    }
}

/// Where the relay stands in the two logs.
#[derive(Clone, Default)]
struct Position {
    record: Option<u64>,
    /// The last event seen of each of [`TOPICS`]; several may have the same time, none the same message.
    events: [Option<Arc<Value>>; TOPICS.len()],
}

async fn run(
    core: CoreHandle,
    sender: broadcast::Sender<Arc<StreamEvent>>,
    running: Arc<AtomicBool>,
) {
    let mut position = Position::default();
    loop {
        if sender.receiver_count() == 0 {
            running.store(false, Ordering::Release);
            // One who came in between finds it running no more, or is found here.
            if sender.receiver_count() == 0 || running.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        let from = position.clone();
        let Ok((next, events, records)) = core.call(move |core| take(core, &from)).await else {
            return;
        };
        position = next;
        for event in events
            .iter()
            .filter_map(cluster_event)
            .chain(records.iter().filter_map(collect::transition))
        {
            let _ = sender.send(Arc::new(event));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn take(
    core: &mut crate::net::core::Core,
    from: &Position,
) -> (Position, Vec<RawEvent>, Vec<RawRecord>) {
    let state = &mut core.state;
    state.task_stream.start();
    let latest = TOPICS.map(|topic| {
        let last = state.events.topic(topic).next_back();
        last.map(|event| event.msg.clone())
    });
    let Some(since) = from.record else {
        let start = Position {
            record: Some(state.task_stream.index),
            events: latest,
        };
        return (start, Vec::new(), Vec::new());
    };
    let (next, records) = collect::records(state, since, MAX_RECORDS);
    let mut events = Vec::new();
    for (name, seen) in TOPICS.iter().zip(&from.events) {
        let topic: Arc<str> = (*name).into();
        // A last event that is no longer in the log was overtaken by a whole log of new ones.
        let unseen = |event: &&crate::scheduler::events::Event| {
            seen.as_ref()
                .is_none_or(|last| !Arc::ptr_eq(&event.msg, last))
        };
        let first = events.len();
        let new = state.events.topic(name).rev().take_while(unseen);
        events.extend(new.take(MAX_RECORDS).map(|event| RawEvent {
            time: event.time,
            topic: topic.clone(),
            msg: event.msg.clone(),
        }));
        events[first..].reverse();
    }
    let position = Position {
        record: Some(next),
        events: latest,
    };
    (position, events, records)
}

/// An entry of the event log that stock's stream tells of.
fn cluster_event(event: &RawEvent) -> Option<StreamEvent> {
    let text = |name: &str| {
        event
            .msg
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Some(match event.msg.get("action")?.as_str()? {
        "add-worker" => StreamEvent::AddWorker(text("worker")),
        "remove-worker" => StreamEvent::RemoveWorker(text("worker")),
        "add-client" => StreamEvent::AddClient(text("client")),
        "remove-client" => StreamEvent::RemoveClient(text("client")),
        "update-graph" => StreamEvent::UpdateGraph(text("client")),
        "restart-workers" => StreamEvent::Restart,
        _ => return None,
    })
}
