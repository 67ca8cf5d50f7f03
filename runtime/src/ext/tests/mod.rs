//! The extensions against a core that only keeps accounts.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fake;
mod locks;
mod queues;
mod sharing;

use fake::{Session, text};

#[test]
fn errors_are_pickled_as_python_exceptions() {
    let error = crate::ext::RpcError::from(crate::ext::ExtError::Key("x".into()));
    assert_eq!(
        error.exception,
        crate::protocol::pickle::write::key_error("x")
    );
    assert_eq!(error.text, "KeyError('x')");
}
