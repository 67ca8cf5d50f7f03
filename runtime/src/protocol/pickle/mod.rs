//! Pickles of a closed set of shapes: exceptions and plain objects to write, plain objects to read.
//!
//! Nothing here can run code: a pickle that needs more than plain values is left to a Python process.

pub mod read;
pub mod write;

pub use read::{ReadError, read};
