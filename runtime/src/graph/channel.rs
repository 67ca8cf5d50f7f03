//! Messages between the scheduler and a Python process of its own: a list of frames, the first of them a msgpack map.
//!
//! Layout, little-endian: `u32 n`, `n` times `u64 length`, then the frames.

use bytes::Bytes;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Frames of one message; a graph of many large arrays has one per array.
const MAX_FRAMES: u32 = 64 << 20;
/// Bytes of one frame.
const MAX_FRAME: u64 = 1 << 40;
/// Frames below this size are joined before they are written.
const SMALL: usize = 32 << 10;

/// A socket to a Python process.
#[derive(Debug)]
pub struct Channel {
    stream: BufReader<UnixStream>,
}

impl Channel {
    /// Messages over `stream`.
    pub fn new(stream: UnixStream) -> Self {
        Channel {
            stream: BufReader::with_capacity(64 << 10, stream),
        }
    }

    /// The socket, before anything was read from it.
    pub fn into_stream(self) -> UnixStream {
        self.stream.into_inner()
    }

    /// Writes bytes as they are, before the first message.
    pub async fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }

    /// Writes one message.
    pub async fn send(&mut self, frames: &[Bytes]) -> io::Result<()> {
        let mut joined = Vec::with_capacity(4 + 8 * frames.len() + 1024);
        joined.extend_from_slice(
            &u32::try_from(frames.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        for frame in frames {
            joined.extend_from_slice(&(frame.len() as u64).to_le_bytes());
        }
        let stream = self.stream.get_mut();
        for frame in frames {
            if frame.len() < SMALL {
                joined.extend_from_slice(frame);
                continue;
            }
            stream.write_all(&joined).await?;
            joined.clear();
            stream.write_all(frame).await?;
        }
        stream.write_all(&joined).await
    }

    /// Reads one message. An error of kind `UnexpectedEof` says that the process has gone.
    pub async fn receive(&mut self) -> io::Result<Vec<Bytes>> {
        let n = self.stream.read_u32_le().await?;
        if n == 0 || n > MAX_FRAMES {
            return Err(invalid(format!("{n} frames")));
        }
        let mut lengths = Vec::with_capacity((n as usize).min(1 << 16));
        for _ in 0..n {
            lengths.push(self.stream.read_u64_le().await?);
        }
        let mut frames = Vec::with_capacity(lengths.len());
        for length in lengths {
            if length > MAX_FRAME {
                return Err(invalid(format!("a frame of {length} bytes")));
            }
            frames.push(self.frame(length).await?);
        }
        Ok(frames)
    }

    async fn frame(&mut self, length: u64) -> io::Result<Bytes> {
        // Memory is taken as bytes arrive: a length alone reserves 1 MiB at most.
        let mut frame = Vec::with_capacity(usize::try_from(length.min(1 << 20)).unwrap_or(0));
        let got = (&mut self.stream)
            .take(length)
            .read_to_end(&mut frame)
            .await?;
        if (got as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(frame.into())
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the process announced {what}"),
    )
}
