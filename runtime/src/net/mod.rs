//! Sockets: the core thread's streams, the listener, and the remote procedure calls.

mod access;
pub mod conn;
pub mod core;
mod encode;
pub mod listen;
mod messages;
pub mod pool;
pub mod reactor;
pub mod rpc;
pub mod server;
mod stream;
pub mod turns;
