//! Just enough msgpack, and the framing of `tcp://`.

use anyhow::{Result, bail, ensure};

/// Writes values in their shortest form.
pub trait Write {
    /// A map of `n` entries, which follow.
    fn map(&mut self, n: usize);
    /// An array of `n` items, which follow.
    fn array(&mut self, n: usize);
    /// Text.
    fn text(&mut self, s: &str);
    /// Bytes.
    fn bin(&mut self, b: &[u8]);
    /// An unsigned integer.
    fn uint(&mut self, v: u64);
    /// A float.
    fn float(&mut self, v: f64);
    /// nil.
    fn nil(&mut self);
    /// A map entry whose value is text.
    fn entry(&mut self, key: &str, value: &str);
}

impl Write for Vec<u8> {
    fn map(&mut self, n: usize) {
        if n < 16 {
            self.push(0x80 | n as u8);
        } else {
            self.push(0xde);
            self.extend((n as u16).to_be_bytes());
        }
    }

    fn array(&mut self, n: usize) {
        if n < 16 {
            self.push(0x90 | n as u8);
        } else {
            self.push(0xdd);
            self.extend((n as u32).to_be_bytes());
        }
    }

    fn text(&mut self, s: &str) {
        if s.len() < 32 {
            self.push(0xa0 | s.len() as u8);
        } else {
            self.push(0xda);
            self.extend((s.len() as u16).to_be_bytes());
        }
        self.extend(s.as_bytes());
    }

    fn bin(&mut self, b: &[u8]) {
        self.push(0xc5);
        self.extend((b.len() as u16).to_be_bytes());
        self.extend(b);
    }

    fn uint(&mut self, v: u64) {
        if v < 128 {
            self.push(v as u8);
        } else {
            self.push(0xcf);
            self.extend(v.to_be_bytes());
        }
    }

    fn float(&mut self, v: f64) {
        self.push(0xcb);
        self.extend(v.to_be_bytes());
    }

    fn nil(&mut self) {
        self.push(0xc0);
    }

    fn entry(&mut self, key: &str, value: &str) {
        self.text(key);
        self.text(value);
    }
}

/// One message of one frame, as it stands on the wire.
pub fn frame(out: &mut Vec<u8>, body: &[u8]) {
    for n in [16 + body.len() as u64, 1, body.len() as u64] {
        out.extend(n.to_le_bytes());
    }
    out.extend(body);
}

/// Where frame 0 lies and how long the whole message is, if it has arrived.
pub fn whole_message(b: &[u8]) -> Option<(std::ops::Range<usize>, usize)> {
    let word = |i: usize| -> Option<usize> {
        Some(u64::from_le_bytes(b.get(i..i + 8)?.try_into().ok()?) as usize)
    };
    let frames = word(8)?;
    let start = 16 + 8 * frames;
    let mut end = start;
    for i in 0..frames {
        end += word(16 + 8 * i)?;
    }
    let first = if frames == 0 { 0 } else { word(16)? };
    (b.len() >= end).then_some((start..start + first, end))
}

/// A cursor over encoded values.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte, not taken.
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0xc1)
    }

    fn tag(&mut self) -> Result<u8> {
        let tag = self.peek();
        ensure!(self.at < self.bytes.len(), "the message ends early");
        self.at += 1;
        Ok(tag)
    }

    fn number(&mut self, width: usize) -> Result<usize> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        ensure!(self.bytes.len() - self.at >= n, "the message ends early");
        self.at += n;
        Ok(&self.bytes[self.at - n..self.at])
    }

    /// The number of entries of a map.
    pub fn map(&mut self) -> Result<usize> {
        match self.tag()? {
            t @ 0x80..=0x8f => Ok(usize::from(t & 15)),
            0xde => self.number(2),
            0xdf => self.number(4),
            t => bail!("a map was expected, not {t:#x}"),
        }
    }

    /// The number of items of an array.
    pub fn array(&mut self) -> Result<usize> {
        match self.tag()? {
            t @ 0x90..=0x9f => Ok(usize::from(t & 15)),
            0xdc => self.number(2),
            0xdd => self.number(4),
            t => bail!("an array was expected, not {t:#x}"),
        }
    }

    /// Text.
    pub fn text(&mut self) -> Result<&'a [u8]> {
        let n = match self.tag()? {
            t @ 0xa0..=0xbf => usize::from(t & 31),
            0xd9 => self.number(1)?,
            0xda => self.number(2)?,
            0xdb => self.number(4)?,
            t => bail!("text was expected, not {t:#x}"),
        };
        self.take(n)
    }

    /// An unsigned integer.
    pub fn uint(&mut self) -> Result<u64> {
        Ok(match self.tag()? {
            t @ 0..=0x7f => u64::from(t),
            0xcc => self.number(1)? as u64,
            0xcd => self.number(2)? as u64,
            0xce => self.number(4)? as u64,
            0xcf | 0xd3 => self.number(8)? as u64,
            t => bail!("an integer was expected, not {t:#x}"),
        })
    }

    /// The next value as it is encoded.
    pub fn raw(&mut self) -> Result<&'a [u8]> {
        let start = self.at;
        self.skip()?;
        Ok(&self.bytes[start..self.at])
    }

    /// Passes over the next value.
    pub fn skip(&mut self) -> Result<()> {
        let mut open = 1usize;
        while open > 0 {
            open -= 1;
            let bytes = match self.tag()? {
                0x00..=0x7f | 0xe0..=0xff | 0xc0..=0xc3 => 0,
                t @ 0x80..=0x8f => {
                    open += 2 * usize::from(t & 15);
                    0
                }
                t @ 0x90..=0x9f => {
                    open += usize::from(t & 15);
                    0
                }
                t @ 0xa0..=0xbf => usize::from(t & 31),
                0xc4 | 0xd9 => self.number(1)?,
                0xc5 | 0xda => self.number(2)?,
                0xc6 | 0xdb => self.number(4)?,
                0xcc | 0xd0 => 1,
                0xcd | 0xd1 => 2,
                0xca | 0xce | 0xd2 => 4,
                0xcb | 0xcf | 0xd3 => 8,
                0xdc => {
                    open += self.number(2)?;
                    0
                }
                0xdd => {
                    open += self.number(4)?;
                    0
                }
                0xde => {
                    open += 2 * self.number(2)?;
                    0
                }
                0xdf => {
                    open += 2 * self.number(4)?;
                    0
                }
                t => bail!("no such type: {t:#x}"),
            };
            self.take(bytes)?;
        }
        Ok(())
    }
}
