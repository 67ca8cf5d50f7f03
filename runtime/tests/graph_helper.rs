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
         buffers = []\n\
         pickle = cloudpickle.dumps({expression}, protocol=5, buffer_callback=buffers.append)\n\
         for frame in [pickle, *(b.raw() for b in buffers)]:\n    \
             sys.stdout.buffer.write(memoryview(frame).nbytes.to_bytes(4, 'little') + bytes(frame))"
    );
    let mut output = Bytes::from(run_python(&script, b""));
    let mut request = request("");
    request.expr.frames.clear();
    while !output.is_empty() {
        let length = output.split_to(4);
        let length = u32::from_le_bytes(length[..].try_into().unwrap());
        request.expr.frames.push(output.split_to(length as usize));
    }
    let nbuffers = request.expr.frames.len() - 1;
    let mut header = b"\x83\xaaserializer\xa6pickle\xa9writeable".to_vec();
    header.push(0x90 + nbuffers as u8);
    header.resize(header.len() + nbuffers, 0xc2);
    header.extend_from_slice(b"\xaenum-sub-frames");
    header.push(1 + nbuffers as u8);
    request.expr.header = header.into();
    request
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
async fn an_orphan_that_keeps_the_socket_is_no_helper() {
    let pool = pool!(timeout: Duration::from_secs(60));
    let script =
        b"cbuiltins\nexec\n(Vimport os, time; os.fork() == 0 and time.sleep(20); os._exit(7)\ntR.";
    let start = Instant::now();
    let error = fails(&pool, script).await;
    assert!(error.text.contains("exited with code 7"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(19));
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
    let pool = pool!(native: false);
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
async fn idle_helpers_end() {
    let pool = pool!(native: false, idle_timeout: Some(Duration::from_millis(300)));
    works(&pool).await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert!(pool.idle_pids().is_empty());
    works(&pool).await;
    assert_eq!(pool.stats().started, 2);
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
async fn submits_seen_before_need_no_helper() {
    let pool = pool!();
    let helped = pool!(native: false);
    let submits = [
        "Task('a', inc, 1)",
        "Task('a', lambda: (1, 2.5, None, 'x' * 300))",
        "Task(('a', 1, 2.0), inc, 1)",
        "Task('a', abs, -2**70)",
        "Task('a', (lambda np: lambda x: np.sum(x))(__import__('numpy')), __import__('numpy').arange(10))",
        "Task('a', lambda x: x.nbytes, __import__('numpy').ones((1000, 1000)))",
        "Task('a', lambda *a, **k: (a, k), [1, {'x': {2}}], b'y', range(3), k=slice(1, 2), m=(3,))",
        "Task('a', __import__('functools').partial(inc, 4))",
        "Task('a', lambda d: str(d), __import__('datetime').datetime(2020, 1, 2))",
        "Task('a', inc, 1, _data_producer=True)",
    ];
    for submit in submits {
        let request = expression(&format!("(lambda t: LLGExpr({{t.key: t}}))({submit})"));
        let first = helped.materialize(request.clone()).await.unwrap();
        pool.materialize(request.clone()).await.unwrap();
        let native = pool.stats().native;
        let second = pool.materialize(request).await.unwrap();
        assert_eq!(pool.stats().native, native + 1, "{submit}");
        let of = |graph: &Graph| {
            (
                graph.keys.clone(),
                graph.deps.clone(),
                graph.flags.clone(),
                graph.cull,
            )
        };
        assert_eq!(of(&first), of(&second), "{submit}");
        assert_eq!(results(&first.specs), results(&second.specs), "{submit}");
    }
    let mut request =
        expression("LLGExpr({'a': Task('a', inc, TaskRef(('b', 0)), y=TaskRef('c'))})");
    request.annotations = Some(Payload::pickled(b"\x80\x05}\x8c\x07retriesK\x02s."));
    let mut graphs = Vec::new();
    for _ in 0..2 {
        let mut graph = pool.materialize(request.clone()).await.unwrap();
        graph.externals.sort();
        assert_eq!(
            graph.global_annotations,
            [("retries".to_owned(), Value::Int(2))]
        );
        assert_eq!(graph.deps.len(), 2);
        graphs.push(graph.externals);
    }
    assert_eq!(graphs[0], graphs[1]);
    assert!(pool.stats().made < 10);
}

#[tokio::test]
async fn what_might_not_load_goes_to_a_helper() {
    let pool = pool!();
    for submit in [
        "Task('a', len, __import__('collections').OrderedDict(x=1))",
        "Task('a', len, type('C', (), {'__len__': lambda s: 1})())",
        "Task('a', 'abc'.startswith, 'a')",
    ] {
        for _ in 0..2 {
            pool.materialize(expression(&format!("LLGExpr({{'a': {submit}}})")))
                .await
                .unwrap();
        }
        assert_eq!(pool.stats().native, 0, "{submit}");
    }
    let request = expression("LLGExpr({'a': Task('a', inc, 1)})");
    pool.materialize(request.clone()).await.unwrap();
    let native = pool.stats().native;
    pool.add_sys_path("/nonexistent").await.unwrap();
    pool.materialize(request.clone()).await.unwrap();
    assert_eq!(pool.stats().native, native);
    pool.materialize(request).await.unwrap();
    assert_eq!(pool.stats().native, native + 1);
}

#[tokio::test]
#[ignore = "a measurement"]
async fn time_of_a_submit() {
    let native = pool!();
    let helped = pool!(native: false);
    let request = expression("LLGExpr({'a': Task('a', inc, 1)})");
    for (name, pool) in [("native", native), ("helper", helped)] {
        for _ in 0..100 {
            pool.materialize(request.clone()).await.unwrap();
        }
        let start = Instant::now();
        for _ in 0..1000 {
            pool.materialize(request.clone()).await.unwrap();
        }
        println!("{name}: {:?}", start.elapsed() / 1000);
    }
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
