//! Events on their way to plugins.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::protocol::{Key, Value};
use crate::scheduler::tap::TapEvent;

/// Events that may wait for plugins; of more the oldest are dropped.
const MAX_EVENTS: usize = 200_000;

/// An event as it is sent.
pub(super) fn to_value(event: TapEvent) -> Value {
    let list = |keys: Vec<Key>| Value::Array(keys.iter().map(Key::to_value).collect());
    Value::Array(match event {
        TapEvent::Transition {
            key,
            start,
            finish,
            stimulus,
            nbytes,
            extra,
        } => vec![
            "transition".into(),
            key.to_value(),
            start.into(),
            finish.into(),
            stimulus.into(),
            nbytes.into(),
            extra,
        ],
        TapEvent::Log { topic, msg } => vec!["log".into(), topic.into(), msg],
        TapEvent::Graph {
            client,
            tasks,
            keys,
            annotations,
            priorities,
            stimulus,
        } => vec![
            "graph".into(),
            client.into(),
            list(tasks),
            list(keys),
            annotations,
            priorities,
            stimulus.into(),
        ],
    })
}

/// A bounded queue of events. It may be filled from any thread and costs one look while no plugin wants anything.
#[derive(Debug, Default)]
pub struct EventQueue {
    open: AtomicBool,
    waiting: Mutex<Waiting>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<TapEvent>,
    dropped: u64,
}

impl EventQueue {
    /// Adds an event.
    pub fn push(&self, event: TapEvent) {
        if !self.open.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.lock();
        if waiting.events.len() >= MAX_EVENTS {
            waiting.events.pop_front();
            if waiting.dropped == 0 {
                tracing::warn!(
                    "scheduler plugins don't keep up: the oldest of {MAX_EVENTS} events are dropped"
                );
            }
            waiting.dropped += 1;
        }
        waiting.events.push_back(event);
        drop(waiting);
        self.notify.notify_one();
    }

    /// Whether events are taken.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Begins or ends to take events; what waits is dropped at the end.
    pub(super) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
        if !open {
            *self.lock() = Waiting::default();
        }
    }

    /// What waits, at most `limit` events.
    pub(super) fn take(&self, limit: usize) -> Vec<TapEvent> {
        let mut waiting = self.lock();
        let n = waiting.events.len().min(limit);
        if n == 0 {
            waiting.dropped = 0;
            waiting.events = VecDeque::new();
        }
        waiting.events.drain(..n).collect()
    }

    /// Waits until something was added.
    pub(super) async fn ready(&self) {
        self.notify.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
