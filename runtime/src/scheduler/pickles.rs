//! Pickles of the exceptions that the core itself makes (protocol 2, read by every Python 3).

use crate::protocol::Key;

fn text(out: &mut Vec<u8>, s: &str) {
    out.push(b'X');
    out.extend_from_slice(&(s.len() as u32).to_le_bytes());
    out.extend_from_slice(s.as_bytes());
}

pub(crate) fn builtin(name: &str, message: &str) -> Vec<u8> {
    let mut out = b"\x80\x02cbuiltins\n".to_vec();
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    text(&mut out, message);
    out.extend_from_slice(b"\x85R.");
    out
}

pub(super) fn memory_error(message: &str) -> Vec<u8> {
    builtin("MemoryError", message)
}

pub(super) fn runtime_error(message: &str) -> Vec<u8> {
    builtin("RuntimeError", message)
}

pub(super) fn killed_worker(key: &Key, address: &str, allowed_failures: u32) -> Vec<u8> {
    let mut out = b"\x80\x02cdistributed.scheduler\nKilledWorker\n".to_vec();
    text(&mut out, &key.to_string());
    out.extend_from_slice(b"ctypes\nSimpleNamespace\n)\x81}");
    text(&mut out, "address");
    text(&mut out, address);
    out.extend_from_slice(b"sbK");
    out.push(allowed_failures.min(255) as u8);
    out.extend_from_slice(b"\x87R.");
    out
}
