//! A helper at work.

use super::helper::{Helper, HelperError};
use super::pool::GraphPool;
use super::types::GraphError;
use tokio::sync::OwnedSemaphorePermit;

/// A helper with a request. Dropped, it is killed: only [`Busy::release`] makes it idle again.
pub(super) struct Busy {
    pub helper: Helper,
    pub pool: GraphPool,
    pub _place: OwnedSemaphorePermit,
}

impl Busy {
    /// Makes the helper idle.
    pub fn release(self) {
        self.pool.put_back(self.helper);
    }

    /// Makes the helper idle or buries it, as the outcome says.
    pub async fn settle<T>(
        self,
        what: &str,
        outcome: Result<T, HelperError>,
    ) -> Result<T, GraphError> {
        match outcome {
            Ok(value) => {
                self.release();
                Ok(value)
            }
            Err(HelperError::Failed(e)) => {
                self.release();
                Err(*e)
            }
            Err(HelperError::Gone(_)) => Err(self
                .buried(
                    "",
                    &format!("{what} has crashed the scheduler's graph helper"),
                )
                .await),
            Err(e) => Err(self
                .buried(
                    &e.to_string(),
                    &format!("{what} has confused the scheduler's graph helper"),
                )
                .await),
        }
    }

    /// Buries a helper that is of no use any more.
    pub async fn buried(self, detail: &str, what: &str) -> GraphError {
        let pid = self.helper.child.pid();
        let cause = self.helper.child.autopsy().await;
        let colon = if detail.is_empty() { "" } else { " " };
        let error = GraphError::runtime(format!("{what}: {detail}{colon}{cause}"));
        tracing::error!(pid, "{error}");
        error
    }

    /// The helper is killed by being dropped.
    pub fn hung(self, text: &str) -> GraphError {
        let lines = self.helper.child.last_lines();
        let tail = if lines.is_empty() {
            String::new()
        } else {
            format!(". The helper wrote last:\n{lines}")
        };
        let error = GraphError::runtime(format!("{text}{tail}"));
        tracing::error!(pid = self.helper.child.pid(), "{error}");
        error
    }
}
