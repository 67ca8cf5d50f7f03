//! The first message of both sides on a new connection.

use super::{Message, Value};
use thiserror::Error;

/// What the peer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The compression it would use if this side offered the same; this side offers none.
    pub compression: Option<String>,
    /// Its highest pickle protocol.
    pub pickle_protocol: i64,
}

/// A first message that is not a handshake.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// Not a map.
    #[error(
        "the peer's first message is not a handshake but {found}; is it a Dask peer of a supported version?"
    )]
    NotAMap {
        /// The type that was sent.
        found: &'static str,
    },
    /// A field is missing or of another type.
    #[error("the peer's handshake lacks a valid `{field}`; your Dask versions may not be in sync")]
    Field {
        /// Its name.
        field: &'static str,
    },
}

/// This side's handshake: no compression, the pickle protocol of every supported Python.
pub fn encode() -> Message {
    Message::encode(&Value::map([
        ("compression", Value::Nil),
        ("python", Value::array([3, 11, 0])),
        ("pickle-protocol", 5.into()),
    ]))
}

/// Checks the peer's handshake. Unknown fields are ignored, as the stock peer does.
pub fn check(message: &Value) -> Result<Handshake, HandshakeError> {
    if message.as_map().is_none() {
        return Err(HandshakeError::NotAMap {
            found: message.type_name(),
        });
    }
    let compression = match message.get("compression") {
        Some(Value::Nil) => None,
        Some(Value::Str(name)) => Some(name.chars().take(32).collect()),
        _ => {
            return Err(HandshakeError::Field {
                field: "compression",
            });
        }
    };
    let pickle_protocol = message.get("pickle-protocol").and_then(Value::as_i64);
    let pickle_protocol = pickle_protocol.ok_or(HandshakeError::Field {
        field: "pickle-protocol",
    })?;
    Ok(Handshake {
        compression,
        pickle_protocol,
    })
}
