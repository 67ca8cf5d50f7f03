//! Objects the scheduler carries without looking inside.

use super::msgpack::{Kind, Reader, write};
use super::{DecodeError, compression};
use bytes::Bytes;
use smallvec::SmallVec;

/// How the receiver treats a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadKind {
    /// `Serialize`: clients and workers decode it, a scheduler forwards it.
    Serialized,
    /// `ToPickle`: every receiver unpickles it, a scheduler too.
    Pickled,
}

impl PayloadKind {
    /// The key of the placeholder map.
    pub fn marker(self) -> &'static str {
        match self {
            PayloadKind::Serialized => "__Serialized__",
            PayloadKind::Pickled => "__Pickled__",
        }
    }
}

/// A value the scheduler never decodes: its sub-header frame and its data frames, byte-identical when sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// How the receiver treats it.
    pub kind: PayloadKind,
    /// The sub-header: a msgpack map that says how to decode the frames.
    pub header: Bytes,
    /// The data frames.
    pub frames: SmallVec<[Bytes; 1]>,
}

/// The pickle inside a [`PayloadKind::Pickled`] payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickledParts {
    /// The pickle itself.
    pub pickle: Bytes,
    /// Its out-of-band buffers (PEP 574), decompressed.
    pub buffers: Vec<Bytes>,
}

impl Payload {
    /// A pickle in the form of `ToPickle`: the receiver sees the unpickled object, whoever it is.
    pub fn pickled(pickle: &[u8]) -> Payload {
        let mut header = Vec::with_capacity(pickle.len() + 48);
        write::map_len(&mut header, 3);
        write::str(&mut header, "pickled-obj");
        write::bin(&mut header, pickle);
        write::str(&mut header, "compression");
        write::array_len(&mut header, 0);
        write::str(&mut header, "num-sub-frames");
        write::uint(&mut header, 0);
        Payload {
            kind: PayloadKind::Pickled,
            header: header.into(),
            frames: SmallVec::new(),
        }
    }

    /// A pickle in the form of `Serialize` with the serializer `pickle`: clients and workers see the object.
    pub fn serialized_pickle(pickle: &[u8]) -> Payload {
        let mut header = Vec::with_capacity(112);
        write::map_len(&mut header, 6);
        write::str(&mut header, "serializer");
        write::str(&mut header, "pickle");
        write::str(&mut header, "writeable");
        write::array_len(&mut header, 0);
        one_frame(&mut header);
        Payload::serialized(header, pickle)
    }

    /// A byte string in the form of `Serialize` with the serializer `dask`: clients and workers see `bytes`.
    pub fn serialized_bytes(bytes: &[u8]) -> Payload {
        let mut header = Vec::with_capacity(192);
        write::map_len(&mut header, 8);
        write::str(&mut header, "sub-header");
        write::map_len(&mut header, 0);
        write::str(&mut header, "type");
        write::str(&mut header, "bytes");
        write::str(&mut header, "type-serialized");
        write::bin(&mut header, b"\x80\x05\x95\x16\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x05bytes\x94\x93\x94.");
        write::str(&mut header, "serializer");
        write::str(&mut header, "dask");
        one_frame(&mut header);
        Payload::serialized(header, bytes)
    }

    fn serialized(header: Vec<u8>, frame: &[u8]) -> Payload {
        let frames = SmallVec::from_buf([Bytes::copy_from_slice(frame)]);
        Payload {
            kind: PayloadKind::Serialized,
            header: header.into(),
            frames,
        }
    }

    /// The size of header and frames.
    pub fn nbytes(&self) -> usize {
        self.header.len() + self.frames.iter().map(Bytes::len).sum::<usize>()
    }

    /// The same payload in memory of its own. What was received shares the connection's read buffers: a payload that
    /// is kept for long should let go of them.
    pub fn detach(&self) -> Payload {
        let copy = |b: &Bytes| Bytes::copy_from_slice(b);
        Payload {
            kind: self.kind,
            header: copy(&self.header),
            frames: self.frames.iter().map(copy).collect(),
        }
    }

    /// The pickle of a [`PayloadKind::Pickled`] payload; `None` for the other kind.
    pub fn pickled_bytes(&self) -> Result<Option<PickledParts>, DecodeError> {
        if self.kind != PayloadKind::Pickled {
            return Ok(None);
        }
        let header = Header::read(&self.header)?;
        let pickle = header
            .pickle
            .ok_or(DecodeError::PayloadHeader("pickled-obj is missing"))?;
        let mut buffers = Vec::with_capacity(self.frames.len());
        for (i, frame) in self.frames.iter().enumerate() {
            buffers.push(match header.compression.get(i).copied().flatten() {
                None => frame.clone(),
                Some(name) => compression::decompress(name, frame)?,
            });
        }
        Ok(Some(PickledParts {
            pickle: self.header.slice_ref(pickle),
            buffers,
        }))
    }
}

fn one_frame(header: &mut Vec<u8>) {
    write::str(header, "split-num-sub-frames");
    write::array_len(header, 1);
    write::uint(header, 1);
    write::str(header, "split-offsets");
    write::array_len(header, 1);
    write::uint(header, 0);
    write::str(header, "compression");
    write::array_len(header, 1);
    write::nil(header);
    write::str(header, "num-sub-frames");
    write::uint(header, 1);
}

/// The fields of a sub-header that carrying a payload needs.
#[derive(Default)]
struct Header<'a> {
    frames: Option<u64>,
    pickle: Option<&'a [u8]>,
    compression: Vec<Option<&'a str>>,
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut header = Header::default();
        for _ in 0..reader.map_len()? {
            if reader.peek()? != Kind::Str {
                reader.skip()?;
                reader.skip()?;
                continue;
            }
            match reader.str()? {
                "num-sub-frames" => header.frames = Some(reader.u64()?),
                "pickled-obj" => header.pickle = Some(reader.bin()?),
                "compression" if reader.peek()? == Kind::Array => {
                    let len = reader.array_len()?;
                    header.compression.clear();
                    for _ in 0..len {
                        header.compression.push(if reader.take_nil() {
                            None
                        } else {
                            Some(reader.str()?)
                        });
                    }
                }
                _ => reader.skip()?,
            }
        }
        reader.finish()?;
        Ok(header)
    }
}

/// How many data frames follow a sub-header.
pub(crate) fn sub_frames(header: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(header);
    let mut frames = None;
    for _ in 0..reader.map_len()? {
        let wanted = if reader.peek()? == Kind::Str {
            reader.str()? == "num-sub-frames"
        } else {
            reader.skip()?;
            false
        };
        if wanted {
            frames = Some(reader.u64()?);
        } else {
            reader.skip()?;
        }
    }
    frames.ok_or(DecodeError::PayloadHeader("num-sub-frames is missing"))
}
