//! Errors of remote procedure calls, as exceptions that the caller raises.

use crate::net::core::Closed;
use crate::net::pool::CallError;
use crate::protocol::pickle::write;
use crate::protocol::{DecodeError, Value, error_message};

/// What a handler raises.
#[derive(Debug)]
pub enum RpcError {
    /// A Python exception: pickle and `repr`.
    Exception {
        /// The pickle.
        pickle: Vec<u8>,
        /// Text for logs and for peers that do not unpickle.
        text: String,
    },
    /// A whole error message of another process, passed on.
    Message(Value),
    /// The scheduler is closing: the connection ends without an answer, as if it had ended already.
    Closing,
}

impl RpcError {
    /// An exception of Python's `builtins` with one text argument.
    pub fn builtin(class: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self::Exception {
            pickle: write::generic("builtins", class, &[text.as_str().into()]),
            text: format!("{class}({text:?})"),
        }
    }

    /// `ValueError`.
    pub fn value(text: impl Into<String>) -> Self {
        Self::builtin("ValueError", text)
    }

    /// `TypeError`.
    pub fn type_error(text: impl Into<String>) -> Self {
        Self::builtin("TypeError", text)
    }

    /// `KeyError`.
    pub fn key(text: impl Into<String>) -> Self {
        Self::builtin("KeyError", text)
    }

    /// `TimeoutError`.
    pub fn timeout(text: impl Into<String>) -> Self {
        Self::builtin("TimeoutError", text)
    }

    /// `RuntimeError`.
    pub fn runtime(text: impl Into<String>) -> Self {
        Self::builtin("RuntimeError", text)
    }

    /// The reply.
    pub fn into_reply(self) -> Value {
        match self {
            Self::Exception { pickle, text } => error_message(pickle, &text),
            Self::Message(value) => value,
            Self::Closing => Self::runtime(Closed.to_string()).into_reply(),
        }
    }

    /// The text for logs.
    pub fn text(&self) -> String {
        match self {
            Self::Exception { text, .. } => text.clone(),
            Self::Message(v) => v
                .get("exception_text")
                .and_then(Value::as_str)
                .unwrap_or("error")
                .to_string(),
            Self::Closing => Closed.to_string(),
        }
    }
}

impl From<DecodeError> for RpcError {
    fn from(e: DecodeError) -> Self {
        Self::type_error(e.to_string())
    }
}

impl From<Closed> for RpcError {
    fn from(_: Closed) -> Self {
        Self::Closing
    }
}

impl From<CallError> for RpcError {
    fn from(e: CallError) -> Self {
        Self::builtin("OSError", e.to_string())
    }
}
