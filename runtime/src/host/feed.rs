//! A stream of values that a function in the host makes for one connection.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::HostError;
use super::session::Session;
use crate::protocol::Value;

/// A value on its way, and the request to answer once it is written.
pub(super) struct Item {
    pub value: Value,
    pub request: u64,
}

/// A running feed. Dropping it ends it: its teardown is called.
pub struct Feed {
    pub(super) session: Arc<Session>,
    pub(super) id: u64,
    pub(super) items: mpsc::Receiver<Result<Item, HostError>>,
    pub(super) unanswered: Option<u64>,
}

impl Feed {
    /// The next value, when the one before has been written; `None` at the end.
    ///
    /// # Errors
    /// What the feed's functions raise, or the end of the host.
    pub async fn next(&mut self) -> Result<Option<Value>, HostError> {
        if let Some(request) = self.unanswered.take() {
            self.session.reply(request, &Value::Nil).await;
        }
        match self.items.recv().await {
            None => Ok(None),
            Some(Err(e)) => Err(e),
            Some(Ok(item)) => {
                self.unanswered = Some(item.request);
                Ok(Some(item.value))
            }
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.session.cancel(self.id);
    }
}
