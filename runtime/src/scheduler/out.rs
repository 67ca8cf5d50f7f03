//! What the scheduler wants sent.

use std::sync::Arc;

use bytes::Bytes;

use super::ids::{ClientId, TaskId, WorkerId};
use super::task::ErrorPayload;
use crate::protocol::{Key, Value};

/// Cause of a message, as shown in stories: a name and the time of the event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stimulus {
    /// What happened, e.g. "task-finished".
    pub kind: &'static str,
    /// When, s since the epoch.
    pub time: f64,
}

impl std::fmt::Display for Stimulus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.kind, self.time)
    }
}

/// A message on a worker's stream.
#[derive(Clone, Debug)]
pub enum ToWorker {
    /// Run the task; its fields are read from the state when the message is written.
    ComputeTask {
        /// The task.
        task: TaskId,
        /// Number of this attempt; the message is dropped if the task has moved on meanwhile.
        run_id: u64,
    },
    /// Forget these keys.
    FreeKeys {
        /// The keys.
        keys: Vec<Key>,
        /// Cause.
        stimulus: Stimulus,
    },
    /// Fetch copies of these keys.
    AcquireReplicas {
        /// Key, holders' addresses, size in bytes.
        keys: Vec<(Key, Vec<Arc<str>>, i64)>,
        /// Cause.
        stimulus: Stimulus,
    },
    /// Drop the copies of these keys.
    RemoveReplicas {
        /// The keys.
        keys: Vec<Key>,
        /// Cause.
        stimulus: Stimulus,
    },
    /// Give the task back if it has not started.
    StealRequest {
        /// The task.
        key: Key,
        /// Number of the request, echoed in the answer as "steal-<number>".
        request: u64,
    },
    /// Who holds these keys now.
    RefreshWhoHas {
        /// Key and holders' addresses.
        who_has: Vec<(Key, Vec<Arc<str>>)>,
        /// Cause.
        stimulus: Stimulus,
    },
    /// Change status.
    StatusChange {
        /// Name of the status.
        status: &'static str,
        /// Cause.
        stimulus: Stimulus,
    },
    /// Another worker is gone.
    RemoveWorker {
        /// Its address.
        address: Arc<str>,
        /// Cause.
        stimulus: Stimulus,
    },
    /// Close.
    Close {
        /// Why, for the worker's log.
        reason: &'static str,
    },
    /// End of the stream.
    CloseStream,
    /// Any other message.
    Raw(Arc<Value>),
}

/// A message on a client's stream.
#[derive(Clone, Debug)]
pub enum ToClient {
    /// The result is there.
    KeyInMemory {
        /// The task.
        key: Key,
        /// Pickle of the result's class, if just computed.
        type_pickle: Option<Bytes>,
        /// Holders, for scattered data.
        workers: Option<Arc<Vec<Arc<str>>>>,
    },
    /// The result was lost and will be computed again.
    LostData {
        /// The task.
        key: Key,
    },
    /// The keys will not be computed.
    CancelledKeys {
        /// The tasks.
        keys: Arc<Vec<Key>>,
        /// Short reason.
        reason: Arc<str>,
        /// Text for the user.
        msg: Option<Arc<str>>,
    },
    /// A failed task runs again.
    TaskRetried {
        /// The task.
        key: Key,
    },
    /// The task failed.
    TaskErred {
        /// The task.
        key: Key,
        /// The exception.
        exception: ErrorPayload,
        /// The traceback.
        traceback: ErrorPayload,
    },
    /// All keys are gone.
    Restart,
    /// An event of a topic the client subscribed to.
    Event {
        /// Topic.
        topic: Arc<str>,
        /// When, s since the epoch.
        time: f64,
        /// The event.
        msg: Arc<Value>,
    },
    /// Any other message.
    Raw(Arc<Value>),
}

/// One message to be sent.
#[derive(Clone, Debug)]
pub enum Out {
    /// To a worker.
    Worker(WorkerId, ToWorker),
    /// To a client.
    Client(ClientId, ToClient),
    /// Close the connection to a worker after what was sent before.
    DropWorker(WorkerId),
}
