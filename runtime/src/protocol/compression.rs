//! Decompression of the frames the scheduler itself has to read. Forwarded payloads stay compressed.

use super::DecodeError;
use bytes::Bytes;
use std::io::Read;

/// A frame may grow to this size. What the scheduler reads itself are annotations and the like.
const MAX_DECOMPRESSED: usize = 1 << 30;

/// Decompresses one frame. `name` is the entry of the sub-header's `compression`.
pub fn decompress(name: &str, frame: &Bytes) -> Result<Bytes, DecodeError> {
    let failed = |reason: String| DecodeError::Decompress {
        name: name.chars().take(32).collect(),
        reason,
    };
    match name {
        "lz4" => {
            let (size, block) = frame
                .split_first_chunk()
                .ok_or_else(|| failed("no size".into()))?;
            let size = u32::from_le_bytes(*size) as usize;
            // A block of LZ4 expands at most 255-fold: a larger claim is false, and is not allocated.
            if size > MAX_DECOMPRESSED || size / 255 > block.len() {
                return Err(failed(format!("claims to hold {size} bytes")));
            }
            lz4_flex::block::decompress(block, size)
                .map(Bytes::from)
                .map_err(|e| failed(e.to_string()))
        }
        "zstd" => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&frame[..])
                .map_err(|e| failed(e.to_string()))?;
            let mut out = Vec::new();
            let read = decoder
                .take(MAX_DECOMPRESSED as u64 + 1)
                .read_to_end(&mut out);
            read.map_err(|e| failed(e.to_string()))?;
            if out.len() > MAX_DECOMPRESSED {
                return Err(failed(format!("holds more than {MAX_DECOMPRESSED} bytes")));
            }
            Ok(out.into())
        }
        _ => Err(failed(
            "this compression is not supported here; use lz4, zstd or none".into(),
        )),
    }
}
