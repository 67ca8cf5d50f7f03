//! The exceptions written here, loaded by the real `distributed`, if there is one: `OXIDASK_PYTHON` names the
//! interpreter (`python3` without it).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use oxidask_runtime::protocol::pickle::write;
use oxidask_runtime::protocol::*;
use std::io::Write;
use std::process::{Command, Stdio};

/// For every line `hex<TAB>expression`: loads the pickle as a client would and compares type, arguments and text with
/// those of the expression.
const CHECK: &str = r#"
import asyncio, sys, types
from distributed.core import clean_exception
from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError
from distributed.shuffle._exceptions import P2PConsistencyError
from distributed.protocol import pickle
bad = 0
for line in sys.stdin:
    data, text = line.rstrip("\n").split("\t")
    data = bytes.fromhex(data)
    want = eval(text)
    if isinstance(want, BaseException):
        _, got, _ = clean_exception(data)
        same = type(got) is type(want) and got.args == want.args and str(got) == str(want)
    else:
        got = pickle.loads(data)
        same = type(got) is type(want) and repr(got) == repr(want)
    if not same:
        bad += 1
        print("expected", repr(want), "got", repr(got))
print("checked")
sys.exit(bad)
"#;

fn cases() -> Vec<(Vec<u8>, &'static str)> {
    let key = Key::new_str("x-1");
    let tuple = Key::from_value(&Value::array([Value::from("x"), 3.into()])).unwrap();
    let none: [&str; 0] = [];
    vec![
        (write::key_error("x"), "KeyError('x')"),
        (write::key_error(&tuple), "KeyError(('x', 3))"),
        (write::value_error("é\n"), "ValueError('é\\n')"),
        (write::timeout_error(""), "asyncio.TimeoutError()"),
        (write::timeout_error("late"), "asyncio.TimeoutError('late')"),
        (
            write::runtime_error("Worker holding Actor was lost"),
            "RuntimeError('Worker holding Actor was lost')",
        ),
        (write::type_error("t"), "TypeError('t')"),
        (write::memory_error("m"), "MemoryError('m')"),
        (
            write::not_implemented_error("n"),
            "NotImplementedError('n')",
        ),
        (
            write::p2p_consistency_error("p"),
            "P2PConsistencyError('p')",
        ),
        (
            write::generic("builtins", "OSError", &[2.into(), "f".into()]),
            "OSError(2, 'f')",
        ),
        (
            write::killed_worker(&key, "tcp://127.0.0.1:1", 3),
            "KilledWorker('x-1', types.SimpleNamespace(address='tcp://127.0.0.1:1'), 3)",
        ),
        (
            write::killed_worker(&tuple, "tcp://127.0.0.1:1", 300),
            "KilledWorker(('x', 3), types.SimpleNamespace(address='tcp://127.0.0.1:1'), 300)",
        ),
        (
            write::no_worker_error(&key, 1.5),
            "NoWorkerError('x-1', 1.5)",
        ),
        (
            write::no_valid_worker_error(&key, ["h"], ["tcp://a:1"], [("GPU", 1.0)], 60.0),
            "NoValidWorkerError('x-1', {'h'}, {'tcp://a:1'}, {'GPU': 1.0}, 60.0)",
        ),
        (
            write::no_valid_worker_error(&key, none, none, [], 60.0),
            "NoValidWorkerError('x-1', set(), set(), {}, 60.0)",
        ),
        (
            write::value_error(&"é".repeat(20_000)),
            "ValueError('é' * 10000)",
        ),
        (write::object(&Value::Nil), "None"),
        (
            write::object(&Value::array([1, 255, 256, 65535, 65536, -1])),
            "(1, 255, 256, 65535, 65536, -1)",
        ),
        (
            write::object(&Value::array([
                i64::MAX.into(),
                i64::MIN.into(),
                u64::MAX.into(),
                Value::from(1u64 << 63),
            ])),
            "(2**63 - 1, -2**63, 2**64 - 1, 2**63)",
        ),
        (
            write::object(&Value::map([
                ("a", Value::array([1.5, -0.0])),
                ("b", true.into()),
                ("c", vec![0u8; 300].into()),
            ])),
            "{'a': (1.5, -0.0), 'b': True, 'c': b'\\0' * 300}",
        ),
        (write::object(&Value::Set(vec!["a".into()])), "{'a'}"),
        (write::object(&Value::Set(vec![])), "set()"),
        (write::object(&Value::Map(vec![])), "{}"),
        (write::object(&Value::array([0i64; 0])), "()"),
        (
            write::object(&Value::array(["x".repeat(300)])),
            "('x' * 300,)",
        ),
    ]
}

#[test]
fn a_client_loads_what_is_written_here() {
    let python = std::env::var("OXIDASK_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import distributed"])
        .stderr(Stdio::null())
        .status();
    if !has.is_ok_and(|status| status.success()) {
        eprintln!("skipped: {python} cannot import distributed; set OXIDASK_PYTHON");
        return;
    }
    let mut child = Command::new(&python)
        .args(["-c", CHECK])
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = String::new();
    for (pickle, expression) in cases() {
        let hex: String = pickle.iter().map(|b| format!("{b:02x}")).collect();
        input.push_str(&format!("{hex}\t{expression}\n"));
    }
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.ends_with("checked\n"),
        "{text}"
    );
}

#[test]
fn the_bytes_of_an_exception_are_plain_opcodes() {
    assert_eq!(
        write::key_error("x"),
        b"\x80\x04\x8c\x08builtins\x8c\x08KeyError\x93(\x8c\x01xtR.",
        "PROTO 4, module, name, STACK_GLOBAL, MARK, 'x', TUPLE, REDUCE, STOP"
    );
    assert_eq!(
        write::killed_worker(&Key::new_str("x"), "a", 3),
        b"\x80\x04\x8c\x15distributed.scheduler\x8c\x0cKilledWorker\x93(\x8c\x01x\
          \x8c\x05types\x8c\x0fSimpleNamespace\x93)R}\x8c\x07address\x8c\x01asbK\x03tR."
    );
}

#[test]
fn an_error_reply_has_the_fields_of_stock_dask() {
    let reply = error_message(write::key_error("x"), "KeyError('x')");
    assert_eq!(
        reply.get("status").and_then(Value::as_str),
        Some("uncaught-error")
    );
    assert_eq!(
        reply.get("exception_text").and_then(Value::as_str),
        Some("KeyError('x')")
    );
    let names: Vec<_> = reply
        .as_map()
        .unwrap()
        .iter()
        .map(|(k, _)| k.as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "status",
            "exception",
            "traceback",
            "exception_text",
            "traceback_text"
        ]
    );
}
