//! Python's `repr` of plain values, for the texts of keys and messages.

use super::Value;
use std::fmt::Write;

/// `repr(value)` as Python writes it. Arrays are tuples.
pub fn repr(value: &Value) -> String {
    let mut out = String::new();
    put(value, &mut out);
    out
}

/// `repr(text)` as Python writes it.
pub fn repr_str(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    put_str(text, &mut out);
    out
}

fn put(value: &Value, out: &mut String) {
    match value {
        Value::Nil => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(v) => put_display(v, out),
        Value::UInt(v) => put_display(v, out),
        Value::F64(v) => out.push_str(&repr_float(*v)),
        Value::Str(text) => put_str(text, out),
        Value::Bin(bytes) => put_bytes(bytes, out),
        Value::Array(items) => {
            out.push('(');
            put_items(items, out);
            out.push_str(if items.len() == 1 { ",)" } else { ")" });
        }
        Value::Set(items) if items.is_empty() => out.push_str("set()"),
        Value::Set(items) => {
            out.push('{');
            put_items(items, out);
            out.push('}');
        }
        Value::Map(entries) => {
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                put(key, out);
                out.push_str(": ");
                put(value, out);
            }
            out.push('}');
        }
        Value::Payload(_) => out.push_str("<Serialized object>"),
    }
}

fn put_items(items: &[Value], out: &mut String) {
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        put(item, out);
    }
}

fn put_display(value: impl std::fmt::Display, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{value}");
}

fn quote(text: impl Iterator<Item = u8> + Clone) -> char {
    let has = |q: u8| text.clone().any(|b| b == q);
    if has(b'\'') && !has(b'"') { '"' } else { '\'' }
}

fn put_str(text: &str, out: &mut String) {
    let quote = quote(text.bytes());
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c if c > '\u{a0}' && printable(c) => out.push(c),
            c => put_escape(c as u32, out),
        }
    }
    out.push(quote);
}

/// Near enough to `str.isprintable`: Rust's own debug form escapes the same categories.
fn printable(c: char) -> bool {
    // After another character, so that combining marks are not escaped for standing alone.
    let text: String = ['a', c].iter().collect();
    !c.is_whitespace() && !text.escape_debug().any(|e| e == '\\')
}

fn put_escape(code: u32, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = match code {
        0..0x100 => write!(out, "\\x{code:02x}"),
        0x100..0x1_0000 => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

fn put_bytes(bytes: &[u8], out: &mut String) {
    let quote = quote(bytes.iter().copied());
    out.push('b');
    out.push(quote);
    for &b in bytes {
        match b {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'\\' => out.push_str("\\\\"),
            b if char::from(b) == quote => {
                out.push('\\');
                out.push(quote);
            }
            b' '..=b'~' => out.push(char::from(b)),
            b => put_escape(u32::from(b), out),
        }
    }
    out.push(quote);
}

/// `repr(value)` of a float: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
pub fn repr_float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}
