//! Why a request to the host failed.

use crate::protocol::pickle::write::runtime_error;
use crate::protocol::{Value, error_message};

/// Why a request to the host failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HostError {
    /// The code raised: the error message for the client.
    #[error("{}", text_of(.0))]
    Failed(Value),
    /// The process ended while it was at it.
    #[error("the scheduler's host process has ended: {0}")]
    Crashed(String),
    /// There is no process.
    #[error("{0}")]
    Unavailable(String),
}

fn text_of(message: &Value) -> &str {
    let text = message.get("exception_text").and_then(Value::as_str);
    text.unwrap_or("an error without a text")
}

impl HostError {
    /// The reply to the client.
    pub fn into_reply(self) -> Value {
        let text = match self {
            Self::Failed(message) => return message,
            other => other.to_string(),
        };
        error_message(runtime_error(&text), &format!("RuntimeError({text:?})"))
    }
}
