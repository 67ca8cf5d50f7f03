//! Errors of extension requests, as the Python exceptions that clients expect.

use thiserror::Error;

use crate::protocol::pickle::write;
use crate::protocol::repr::{repr, repr_str};
use crate::protocol::{Key, Value, error_message};

/// A request that failed. The client raises it as the Python exception of the variant's name.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ExtError {
    /// `TimeoutError`, with or without a text.
    #[error("TimeoutError({})", text.as_deref().map(repr_str).unwrap_or_default())]
    Timeout {
        /// What was waited for.
        text: Option<String>,
    },
    /// `KeyError`: there is no such thing, or there is one already.
    #[error("KeyError({})", repr(.0))]
    Key(Value),
    /// `ValueError`.
    #[error("ValueError({})", repr_str(.0))]
    Value(String),
    /// `RuntimeError`.
    #[error("RuntimeError({})", repr_str(.0))]
    Runtime(String),
    /// `NotImplementedError`.
    #[error("NotImplementedError({})", repr_str(.0))]
    NotImplemented(String),
    /// `AssertionError`: the request contradicts itself.
    #[error("AssertionError({})", repr_str(.0))]
    Assertion(String),
    /// `TypeError`: an argument is missing or of the wrong type.
    #[error("TypeError({})", repr_str(.0))]
    Type(String),
}

impl ExtError {
    /// `TimeoutError()`.
    pub fn timeout() -> ExtError {
        ExtError::Timeout { text: None }
    }

    /// `KeyError(name)`.
    pub fn unknown(name: &Key) -> ExtError {
        ExtError::Key(name.to_value())
    }

    fn python(&self) -> (&'static str, Vec<Value>) {
        match self {
            ExtError::Timeout { text } => ("TimeoutError", text.iter().map(Value::from).collect()),
            ExtError::Key(arg) => ("KeyError", vec![arg.clone()]),
            ExtError::Value(text) => ("ValueError", vec![text.into()]),
            ExtError::Runtime(text) => ("RuntimeError", vec![text.into()]),
            ExtError::NotImplemented(text) => ("NotImplementedError", vec![text.into()]),
            ExtError::Assertion(text) => ("AssertionError", vec![text.into()]),
            ExtError::Type(text) => ("TypeError", vec![text.into()]),
        }
    }
}

/// A failed request, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// The pickled exception.
    pub exception: Vec<u8>,
    /// Its `repr`.
    pub text: String,
}

impl RpcError {
    /// The reply that makes the client raise the exception.
    pub fn into_reply(self) -> Value {
        error_message(self.exception, &self.text)
    }
}

impl From<ExtError> for RpcError {
    fn from(error: ExtError) -> RpcError {
        let (name, args) = error.python();
        RpcError {
            exception: write::generic("builtins", name, &args),
            text: error.to_string(),
        }
    }
}
