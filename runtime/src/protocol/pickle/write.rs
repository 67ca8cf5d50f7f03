//! Writes pickles (protocol 4, readable by every supported Python).

use crate::protocol::reply::clip;
use crate::protocol::{Key, Value};

const PROTO: &[u8] = b"\x80\x04";
const STOP: u8 = b'.';
const MARK: u8 = b'(';
const REDUCE: u8 = b'R';
const STACK_GLOBAL: u8 = 0x93;
const EMPTY_TUPLE: u8 = b')';
const EMPTY_DICT: u8 = b'}';
const SETITEM: u8 = b's';
const SETITEMS: u8 = b'u';
const BUILD: u8 = b'b';

/// `KeyError(arg)`.
pub fn key_error(arg: impl Into<Value>) -> Vec<u8> {
    generic("builtins", "KeyError", &[arg.into()])
}

/// `ValueError(text)`.
pub fn value_error(text: &str) -> Vec<u8> {
    with_text("builtins", "ValueError", text)
}

/// `asyncio.TimeoutError(text)`, which is the built-in one since Python 3.11; without argument for an empty text.
pub fn timeout_error(text: &str) -> Vec<u8> {
    with_text("asyncio", "TimeoutError", text)
}

/// `RuntimeError(text)`.
pub fn runtime_error(text: &str) -> Vec<u8> {
    with_text("builtins", "RuntimeError", text)
}

/// `TypeError(text)`.
pub fn type_error(text: &str) -> Vec<u8> {
    with_text("builtins", "TypeError", text)
}

/// `MemoryError(text)`.
pub fn memory_error(text: &str) -> Vec<u8> {
    with_text("builtins", "MemoryError", text)
}

/// `NotImplementedError(text)`.
pub fn not_implemented_error(text: &str) -> Vec<u8> {
    with_text("builtins", "NotImplementedError", text)
}

/// `distributed.shuffle._exceptions.P2PConsistencyError(text)`.
pub fn p2p_consistency_error(text: &str) -> Vec<u8> {
    with_text(
        "distributed.shuffle._exceptions",
        "P2PConsistencyError",
        text,
    )
}

/// `distributed.scheduler.KilledWorker(key, last_worker, allowed_failures)`.
///
/// The last worker is an object with an `address`, which is all that the exception's text uses.
pub fn killed_worker(key: &Key, address: &str, allowed_failures: u64) -> Vec<u8> {
    let mut out = begin("distributed.scheduler", "KilledWorker");
    out.push(MARK);
    value(&mut out, &key.to_value());
    global(&mut out, "types", "SimpleNamespace");
    out.extend_from_slice(&[EMPTY_TUPLE, REDUCE, EMPTY_DICT]);
    text(&mut out, "address");
    text(&mut out, address);
    out.extend_from_slice(&[SETITEM, BUILD]);
    value(&mut out, &allowed_failures.into());
    end(out, b't')
}

/// `distributed.scheduler.NoWorkerError(key, timeout)`; the timeout in seconds.
pub fn no_worker_error(key: &Key, timeout: f64) -> Vec<u8> {
    generic(
        "distributed.scheduler",
        "NoWorkerError",
        &[key.to_value(), timeout.into()],
    )
}

/// `distributed.scheduler.NoValidWorkerError(key, hosts, workers, resources, timeout)`; the timeout in seconds.
pub fn no_valid_worker_error<V: Into<Value>>(
    key: &Key,
    hosts: impl IntoIterator<Item = V>,
    workers: impl IntoIterator<Item = V>,
    resources: impl IntoIterator<Item = (V, f64)>,
    timeout: f64,
) -> Vec<u8> {
    let set = |items: Vec<Value>| Value::Set(items);
    let args = [
        key.to_value(),
        set(hosts.into_iter().map(Into::into).collect()),
        set(workers.into_iter().map(Into::into).collect()),
        Value::map(
            resources
                .into_iter()
                .map(|(name, amount)| (name, amount.into())),
        ),
        timeout.into(),
    ];
    generic("distributed.scheduler", "NoValidWorkerError", &args)
}

/// `module.name(*args)`: an exception, or any other call of something importable.
pub fn generic(module: &str, name: &str, args: &[Value]) -> Vec<u8> {
    let mut out = begin(module, name);
    out.push(MARK);
    args.iter().for_each(|arg| value(&mut out, arg));
    end(out, b't')
}

/// A plain object. Arrays become tuples; a payload, which has no pickled form, becomes `None`.
pub fn object(object: &Value) -> Vec<u8> {
    let mut out = PROTO.to_vec();
    value(&mut out, object);
    out.push(STOP);
    out
}

fn with_text(module: &str, name: &str, message: &str) -> Vec<u8> {
    if message.is_empty() {
        return generic(module, name, &[]);
    }
    generic(module, name, &[clip(message).into()])
}

fn begin(module: &str, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(PROTO);
    global(&mut out, module, name);
    out
}

/// Closes the argument tuple with `tuple`, calls and stops.
fn end(mut out: Vec<u8>, tuple: u8) -> Vec<u8> {
    out.extend_from_slice(&[tuple, REDUCE, STOP]);
    out
}

fn global(out: &mut Vec<u8>, module: &str, name: &str) {
    text(out, module);
    text(out, name);
    out.push(STACK_GLOBAL);
}

fn value(out: &mut Vec<u8>, object: &Value) {
    match object {
        Value::Nil | Value::Payload(_) => out.push(b'N'),
        Value::Bool(true) => out.push(0x88),
        Value::Bool(false) => out.push(0x89),
        Value::Int(v) => int(out, *v),
        Value::UInt(v) => long(out, &v.to_le_bytes(), true),
        Value::F64(v) => marked(out, b'G', &v.to_be_bytes()),
        Value::Str(v) => text(out, v),
        Value::Bin(v) => bytes(out, v),
        Value::Array(items) => tuple(out, items),
        Value::Set(items) => {
            out.extend_from_slice(&[0x8f, MARK]);
            items.iter().for_each(|item| value(out, item));
            out.push(0x90);
        }
        Value::Map(entries) => {
            out.extend_from_slice(&[EMPTY_DICT, MARK]);
            for (key, item) in entries {
                value(out, key);
                value(out, item);
            }
            out.push(SETITEMS);
        }
    }
}

fn tuple(out: &mut Vec<u8>, items: &[Value]) {
    if items.is_empty() {
        out.push(EMPTY_TUPLE);
        return;
    }
    if items.len() > 3 {
        out.push(MARK);
    }
    items.iter().for_each(|item| value(out, item));
    out.push(match items.len() {
        1 => 0x85,
        2 => 0x86,
        3 => 0x87,
        _ => b't',
    });
}

fn int(out: &mut Vec<u8>, v: i64) {
    if let Ok(v) = u8::try_from(v) {
        out.extend_from_slice(&[b'K', v]);
    } else if let Ok(v) = u16::try_from(v) {
        marked(out, b'M', &v.to_le_bytes());
    } else if let Ok(v) = i32::try_from(v) {
        marked(out, b'J', &v.to_le_bytes());
    } else {
        long(out, &v.to_le_bytes(), false);
    }
}

/// LONG1: two's complement, little-endian; an unsigned number gets a zero byte for its sign.
fn long(out: &mut Vec<u8>, le: &[u8; 8], unsigned: bool) {
    out.extend_from_slice(&[0x8a, 8 + u8::from(unsigned)]);
    out.extend_from_slice(le);
    if unsigned {
        out.push(0);
    }
}

fn text(out: &mut Vec<u8>, v: &str) {
    match (u8::try_from(v.len()), u32::try_from(v.len())) {
        (Ok(len), _) => out.extend_from_slice(&[0x8c, len]),
        (_, Ok(len)) => marked(out, b'X', &len.to_le_bytes()),
        _ => marked(out, 0x8d, &(v.len() as u64).to_le_bytes()),
    }
    out.extend_from_slice(v.as_bytes());
}

fn bytes(out: &mut Vec<u8>, v: &[u8]) {
    match (u8::try_from(v.len()), u32::try_from(v.len())) {
        (Ok(len), _) => out.extend_from_slice(&[b'C', len]),
        (_, Ok(len)) => marked(out, b'B', &len.to_le_bytes()),
        _ => marked(out, 0x8e, &(v.len() as u64).to_le_bytes()),
    }
    out.extend_from_slice(v);
}

fn marked(out: &mut Vec<u8>, opcode: u8, argument: &[u8]) {
    out.push(opcode);
    out.extend_from_slice(argument);
}
