//! Submits without Python.
//!
//! `Client.submit` sends an `LLGExpr` of one `Task`, pickled. A worker wants the pickle of that task, which is a slice
//! of what the client sent; the scheduler wants its key and dependencies, which are plain values in it. So neither
//! needs to be unpickled. What makes it safe:
//!
//! * nothing is executed: `machine` follows the opcodes with symbols for objects;
//! * a worker must not be sent what it cannot unpickle, as the stock scheduler finds out by unpickling. So every name
//!   that the pickle imports must have been imported by a helper once (`verified`), and only constructors that cannot
//!   fail for any data are called. Whatever else there is goes to a helper.

mod machine;
mod submit;
mod verified;

pub(super) use submit::{Scan, scan};
pub(super) use verified::Verified;
