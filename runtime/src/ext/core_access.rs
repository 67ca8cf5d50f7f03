//! What the extensions need of the scheduler's core.

use std::future::Future;

use tokio::sync::oneshot;

use crate::protocol::{Key, Value};

/// A change of the core's state that an extension asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The client wants these keys kept. Pseudo-clients (`queue-…`, `variable-…`, `published-…`) come into being by it.
    /// Keys that do not exist are passed over with a warning.
    Desire {
        /// The keys.
        keys: Vec<Key>,
        /// The client that wants them.
        client: String,
    },
    /// The client wants these keys no more.
    Release {
        /// The keys.
        keys: Vec<Key>,
        /// The client that wanted them.
        client: String,
    },
    /// The pseudo-client is gone with all it wanted. One that never came into being is no error.
    RemoveClient {
        /// The client.
        client: String,
    },
}

/// A task as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskView {
    /// The name of its state on the scheduler.
    pub state: &'static str,
    /// If it erred: what the task to blame left behind.
    pub error: Option<TaskError>,
}

/// The exception and the traceback of an erred task, as the worker sent them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskError {
    /// The exception: a payload, or bytes that hold its pickle.
    pub exception: Value,
    /// The traceback, or nil.
    pub traceback: Value,
}

/// The core, seen from the I/O runtime.
pub trait CoreAccess: Send + Sync {
    /// Queues the effects for the core and returns at once. Effects of successive calls are applied in the order of
    /// the calls; the receiver resolves when these have been.
    fn apply(&self, effects: Vec<Effect>) -> oneshot::Receiver<()>;

    /// [`Effect::Desire`] of one key if the core knows it, in one step; whether it does.
    fn desire_known(&self, key: Key, client: String) -> impl Future<Output = bool> + Send;

    /// What the core knows of each key; `None` for unknown ones.
    fn tasks(&self, keys: Vec<Key>) -> impl Future<Output = Vec<Option<TaskView>>> + Send;

    /// Whether this client is connected.
    fn has_client(&self, client: &str) -> impl Future<Output = bool> + Send;
}

/// The core, seen from its own thread while it handles a client's stream.
pub trait CoreNow {
    /// The client itself wants these keys kept: before anything else that its stream says.
    fn client_desires_keys(&mut self, keys: &[Key], client: &str);

    /// Queues effects as [`CoreAccess::apply`] does, behind those that are queued already. (Applying them at once would
    /// overtake those of a request that is being answered.)
    fn queue(&mut self, effects: Vec<Effect>);
}
