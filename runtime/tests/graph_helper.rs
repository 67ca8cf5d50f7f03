//! The graph helpers with a real Python: what they make, and that nothing they do harms more than one graph.
//!
//! Needs a Python with dask and distributed, named by `OXIDASK_PYTHON` or found on the path; otherwise the tests say so
//! and pass.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use oxidask_runtime::graph::{
    Graph, GraphError, GraphPool, GraphRequest, PoolConfig, RunSpec, find_python,
};
use oxidask_runtime::protocol::{Key, Payload, PayloadKind, Value};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn python() -> Option<PathBuf> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON
        .get_or_init(|| {
            let python = find_python()?;
            let check = Command::new(&python)
                .args(["-c", "import dask, distributed"])
                .output();
            let found = check.is_ok_and(|out| out.status.success());
            if !found {
                eprintln!(
                    "skipped: {} has no dask and distributed; set OXIDASK_PYTHON",
                    python.display()
                );
            }
            found.then_some(python)
        })
        .clone()
}

macro_rules! pool {
    ($($field:ident : $value:expr),* $(,)?) => {{
        let Some(python) = python() else { return };
        GraphPool::new(PoolConfig { python: Some(python), $($field: $value,)* ..PoolConfig::default() })
    }};
}

/// Runs a script with `input` on its standard input; what it prints.
fn run_python(script: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(python().unwrap())
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    out.stdout
}

/// A request whose expression is the pickle given.
fn request(pickle: impl Into<Bytes>) -> GraphRequest {
    GraphRequest {
        expr: Payload {
            kind: PayloadKind::Serialized,
            header: Bytes::from_static(
                b"\x83\xaaserializer\xa6pickle\xa9writeable\x90\xaenum-sub-frames\x01",
            ),
            frames: [pickle.into()].into_iter().collect(),
        },
        annotations: None,
        span_metadata: None,
    }
}

/// A request whose expression is the value of `expression` in Python; `inc` is a function of `__main__`.
fn expression(expression: &str) -> GraphRequest {
    let script = format!(
        "import sys, cloudpickle, dask\n\
         from dask._expr import LLGExpr\n\
         from dask._task_spec import Task, TaskRef\n\
         from distributed.client import _MapExpr\n\
         def inc(x):\n    return x + 1\n\
         def mapped(f, *columns): \n    e = _MapExpr(f, list(columns), key='f', pure=False, annotations={{}}, kwargs={{}})\n    e.keys\n    return e\n\
         sys.stdout.buffer.write(cloudpickle.dumps({expression}, protocol=5))"
    );
    request(run_python(&script, b""))
}

/// Calls all tasks in Python, those without dependencies, and prints their results.
fn results(specs: &[RunSpec]) -> String {
    let mut input = Vec::new();
    for spec in specs {
        let payload = spec.to_payload();
        input.extend_from_slice(&(payload.frames.len() as u32).to_le_bytes());
        for frame in [&payload.header].into_iter().chain(&payload.frames) {
            input.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            input.extend_from_slice(frame);
        }
    }
    let script = "
import sys, msgpack, pickle
data = sys.stdin.buffer.read()
at = 0
def take(n):
    global at
    at += n
    return data[at - n : at]
def number():
    return int.from_bytes(take(4), 'little')
while at < len(data):
    n = number()
    header, *frames = (take(number()) for _ in range(n + 1))
    header = msgpack.loads(header)
    assert header['num-sub-frames'] == n == len(header['compression'])
    print(pickle.loads(header['pickled-obj'], buffers=frames)(), end=' ')
";
    String::from_utf8(run_python(script, &input))
        .unwrap()
        .trim()
        .to_owned()
}

const EXIT_3: &[u8] = b"cos\n_exit\n(K\x03tR.";
const SEGFAULT: &[u8] = b"cctypes\nstring_at\n(K\x00tR.";
const SLEEP: &[u8] = b"ctime\nsleep\n(K\x64tR.";

async fn fails(pool: &GraphPool, pickle: &'static [u8]) -> GraphError {
    pool.materialize(request(pickle)).await.unwrap_err()
}

async fn works(pool: &GraphPool) {
    let graph = pool
        .materialize(expression("LLGExpr({'a': Task('a', inc, 1)})"))
        .await
        .unwrap();
    assert_eq!(graph.keys, [Key::new_str("a")]);
    assert!(graph.cull);
    assert_eq!(results(&graph.specs), "2");
}

#[tokio::test]
async fn maps_are_written_natively() {
    let pool = pool!();
    let columns = "[1, 255, 256, -1, 2**31, 2**40, 2**64 - 1, -2**63, 2.5, True]";
    let graph = pool
        .materialize(expression(&format!("mapped(inc, {columns})")))
        .await
        .unwrap();
    assert!(
        graph
            .specs
            .iter()
            .all(|s| matches!(s, RunSpec::Template(..)))
    );
    assert!(graph.deps.is_empty());
    assert_eq!(
        results(&graph.specs),
        "2 256 257 0 2147483649 1099511627777 18446744073709551616 -9223372036854775807 3.5 2"
    );
    let texts = "mapped(lambda *a: repr(a), ['ä', '', 'x' * 300], [b'', b'z' * 300, None])";
    let graph = pool.materialize(expression(texts)).await.unwrap();
    let (x, z) = ("x".repeat(300), "z".repeat(300));
    assert_eq!(
        results(&graph.specs),
        format!("('ä', b'') ('', b'{z}') ('{x}', None)")
    );
}

#[tokio::test]
async fn large_graphs_come_in_chunks_and_are_ordered_meanwhile() {
    let pool = pool!();
    let dsk = "LLGExpr({('t', i): Task(('t', i), inc, (i,) if i else 7) for i in range(20000)})";
    let order =
        Box::new(|s: &oxidask_runtime::graph::Structure| (0..s.keys.len() as u32).rev().collect());
    let graph = pool
        .materialize_ordered(expression(dsk), Some(order))
        .await
        .unwrap();
    assert_eq!(
        (graph.specs.len(), graph.keys.len(), graph.flags.len()),
        (20_000, 20_000, 20_000)
    );
    assert_eq!(graph.ordered.as_ref().unwrap()[0], 19_999);
    assert!(graph.materialize_seconds > 0.0);
    assert_eq!(results(&graph.specs[..1]), "8");
}

#[tokio::test]
async fn dependencies_buffers_and_annotations() {
    let pool = pool!();
    let dsk = "LLGExpr({'a': Task('a', inc, TaskRef('out')), 'b': Task('b', inc, TaskRef('a')), \
               'n': Task('n', len, __import__('numpy').ones(10))})";
    let mut request = expression(dsk);
    let annotations =
        "{'priority': 3, 'workers': {'w'}, 'resources': lambda key: {'GPU': len(key)}}";
    let script = format!(
        "import sys, cloudpickle; sys.stdout.buffer.write(cloudpickle.dumps({annotations}))"
    );
    request.annotations = Some(Payload::pickled(&run_python(&script, b"")));
    request.span_metadata = Some(Payload::pickled(b"\x80\x05}."));
    let Graph {
        keys,
        deps,
        dep_offsets,
        externals,
        specs,
        annotations,
        global_annotations,
        ..
    } = pool.materialize(request).await.unwrap();
    assert_eq!(keys, ["a", "b", "n"].map(Key::new_str));
    assert_eq!(externals, [Key::new_str("out")]);
    assert_eq!((deps, dep_offsets), (vec![3, 0], vec![0, 1, 2, 2]));
    assert!(
        matches!(&specs[2], RunSpec::Whole(p) if p.frames.len() == 1 && p.frames[0].len() == 80)
    );
    assert_eq!(results(&specs[2..]), "10");
    assert_eq!(
        global_annotations[0],
        ("priority".to_owned(), Value::Int(3))
    );
    assert_eq!(global_annotations[1].1, Value::Set(vec!["w".into()]));
    let (name, values) = &annotations[0];
    assert_eq!((name.as_str(), values.len()), ("resources", 3));
    assert_eq!(values[2], (2, Value::map([("GPU", Value::Int(1))])));
}

#[tokio::test]
async fn exceptions_are_the_clients() {
    let pool = pool!();
    let error = fails(&pool, b"cno_such_module\nthing\n.").await;
    assert!(
        error
            .text
            .contains("Error during deserialization of the task graph"),
        "{error}"
    );
    assert!(error.text.contains("no module 'no_such_module'"), "{error}");
    assert!(error.traceback.is_some());
    let error = fails(&pool, b"}.").await;
    assert!(
        error
            .exception_text
            .contains("'dict' object has no attribute '__dask_graph__'")
    );
    works(&pool).await;
}

#[tokio::test]
async fn crashes_are_explained_and_survived() {
    let pool = pool!();
    let error = fails(&pool, EXIT_3).await;
    assert!(error.text.contains("exited with code 3"), "{error}");
    let error = fails(&pool, SEGFAULT).await;
    assert!(error.text.contains("signal 11 (SIGSEGV"), "{error}");
    works(&pool).await;
    let exception = run_python(
        "import sys, pickle; e = pickle.loads(sys.stdin.buffer.read()); print(type(e).__name__, e)",
        &error.exception,
    );
    assert!(
        String::from_utf8(exception)
            .unwrap()
            .starts_with("RuntimeError The graph has crashed")
    );
}

#[tokio::test]
async fn last_words_are_reported() {
    let pool = pool!();
    let script = b"cbuiltins\nexec\n(Vimport os, sys; print('out'); print('dying of old age', file=sys.stderr, flush=True); os.abort()\ntR.";
    let error = fails(&pool, script).await;
    assert!(
        error.text.contains("SIGABRT") && error.text.contains("dying of old age"),
        "{error}"
    );
}

#[tokio::test]
async fn hangs_end_and_do_not_block_others() {
    let pool = pool!(timeout: Duration::from_secs(3), max_helpers: 2);
    works(&pool).await;
    let start = Instant::now();
    let hanging = tokio::spawn({
        let pool = pool.clone();
        async move { fails(&pool, SLEEP).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    works(&pool).await;
    let error = hanging.await.unwrap();
    assert!(
        error.text.contains("within 3 s (oxidask.graph.timeout)"),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn memory_is_limited() {
    let pool = pool!(memory_limit: Some(3 << 30));
    let error = fails(&pool, b"cbuiltins\nbytearray\n(L10000000000L\ntR.").await;
    assert!(error.text.contains("oxidask.graph.memory-limit"), "{error}");
    works(&pool).await;
}

#[tokio::test]
async fn a_helper_killed_while_idle_is_not_missed() {
    let pool = pool!();
    works(&pool).await;
    let pids = pool.idle_pids();
    assert_eq!(pids.len(), 1);
    Command::new("kill")
        .args(["-9", &pids[0].to_string()])
        .status()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    works(&pool).await;
    assert_ne!(pool.idle_pids(), pids);
}

#[tokio::test]
async fn uploads_reach_helpers_of_today_and_tomorrow() {
    let pool = pool!();
    works(&pool).await;
    pool.upload_file("uploaded_thing.py", b"def f(x):\n    return x * 3\n")
        .await
        .unwrap();
    let get = b"cuploaded_thing\nf\n.";
    assert!(fails(&pool, get).await.text.contains("__dask_graph__"));
    assert!(fails(&pool, EXIT_3).await.text.contains("code 3"));
    assert!(fails(&pool, get).await.text.contains("__dask_graph__"));
    let error = pool
        .upload_file("broken_thing.py", b"1/0\n")
        .await
        .unwrap_err();
    assert!(error.text.contains("ZeroDivisionError"), "{error}");
    works(&pool).await;
    assert!(pool.upload_file("../evil.py", b"").await.is_err());
}

#[tokio::test]
async fn versions_are_known_before_dask_is_imported() {
    let pool = pool!();
    let versions = pool.versions().await.unwrap();
    let dask = versions
        .get("packages")
        .and_then(|p| p.get("dask"))
        .and_then(Value::as_str);
    assert!(dask.is_some());
    assert!(versions.get("host").and_then(|h| h.get("python")).is_some());
    works(&pool).await;
}

#[tokio::test]
async fn without_python_or_dask_the_client_is_told() {
    let pool = GraphPool::new(PoolConfig {
        python: Some("/nonexistent/python".into()),
        ..PoolConfig::default()
    });
    assert!(fails(&pool, EXIT_3).await.text.contains("OXIDASK_PYTHON"));
    let pool = GraphPool::new(PoolConfig {
        python: Some("/bin/false".into()),
        ..PoolConfig::default()
    });
    let text = fails(&pool, EXIT_3).await.text;
    assert!(text.contains("cannot start"), "{text}");
}
