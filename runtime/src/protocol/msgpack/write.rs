//! Msgpack writers that append to a buffer, always in the shortest form.
//!
//! A text or an array longer than `u32::MAX` has no msgpack form. Such a value cannot come from a peer (a message
//! head is bounded far below), so the writers cut the length field there rather than return an error on every call.

/// Appends nil.
pub fn nil(buf: &mut Vec<u8>) {
    buf.push(0xc0);
}

/// Appends a boolean.
pub fn bool(buf: &mut Vec<u8>, value: bool) {
    buf.push(if value { 0xc3 } else { 0xc2 });
}

/// Appends a non-negative integer.
pub fn uint(buf: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        buf.push(value as u8);
    } else if let Ok(v) = u8::try_from(value) {
        buf.extend_from_slice(&[0xcc, v]);
    } else if let Ok(v) = u16::try_from(value) {
        marked(buf, 0xcd, &v.to_be_bytes());
    } else if let Ok(v) = u32::try_from(value) {
        marked(buf, 0xce, &v.to_be_bytes());
    } else {
        marked(buf, 0xcf, &value.to_be_bytes());
    }
}

/// Appends an integer.
pub fn int(buf: &mut Vec<u8>, value: i64) {
    if let Ok(v) = u64::try_from(value) {
        uint(buf, v);
    } else if value >= -32 {
        buf.push(value as u8);
    } else if let Ok(v) = i8::try_from(value) {
        marked(buf, 0xd0, &v.to_be_bytes());
    } else if let Ok(v) = i16::try_from(value) {
        marked(buf, 0xd1, &v.to_be_bytes());
    } else if let Ok(v) = i32::try_from(value) {
        marked(buf, 0xd2, &v.to_be_bytes());
    } else {
        marked(buf, 0xd3, &value.to_be_bytes());
    }
}

/// Appends a float, with 64 bits as Python does.
pub fn f64(buf: &mut Vec<u8>, value: f64) {
    marked(buf, 0xcb, &value.to_be_bytes());
}

/// Appends a text.
pub fn str(buf: &mut Vec<u8>, value: &str) {
    str_len(buf, value.len());
    buf.extend_from_slice(value.as_bytes());
}

/// Appends the header of a text of `len` bytes, for a caller that appends the bytes in pieces.
pub fn str_len(buf: &mut Vec<u8>, len: usize) {
    if len < 32 {
        buf.push(0xa0 | len as u8);
    } else if let Ok(v) = u8::try_from(len) {
        buf.extend_from_slice(&[0xd9, v]);
    } else if let Ok(v) = u16::try_from(len) {
        marked(buf, 0xda, &v.to_be_bytes());
    } else {
        marked(buf, 0xdb, &(len as u32).to_be_bytes());
    }
}

/// Appends a byte string.
pub fn bin(buf: &mut Vec<u8>, value: &[u8]) {
    bin_len(buf, value.len());
    buf.extend_from_slice(value);
}

/// Appends the header of a byte string of `len` bytes, for a caller that appends the bytes in pieces.
pub fn bin_len(buf: &mut Vec<u8>, len: usize) {
    if let Ok(v) = u8::try_from(len) {
        buf.extend_from_slice(&[0xc4, v]);
    } else if let Ok(v) = u16::try_from(len) {
        marked(buf, 0xc5, &v.to_be_bytes());
    } else {
        marked(buf, 0xc6, &(len as u32).to_be_bytes());
    }
}

/// Appends the header of an array of `len` items.
pub fn array_len(buf: &mut Vec<u8>, len: usize) {
    if len < 16 {
        buf.push(0x90 | len as u8);
    } else if let Ok(v) = u16::try_from(len) {
        marked(buf, 0xdc, &v.to_be_bytes());
    } else {
        marked(buf, 0xdd, &(len as u32).to_be_bytes());
    }
}

/// Appends the header of a map of `len` entries.
pub fn map_len(buf: &mut Vec<u8>, len: usize) {
    if len < 16 {
        buf.push(0x80 | len as u8);
    } else if let Ok(v) = u16::try_from(len) {
        marked(buf, 0xde, &v.to_be_bytes());
    } else {
        marked(buf, 0xdf, &(len as u32).to_be_bytes());
    }
}

fn marked(buf: &mut Vec<u8>, marker: u8, bytes: &[u8]) {
    buf.push(marker);
    buf.extend_from_slice(bytes);
}
