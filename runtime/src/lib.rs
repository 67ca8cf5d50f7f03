//! Scheduler and worker of Oxidask, a control plane for Dask that speaks the wire protocol of `dask.distributed`.
//!
//! The pure cores (`protocol`, `scheduler`) know no socket, no clock and no async runtime; the shells around them
//! (`net`, `graph`, `http`, `ext`, `config`) do the input and output.

pub mod config;
pub mod ext;
pub mod graph;
pub mod host;
pub mod http;
pub mod net;
pub mod protocol;
pub mod scheduler;
