//! The scheduler's core: a state machine without I/O.
//!
//! [`State`] holds tasks, workers and clients in arenas. Inputs are its methods, outputs are messages in
//! [`State::out`]. It knows no socket, no clock and no async runtime; time is passed in.

pub mod adaptive;
pub mod amm;
mod balance;
#[cfg(test)]
mod balance_tests;
pub mod client;
pub mod config;
pub mod cull;
pub mod events;
pub mod ids;
pub mod membership;
pub mod memory;
pub mod order;
pub mod out;
mod placement;
mod queue;
pub mod rebalance;
pub mod replicate;
pub mod results;
pub mod retire;
mod rules;
pub mod sampler;
pub mod shuffle;
pub mod snapshot;
pub mod state;
pub mod stealing;
pub mod story;
pub mod submit;
pub mod tap;
pub mod task;
pub mod task_metadata;
pub mod task_stream;
#[cfg(test)]
mod testbed;
pub mod timers;
mod transitions;
mod validate;
mod window;
pub mod worker;

pub use config::CoreConfig;
pub use ids::{ClientId, GroupId, PrefixId, TaskId, WorkerId};
pub use membership::heartbeat_interval;
pub use out::{Out, Stimulus, ToClient, ToWorker};
pub use results::{StartStop, TaskFinished};
pub use rules::format_bytes;
pub use state::{Clock, State};
pub use submit::{Actors, Submission, Submitted};
pub use task::{ErrorPayload, Failure, TaskStateName};
pub use worker::{Status, WorkerInfo, WorkerMetrics};
