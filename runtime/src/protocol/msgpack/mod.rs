//! Msgpack as Dask uses it: map keys of any type, no extension types, text and binary kept apart.

mod reader;
mod value_reader;
pub mod write;

pub(crate) use reader::Integer;
pub use reader::{Kind, Reader};
pub(crate) use value_reader::ValueReader;

/// How deep containers may nest. The stock packer stops at 511, so no Python peer sends more.
pub const MAX_DEPTH: u32 = 512;
