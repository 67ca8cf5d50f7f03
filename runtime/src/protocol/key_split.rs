//! The prefix and the group of a task, from its key.

use super::msgpack::{Kind, Reader};
use super::{Key, Value, repr};

/// `dask.utils.key_split`: the name of the task's prefix, shared by all tasks of the same operation.
pub fn key_split(key: &Key) -> String {
    let mut reader = Reader::new(key.as_bytes());
    loop {
        match reader.peek() {
            Ok(Kind::Array) => match reader.array_len() {
                Ok(1..) => {}
                _ => return other(),
            },
            Ok(Kind::Str) => return reader.str().map_or_else(|_| other(), split),
            _ => return other(),
        }
    }
}

/// `distributed.utils.key_split_group`: the name of the task's group, shared by the tasks of one collection.
///
/// Stock Dask takes the first item of a tuple as it is; here it is always text, of other items their `str`.
pub fn key_split_group(key: &Key) -> String {
    let mut reader = Reader::new(key.as_bytes());
    match reader.peek() {
        Ok(Kind::Array) => match reader.array_len() {
            Ok(1..) => match reader.value() {
                Ok(Value::Str(text)) => text.into(),
                Ok(value) => repr::repr(&value),
                Err(_) => other(),
            },
            _ => other(),
        },
        Ok(Kind::Str) => reader.str().map_or_else(|_| other(), group),
        _ => other(),
    }
}

fn other() -> String {
    "Other".to_owned()
}

fn group(text: &str) -> String {
    if text.starts_with('(') {
        let head = text.split(',').next().unwrap_or_default();
        head.trim_matches(['(', ')', '"', '\'']).to_owned()
    } else if is_hash(text) {
        "data".to_owned()
    } else if text.starts_with('<') {
        class_name(text).map_or_else(other, str::to_owned)
    } else {
        split(text)
    }
}

fn split(text: &str) -> String {
    let mut words = text.split('-');
    let first = words.next().unwrap_or_default();
    let Some(initial) = first.chars().next() else {
        return other();
    };
    let mut result = first;
    let mut stripped = false;
    if !is_alpha(initial) {
        result = first
            .split(',')
            .next()
            .unwrap_or_default()
            .trim_matches(['_', '\'', '(', ')', '"']);
        stripped = true;
    }
    let mut joined = result.to_owned();
    let mut end = first.len();
    for word in words {
        let hex = word.chars().count() == 8 && word.starts_with(|c| matches!(c, 'a'..='f'));
        if word.is_empty() || !word.chars().all(is_alpha) || hex {
            break;
        }
        end += 1 + word.len();
        if stripped {
            joined.push('-');
            joined.push_str(word);
        }
    }
    if !stripped {
        joined = text[..end].to_owned();
    }
    if is_hash(&joined) {
        return "data".to_owned();
    }
    match joined.chars().next() {
        None => other(),
        Some('<') => class_name(&joined).map_or_else(other, str::to_owned),
        Some(_) => joined,
    }
}

/// `str.isalpha` of one character: its general category is a letter.
fn is_alpha(c: char) -> bool {
    c.is_ascii_alphabetic() || (!c.is_ascii() && c.is_alphabetic())
}

/// 32 characters that are all lower-case hexadecimal digits.
fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `Cls` of `<module.Cls object at ...>`.
fn class_name(text: &str) -> Option<&str> {
    let path = text.trim_matches(['<', '>']).split_whitespace().next()?;
    path.rsplit('.').next()
}
