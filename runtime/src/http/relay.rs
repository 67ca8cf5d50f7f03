//! Feeds `/eventstream` out of the event log and the task stream, while anybody listens. The core itself sends nothing: it
//! is asked ten times a second, and not at all when nobody is connected.

use super::collect::{self, RawEvent, RawRecord};
use super::view::StreamEvent;
use crate::net::core::CoreHandle;
use crate::protocol::Value;
use crate::scheduler::State;
use crate::scheduler::events::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::broadcast;

/// Events a slow listener may lag behind.
const CAPACITY: usize = 8192;
const INTERVAL: Duration = Duration::from_millis(100);
/// Records taken at once.
const MAX_RECORDS: usize = 4096;

/// The logs that stock's stream tells of: workers and clients, and graphs.
const TOPICS: [&str; 2] = ["all", "scheduler"];

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
    let mut position = from.clone();
    let mut events = Vec::new();
    for (name, last) in TOPICS.into_iter().zip(&mut position.events) {
        let log: Vec<&Event> = state.events.topic(name).collect();
        // A last event that is no longer in the log was overtaken by a whole log of new ones.
        let seen = last
            .as_ref()
            .and_then(|last| log.iter().rposition(|event| Arc::ptr_eq(&event.msg, last)));
        let topic: Arc<str> = name.into();
        let raw = |event: &&Event| RawEvent {
            time: event.time,
            topic: client_of(state, event).unwrap_or_else(|| topic.clone()),
            msg: event.msg.clone(),
        };
        events.extend(log[seen.map_or(0, |i| i + 1)..].iter().map(raw));
        *last = log.last().map(|event| event.msg.clone());
    }
    let Some(since) = from.record else {
        position.record = Some(state.task_stream.index);
        return (position, Vec::new(), Vec::new());
    };
    let (next, records) = collect::records(state, since, MAX_RECORDS);
    position.record = Some(next);
    (position, events, records)
}

/// The client that sent a graph: the event does not name it, but is in its log too.
fn client_of(state: &State, event: &Event) -> Option<Arc<str>> {
    if event.msg.get("action")?.as_str()? != "update-graph" {
        return None;
    }
    let logged = |name: &str| {
        state
            .events
            .topic(name)
            .any(|other| Arc::ptr_eq(&other.msg, &event.msg))
    };
    let mut clients = state.all_clients().map(|(_, client)| &client.name);
    clients.find(|name| logged(name)).cloned()
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
        "update-graph" => StreamEvent::UpdateGraph(event.topic.to_string()),
        "restart-workers" => StreamEvent::Restart,
        _ => return None,
    })
}
