//! Graphs: what a client's expression becomes, and the Python helpers that make it.

mod types;

pub use types::{DATA_PRODUCER, Graph, P2P_BARRIER, RunSpec, SpecTemplate};
