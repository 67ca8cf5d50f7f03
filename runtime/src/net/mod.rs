//! Sockets: the core thread's streams, the listener, and the remote procedure calls.

pub mod core;
mod encode;
mod messages;
pub mod reactor;
mod stream;
