//! The graph helpers: Python processes that turn a client's pickled expression into tasks.
//!
//! | module     | what stands there |
//! |------------|-------------------|
//! | `types`    | a graph as the scheduler takes it, requests and errors |
//! | `pool`     | helpers in parallel, started when needed, one request each |
//! | `busy`     | a helper at work, and what its end means for the graph |
//! | `helper`   | one helper: start-up, uploads, a request |
//! | `answer`   | decoding of what a helper sends |
//! | `native`   | submits, read without Python |
//! | `opcodes`  | pickles of `Client.map`'s tasks, written here |
//! | `child`    | a Python process and what is left when it dies |
//! | `channel`  | messages over its socket |
//! | `sources`  | the Python code, embedded |

mod answer;
mod busy;
pub mod channel;
pub mod child;
mod helper;
mod native;
mod opcodes;
mod pool;
pub(crate) mod sources;
mod types;
mod uploads;

pub use child::find_python;
pub use pool::{GraphPool, PoolConfig, PoolStats};
pub use types::{
    DATA_PRODUCER, Graph, GraphError, GraphRequest, OrderFn, P2P_BARRIER, RunSpec, SpecTemplate,
    Structure,
};
