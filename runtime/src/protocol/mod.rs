//! The wire protocol of `dask.distributed`: frames, msgpack, keys, payloads, pickles. No input and output here.

pub mod batch;
pub mod compression;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod key;
mod key_split;
pub mod message;
pub mod msgpack;
pub mod payload;
pub mod pickle;
pub mod reply;
pub mod repr;
pub mod value;
pub mod versions;

pub use batch::BatchWriter;
pub use error::{DecodeError, FrameError};
pub use frame::{FrameDecoder, Limits};
pub use key::Key;
pub use key_split::{key_split, key_split_group};
pub use message::Message;
pub use msgpack::{Kind, Reader, write};
pub use payload::{Payload, PayloadKind, PickledParts};
pub use reply::error_message;
pub use value::{Str, Value};
