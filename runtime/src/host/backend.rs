//! What the host may ask of the scheduler.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::EventQueue;
use crate::protocol::Value;

/// A future that may be moved between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Which events the registered plugins want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Transitions of tasks.
    pub transitions: bool,
    /// Logged events; workers and clients that come and go are among them.
    pub log: bool,
    /// Graphs that were added.
    pub graphs: bool,
    /// Not events: a plugin has a say in which workers may be closed.
    pub downscaling: bool,
}

impl Wants {
    /// Whether any event is wanted.
    pub fn any(self) -> bool {
        self.transitions || self.log || self.graphs
    }
}

/// The scheduler as the host sees it.
pub trait HostBackend: Send + Sync + 'static {
    /// A remote procedure call as a client makes it; a failure is the error message that the client would get.
    fn rpc(&self, op: String, kwargs: Value) -> BoxFuture<Result<Value, Value>>;

    /// A part of the state, see `scheduler::snapshot`.
    fn snapshot(&self, what: String, args: Value) -> BoxFuture<Value>;

    /// From now on these events go to `queue`, and no others. Returns once this holds.
    fn tap(&self, wants: Wants, queue: Arc<EventQueue>) -> BoxFuture<()>;

    /// Makes an uploaded file's modules importable where graphs are made; a failure is a text.
    fn upload(&self, filename: String, data: Bytes) -> BoxFuture<Result<(), String>>;

    /// Makes the modules of a folder or archive importable where graphs are made; a failure is a text.
    fn add_sys_path(&self, path: String) -> BoxFuture<Result<(), String>>;
}
