//! Replies that are the same for every handler.

use super::Value;
use bytes::Bytes;

/// Longest text of an error on the wire, in characters (`distributed.admin.max-error-length`).
pub const MAX_ERROR_LENGTH: usize = 10_000;

/// The reply to a request whose handler failed: the client raises the pickled exception, a peer that does not unpickle
/// shows the text.
pub fn error_message(exception_pickle: Vec<u8>, text: &str) -> Value {
    let text = clip(text);
    Value::map([
        ("status", "uncaught-error".into()),
        ("exception", Value::Bin(Bytes::from(exception_pickle))),
        ("traceback", Value::Nil),
        ("exception_text", text.into()),
        ("traceback_text", "".into()),
    ])
}

/// The text, cut to the length that an error may have on the wire.
pub(crate) fn clip(text: &str) -> &str {
    match text.char_indices().nth(MAX_ERROR_LENGTH) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
