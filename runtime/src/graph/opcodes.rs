//! Pickle opcodes of plain values, written from msgpack.

use crate::protocol::{DecodeError, Kind, Reader};

/// Appends the opcodes that push the next value of `reader`: nil, bool, int, float, str or bytes.
///
/// Nothing is memoized, so the bytes may stand anywhere in a pickle.
pub fn push_plain(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match reader.peek()? {
        Kind::Nil => {
            reader.skip()?;
            out.push(b'N');
        }
        Kind::Bool => out.push(if reader.bool()? { 0x88 } else { 0x89 }),
        Kind::Int => push_int(reader, out)?,
        Kind::Float => {
            out.push(b'G');
            out.extend_from_slice(&reader.f64()?.to_be_bytes());
        }
        Kind::Str => push_str(reader.str()?, out),
        Kind::Bin => push_bytes(reader.bin()?, out),
        other => {
            return Err(DecodeError::Type {
                expected: "a plain value",
                found: other.name(),
                at: reader.position(),
            });
        }
    }
    Ok(())
}

fn push_int(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut ahead = reader.clone();
    let value = match ahead.i64() {
        Ok(value) => value,
        Err(_) => {
            let value = reader.u64()?;
            out.extend_from_slice(&[0x8a, 9]);
            out.extend_from_slice(&value.to_le_bytes());
            out.push(0);
            return Ok(());
        }
    };
    *reader = ahead;
    if let Ok(byte) = u8::try_from(value) {
        out.extend_from_slice(&[b'K', byte]);
    } else if let Ok(int) = i32::try_from(value) {
        out.push(b'J');
        out.extend_from_slice(&int.to_le_bytes());
    } else {
        out.extend_from_slice(&[0x8a, 8]);
        out.extend_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

/// Appends the opcodes that push a text.
pub fn push_str(text: &str, out: &mut Vec<u8>) {
    sized(text.as_bytes(), [0x8c, b'X', 0x8d], out);
}

fn push_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    sized(bytes, [b'C', b'B', 0x8e], out);
}

/// A value of 1, 4 or 8 bytes of length.
fn sized(bytes: &[u8], [short, long, huge]: [u8; 3], out: &mut Vec<u8>) {
    let len = bytes.len();
    if let Ok(len) = u8::try_from(len) {
        out.extend_from_slice(&[short, len]);
    } else if let Ok(len) = u32::try_from(len) {
        out.push(long);
        out.extend_from_slice(&len.to_le_bytes());
    } else {
        out.push(huge);
        out.extend_from_slice(&(len as u64).to_le_bytes());
    }
    out.extend_from_slice(bytes);
}

/// Appends the opcode that makes a tuple of the `n` values above a MARK.
pub const TUPLE: u8 = b't';
/// Marks where a tuple's values begin.
pub const MARK: u8 = b'(';

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::write;

    fn pushed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut input = Vec::new();
        write(&mut input);
        let mut out = Vec::new();
        let mut reader = Reader::new(&input);
        push_plain(&mut reader, &mut out).unwrap();
        assert!(reader.is_empty());
        out
    }

    #[test]
    fn integers_take_the_shortest_opcode() {
        assert_eq!(pushed(|b| write::int(b, 255)), [b'K', 255]);
        assert_eq!(pushed(|b| write::int(b, -1)), [b'J', 255, 255, 255, 255]);
        assert_eq!(pushed(|b| write::int(b, 256)), [b'J', 0, 1, 0, 0]);
        assert_eq!(
            pushed(|b| write::int(b, 1 << 40)),
            [0x8a, 8, 0, 0, 0, 0, 0, 1, 0, 0]
        );
        assert_eq!(
            pushed(|b| write::uint(b, u64::MAX)),
            [0x8a, 9, 255, 255, 255, 255, 255, 255, 255, 255, 0]
        );
    }

    #[test]
    fn others() {
        assert_eq!(pushed(write::nil), b"N");
        assert_eq!(pushed(|b| write::bool(b, true)), [0x88]);
        assert_eq!(pushed(|b| write::f64(b, 1.0)), b"G\x3f\xf0\0\0\0\0\0\0");
        assert_eq!(pushed(|b| write::str(b, "ä")), b"\x8c\x02\xc3\xa4");
        assert_eq!(pushed(|b| write::bin(b, b"z")), b"C\x01z");
        assert_eq!(
            pushed(|b| write::str(b, &"x".repeat(300)))[..5],
            *b"X\x2c\x01\0\0"
        );
    }
}
