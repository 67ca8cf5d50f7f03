//! A cursor over msgpack bytes, for the paths where building a [`Value`] would cost too much.

use super::{MAX_DEPTH, ValueReader};
use crate::protocol::{DecodeError, Value, key};

/// The type of the next value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nil.
    Nil,
    /// A boolean.
    Bool,
    /// An integer of any width.
    Int,
    /// A float of any width.
    Float,
    /// A text.
    Str,
    /// A byte string.
    Bin,
    /// An array.
    Array,
    /// A map.
    Map,
    /// An extension type or an unused marker: Dask sends none.
    Other,
}

impl Kind {
    /// The kind's name in error texts.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Nil => "nil",
            Kind::Bool => "a bool",
            Kind::Int => "an int",
            Kind::Float => "a float",
            Kind::Str => "a str",
            Kind::Bin => "bytes",
            Kind::Array => "an array",
            Kind::Map => "a map",
            Kind::Other => "an extension type",
        }
    }
}

/// Cursor over one msgpack document. Every read checks the remaining length; nothing panics on any input.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the beginning of `buf`.
    pub fn new(buf: &'a [u8]) -> Self {
        Reader { buf, pos: 0 }
    }

    /// Offset of the next value.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.pos >= self.buf.len()
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// Fails if bytes are left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }

    /// The type of the next value, without reading it.
    #[inline]
    pub fn peek(&self) -> Result<Kind, DecodeError> {
        let marker = *self.buf.get(self.pos).ok_or(self.end())?;
        Ok(match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xcc..=0xcf | 0xd0..=0xd3 => Kind::Int,
            0x80..=0x8f | 0xde | 0xdf => Kind::Map,
            0x90..=0x9f | 0xdc | 0xdd => Kind::Array,
            0xa0..=0xbf | 0xd9..=0xdb => Kind::Str,
            0xc0 => Kind::Nil,
            0xc2 | 0xc3 => Kind::Bool,
            0xc4..=0xc6 => Kind::Bin,
            0xca | 0xcb => Kind::Float,
            _ => Kind::Other,
        })
    }

    /// Reads nil if it is next; tells whether it was.
    #[inline]
    pub fn take_nil(&mut self) -> bool {
        let nil = self.buf.get(self.pos) == Some(&0xc0);
        self.pos += usize::from(nil);
        nil
    }

    /// Reads a boolean.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            _ => Err(self.back_type("a bool")),
        }
    }

    /// Reads an integer that fits `i64`.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        let start = self.pos;
        match self.integer("an int")? {
            Integer::Signed(v) => Ok(v),
            Integer::Unsigned(v) => {
                i64::try_from(v).map_err(|_| self.mismatch(start, "an int of 64 bits with sign"))
            }
        }
    }

    /// Reads a non-negative integer.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let start = self.pos;
        match self.integer("a non-negative int")? {
            Integer::Unsigned(v) => Ok(v),
            Integer::Signed(v) => {
                u64::try_from(v).map_err(|_| self.mismatch(start, "a non-negative int"))
            }
        }
    }

    /// Reads a float; an integer is converted.
    #[inline]
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        match self.buf.get(self.pos) {
            Some(0xcb) => {
                self.pos += 1;
                self.array().map(f64::from_be_bytes)
            }
            Some(0xca) => {
                self.pos += 1;
                self.array().map(|b| f64::from(f32::from_be_bytes(b)))
            }
            _ => Ok(match self.integer("a float")? {
                Integer::Signed(v) => v as f64,
                Integer::Unsigned(v) => v as f64,
            }),
        }
    }

    /// Reads a text.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let start = self.pos;
        let len = match self.byte()? {
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9 => self.len8()?,
            0xda => self.len16()?,
            0xdb => self.len32()?,
            _ => return Err(self.back_type("a str")),
        };
        std::str::from_utf8(self.bytes(len)?).map_err(|_| DecodeError::Utf8 { at: start })
    }

    /// Reads a byte string.
    #[inline]
    pub fn bin(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = match self.byte()? {
            0xc4 => self.len8()?,
            0xc5 => self.len16()?,
            0xc6 => self.len32()?,
            _ => return Err(self.back_type("bytes")),
        };
        self.bytes(len)
    }

    /// Reads the header of an array: how many values follow. Never more than there are bytes left.
    #[inline]
    pub fn array_len(&mut self) -> Result<usize, DecodeError> {
        let len = match self.byte()? {
            marker @ 0x90..=0x9f => usize::from(marker & 0x0f),
            0xdc => self.len16()?,
            0xdd => self.len32()?,
            _ => return Err(self.back_type("an array")),
        };
        self.fits(len)
    }

    /// Reads the header of a map: how many key-value pairs follow. Never more than half the bytes left.
    #[inline]
    pub fn map_len(&mut self) -> Result<usize, DecodeError> {
        let len = match self.byte()? {
            marker @ 0x80..=0x8f => usize::from(marker & 0x0f),
            0xde => self.len16()?,
            0xdf => self.len32()?,
            _ => return Err(self.back_type("a map")),
        };
        self.fits(len.saturating_mul(2))?;
        Ok(len)
    }

    /// Passes over the next value, whatever it is and however deep.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        // A counter instead of recursion: each container adds its items, each value takes one away.
        let mut pending: u64 = 1;
        while pending > 0 {
            pending -= 1;
            let at = self.pos;
            let marker = self.byte()?;
            let (bytes, items) = match marker {
                0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
                0x80..=0x8f => (0, u64::from(marker & 0x0f) * 2),
                0x90..=0x9f => (0, u64::from(marker & 0x0f)),
                0xa0..=0xbf => (usize::from(marker & 0x1f), 0),
                0xc4 | 0xd9 => (self.len8()?, 0),
                0xc5 | 0xda => (self.len16()?, 0),
                0xc6 | 0xdb => (self.len32()?, 0),
                0xcc | 0xd0 => (1, 0),
                0xcd | 0xd1 => (2, 0),
                0xca | 0xce | 0xd2 => (4, 0),
                0xcb | 0xcf | 0xd3 => (8, 0),
                0xdc => (0, self.len16()? as u64),
                0xdd => (0, self.len32()? as u64),
                0xde => (0, self.len16()? as u64 * 2),
                0xdf => (0, self.len32()? as u64 * 2),
                _ => return Err(DecodeError::Marker { marker, at }),
            };
            self.bytes(bytes)?;
            pending += items;
            if pending > self.remaining() as u64 {
                return Err(self.end());
            }
        }
        Ok(())
    }

    /// The bytes of the next value, as they are in the input.
    pub fn raw_value(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.pos;
        self.skip()?;
        Ok(&self.buf[start..self.pos])
    }

    /// Decodes the next value. Placeholders of payloads stay maps: only a whole
    /// [`Message`](crate::protocol::Message) knows the frames they stand for.
    pub fn value(&mut self) -> Result<Value, DecodeError> {
        ValueReader::new(None).read(self, MAX_DEPTH)
    }

    /// Reads a Dask key as canonical bytes (see [`Key`](crate::protocol::Key)): borrowed from the input when it is
    /// canonical there, which is the rule, otherwise built in `scratch`.
    #[inline]
    pub fn key<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], DecodeError>
    where
        'a: 's,
    {
        let start = self.pos;
        let canonical = key::scan(self, key::MAX_KEY_DEPTH)?;
        let raw = &self.buf[start..self.pos];
        if raw.len() > key::MAX_KEY_BYTES {
            return Err(DecodeError::KeyTooLong { bytes: raw.len() });
        }
        if canonical {
            return Ok(raw);
        }
        scratch.clear();
        key::write_canonical(&mut Reader::new(raw), scratch, key::MAX_KEY_DEPTH)?;
        Ok(scratch)
    }

    /// Reads any integer.
    pub(crate) fn integer(&mut self, expected: &'static str) -> Result<Integer, DecodeError> {
        Ok(match self.byte()? {
            v @ 0x00..=0x7f => Integer::Unsigned(u64::from(v)),
            v @ 0xe0..=0xff => Integer::Signed(i64::from(v as i8)),
            0xcc => Integer::Unsigned(self.array().map(u8::from_be_bytes)?.into()),
            0xcd => Integer::Unsigned(self.array().map(u16::from_be_bytes)?.into()),
            0xce => Integer::Unsigned(self.array().map(u32::from_be_bytes)?.into()),
            0xcf => Integer::Unsigned(self.array().map(u64::from_be_bytes)?),
            0xd0 => Integer::Signed(self.array().map(i8::from_be_bytes)?.into()),
            0xd1 => Integer::Signed(self.array().map(i16::from_be_bytes)?.into()),
            0xd2 => Integer::Signed(self.array().map(i32::from_be_bytes)?.into()),
            0xd3 => Integer::Signed(self.array().map(i64::from_be_bytes)?),
            _ => return Err(self.back_type(expected)),
        })
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.buf.get(self.pos).ok_or(self.end())?;
        self.pos += 1;
        Ok(byte)
    }

    #[inline]
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.buf[self.pos..];
        let bytes = rest.get(..len).ok_or(self.end())?;
        self.pos += len;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.buf[self.pos..].first_chunk().ok_or(self.end())?;
        self.pos += N;
        Ok(*bytes)
    }

    fn len8(&mut self) -> Result<usize, DecodeError> {
        self.byte().map(usize::from)
    }

    fn len16(&mut self) -> Result<usize, DecodeError> {
        self.array().map(u16::from_be_bytes).map(usize::from)
    }

    fn len32(&mut self) -> Result<usize, DecodeError> {
        self.array().map(|b| u32::from_be_bytes(b) as usize)
    }

    fn fits(&self, items: usize) -> Result<usize, DecodeError> {
        if items > self.remaining() {
            Err(self.end())
        } else {
            Ok(items)
        }
    }

    fn end(&self) -> DecodeError {
        DecodeError::UnexpectedEnd { at: self.buf.len() }
    }

    /// The error for the marker that was just read; the cursor goes back to it.
    #[cold]
    fn back_type(&mut self, expected: &'static str) -> DecodeError {
        self.pos -= 1;
        self.mismatch(self.pos, expected)
    }

    #[cold]
    fn mismatch(&self, at: usize, expected: &'static str) -> DecodeError {
        let found = Reader {
            buf: self.buf,
            pos: at,
        }
        .peek()
        .map_or("the end", Kind::name);
        DecodeError::Type {
            expected,
            found,
            at,
        }
    }
}

/// An integer of either signedness.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Integer {
    Signed(i64),
    Unsigned(u64),
}
