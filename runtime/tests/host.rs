//! The host process with a real Python: operations, feeds, plugins and their events, crashes.
//!
//! Needs a Python with dask and distributed, named by `OXIDASK_PYTHON` or found on the path; otherwise the tests say so
//! and pass.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use oxidask_runtime::graph::find_python;
use oxidask_runtime::host::{
    BoxFuture, EventQueue, Host, HostBackend, HostConfig, HostError, HostEvent, Wants,
};
use oxidask_runtime::protocol::{Key, Value};

/// A scheduler of a few canned answers.
#[derive(Default)]
struct Canned {
    wants: Mutex<Wants>,
    rpcs: Mutex<Vec<(String, Value)>>,
}

impl HostBackend for Canned {
    fn rpc(&self, op: String, kwargs: Value) -> BoxFuture<Result<Value, Value>> {
        self.rpcs.lock().unwrap().push((op, kwargs));
        Box::pin(async { Ok("OK".into()) })
    }
    fn snapshot(&self, what: String, _args: Value) -> BoxFuture<Value> {
        let value = match what.as_str() {
            "info" => Value::map([
                ("address", "tcp://10.0.0.1:8786".into()),
                ("total_nthreads", 4.into()),
                ("n_tasks_known", 0.into()),
            ]),
            _ => Value::Array(Vec::new()),
        };
        Box::pin(async { value })
    }
    fn tap(&self, wants: Wants, _queue: Arc<EventQueue>) -> BoxFuture<()> {
        *self.wants.lock().unwrap() = wants;
        Box::pin(async {})
    }
    fn upload(&self, _filename: String, _data: Bytes) -> BoxFuture<Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
    fn add_sys_path(&self, _path: String) -> BoxFuture<Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

fn host() -> Option<(Host, Arc<Canned>)> {
    let python = find_python()?;
    let check = Command::new(&python)
        .args(["-c", "import dask, distributed"])
        .output();
    if !check.is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: no dask and distributed in {}", python.display());
        return None;
    }
    let backend = Arc::new(Canned::default());
    let config = HostConfig {
        python: Some(python),
        ..HostConfig::default()
    };
    Some((Host::new(config, backend.clone()), backend))
}

/// The pickle of an object that evaluates `code` when it is loaded.
fn pickle_eval(code: &str) -> Value {
    let mut out = b"\x80\x02cbuiltins\neval\nX".to_vec();
    out.extend_from_slice(&u32::try_from(code.len()).unwrap().to_le_bytes());
    out.extend_from_slice(code.as_bytes());
    out.extend_from_slice(b"\x85R.");
    Value::Bin(out.into())
}

fn run(code: &str) -> Value {
    Value::map([
        ("op", "run_function".into()),
        ("function", pickle_eval(code)),
        ("wait", true.into()),
    ])
}

#[tokio::test]
async fn functions_see_the_mirror_and_their_failures_come_back() {
    let Some((host, _)) = host() else { return };
    assert!(!host.is_running().await);
    let code = "lambda dask_scheduler: (dask_scheduler.address, dask_scheduler.total_nthreads)";
    let reply = host.call("run_function", run(code)).await.unwrap();
    assert_eq!(reply.get("status").unwrap().as_str(), Some("OK"));
    assert!(matches!(reply.get("result"), Some(Value::Payload(_))));

    let reply = host
        .call("run_function", run("lambda: 1 / 0"))
        .await
        .unwrap();
    assert_eq!(reply.get("status").unwrap().as_str(), Some("error"));
    assert!(
        reply
            .get("exception_text")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("ZeroDivisionError")
    );

    let Err(HostError::Failed(message)) = host.call("run_function", run("1 +")).await else {
        panic!("code that cannot be loaded must fail");
    };
    assert_eq!(
        message.get("status").unwrap().as_str(),
        Some("uncaught-error")
    );
    host.shut_down(Duration::from_secs(5)).await;
    assert!(host.call("get_versions", Value::Nil).await.is_err());
}

#[tokio::test]
async fn a_feed_gives_values_until_it_is_dropped() {
    let Some((host, _)) = host() else { return };
    let args = Value::map([
        ("setup", pickle_eval("lambda scheduler: [0]")),
        (
            "function",
            pickle_eval("lambda scheduler, s: (s.append(1), len(s))[1]"),
        ),
        ("interval", Value::F64(0.01)),
    ]);
    let mut feed = host.feed(&args).await.unwrap();
    for expected in 2..6 {
        assert_eq!(feed.next().await.unwrap(), Some(Value::Int(expected)));
    }
    drop(feed);
    let args = Value::map([("function", pickle_eval("lambda scheduler: 1 / 0"))]);
    let mut feed = host.feed(&args).await.unwrap();
    assert!(matches!(feed.next().await, Err(HostError::Failed(_))));
    assert!(host.is_running().await);
}

const PLUGIN: &str = "type('P', (__import__('distributed').SchedulerPlugin,), dict(name='p', \
    seen=[], transition=lambda s, key, a, b, *args, **kw: s.seen.append((key, a, b))))()";

#[tokio::test]
async fn plugins_get_events_and_come_back_after_a_crash() {
    let Some((host, backend)) = host() else {
        return;
    };
    let event = || HostEvent::Transition {
        key: Key::new_str("x"),
        start: "processing",
        finish: "memory",
        stimulus: "s".into(),
        nbytes: 8,
        extra: Value::Nil,
    };
    host.event(event());
    let register = Value::map([
        ("plugin", pickle_eval(PLUGIN)),
        ("name", "p".into()),
        ("idempotent", false.into()),
    ]);
    assert_eq!(
        host.call("register_scheduler_plugin", register)
            .await
            .unwrap(),
        Value::Nil
    );
    assert!(backend.wants.lock().unwrap().transitions);
    host.event(event());
    host.event(event());
    let count = run(
        "lambda dask_scheduler: (lambda n: 1 / 0 if n != 2 else n)(len(dask_scheduler.plugins['p'].seen))",
    );
    let mut counted = Value::Nil;
    for _ in 0..100 {
        counted = host.call("run_function", count.clone()).await.unwrap();
        if counted.get("status").unwrap().as_str() == Some("OK") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(counted.get("status").unwrap().as_str(), Some("OK"));

    let pid = host.pid().await.unwrap();
    let died = host
        .call("run_function", run("lambda: __import__('os')._exit(3)"))
        .await;
    let Err(HostError::Crashed(text)) = died else {
        panic!("the process is gone")
    };
    assert!(text.contains("exited with code 3"), "{text}");
    let there = run("lambda dask_scheduler: dask_scheduler.plugins['p']");
    let reply = host
        .call(
            "run_function",
            run("lambda dask_scheduler: list(dask_scheduler.plugins)"),
        )
        .await
        .unwrap();
    assert_eq!(reply.get("status").unwrap().as_str(), Some("OK"));
    assert_ne!(host.pid().await.unwrap(), pid);
    drop(there);
    assert!(backend.wants.lock().unwrap().transitions);
    let gone = Value::map([("name", "p".into())]);
    host.call("unregister_scheduler_plugin", gone.clone())
        .await
        .unwrap();
    assert!(!backend.wants.lock().unwrap().any());
    assert!(matches!(
        host.call("unregister_scheduler_plugin", gone).await,
        Err(HostError::Failed(_))
    ));
}
