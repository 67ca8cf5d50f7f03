//! What Python code reads of a small state.

use super::*;
use crate::graph::{Graph, RunSpec};
use crate::protocol::Payload;
use crate::scheduler::{Clock, CoreConfig, Status, Submission, WorkerInfo};

const ADDRESS: &str = "tcp://10.0.0.1:1";

/// Three tasks in a chain, the first of them on a worker.
fn state() -> State {
    let clock = Clock {
        wall: 1000.0,
        mono: 1.0,
    };
    let mut state = State::new(CoreConfig::default(), clock);
    let info = WorkerInfo {
        address: ADDRESS.into(),
        host: "10.0.0.1".into(),
        name: "alice".into(),
        server_id: "Worker-1".into(),
        nthreads: 4,
        memory_limit: 0,
        local_directory: String::new(),
        nanny: None,
        pid: 1,
        services: Value::Nil,
        versions: Value::Nil,
        extra: Value::Nil,
        resources: vec![("GPU".into(), 1.0)],
    };
    state.add_worker(info, Status::Running).unwrap();
    let client = state.add_client("client", Value::Nil);
    let names = ["a-1", "b-1", "c-1"];
    let graph = Graph {
        keys: names.iter().map(|n| Key::new_str(n)).collect(),
        dep_offsets: vec![0, 0, 1, 2],
        deps: vec![0, 1],
        specs: names
            .iter()
            .map(|n| RunSpec::Whole(Payload::pickled(n.as_bytes()).into()))
            .collect(),
        flags: vec![0; 3],
        ..Graph::default()
    };
    let sub = Submission {
        client,
        keys: vec![Key::new_str("c-1")],
        internal_priority: None,
        submitting_task: None,
        user_priority: 0.0,
        fifo_timeout: 0.0,
        actors: Default::default(),
        start: 0.0,
    };
    state.update_graph(&sub, graph, &[0, 1, 2]);
    state
}

/// Names of a record's fields, as the other side reads them.
fn fields() -> Vec<&'static str> {
    let python = include_str!("../../../python/oxidask/host/views.py");
    let start = python.split_once("TASK_FIELDS = (").unwrap().1;
    let list = start.split_once(").split()").unwrap().0;
    list.split([' ', '\n', '"'])
        .filter(|w| !w.is_empty())
        .collect()
}

fn records(state: &State, args: Value) -> Vec<Vec<Value>> {
    let records = snapshot(state, "tasks", &args);
    let record = |r: &Value| r.as_array().unwrap().to_vec();
    records.as_array().unwrap().iter().map(record).collect()
}

#[test]
fn task_records_are_as_python_reads_them() {
    let state = state();
    let fields = fields();
    let all = records(&state, Value::Nil);
    assert_eq!(all.len(), 3);
    for record in &all {
        assert_eq!(record.len(), fields.len());
    }
    let field = |record: &[Value], name: &str| {
        let at = fields.iter().position(|f| *f == name).unwrap();
        record[at].clone()
    };
    let of = |key: &str| all.iter().find(|r| r[0] == key.into()).unwrap();
    let a = of("a-1");
    assert_eq!(field(a, "key"), "a-1".into());
    assert_eq!(field(a, "state"), "processing".into());
    assert_eq!(field(a, "processing_on"), ADDRESS.into());
    assert_eq!(field(a, "dependents"), Value::Array(vec!["b-1".into()]));
    assert_eq!(field(a, "has_run_spec"), true.into());
    assert_eq!(field(a, "_queueable"), true.into());
    let c = of("c-1");
    assert_eq!(field(c, "state"), "waiting".into());
    assert_eq!(field(c, "who_wants"), Value::Array(vec!["client".into()]));
    assert_eq!(field(c, "waiting_on"), Value::Array(vec!["b-1".into()]));
    assert_eq!(field(c, "exception_blame"), Value::Nil);
}

#[test]
fn single_tasks_bring_what_they_depend_on() {
    let state = state();
    let ask = |more: i64| {
        let keys = Value::Array(vec!["c-1".into(), "unknown".into()]);
        let args = Value::map([("keys", keys), ("more", more.into())]);
        records(&state, args)
            .iter()
            .map(|r| r[0].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(-1), ["c-1".into()]);
    assert_eq!(ask(10), ["c-1".into(), "b-1".into(), "a-1".into()]);
    let key = Value::map([("key", "a-1".into())]);
    assert!(matches!(
        snapshot(&state, "run_spec", &key),
        Value::Payload(_)
    ));
    assert_eq!(snapshot(&state, "run_spec", &Value::Nil), Value::Nil);
}

#[test]
fn the_other_parts_are_there() {
    let mut state = state();
    let info = snapshot(&state, "info", &Value::Nil);
    assert_eq!(info.get("n_tasks_known"), Some(&3.into()));
    assert_eq!(info.get("total_nthreads"), Some(&4.into()));
    assert_eq!(info.get("is_idle"), Some(&false.into()));
    let workers = snapshot(&state, "workers", &Value::Nil);
    let worker = &workers.as_array().unwrap()[0];
    assert_eq!(worker.get("name"), Some(&"alice".into()));
    let of = Value::map([("address", ADDRESS.into())]);
    let tasks = snapshot(&state, "worker_tasks", &of);
    assert_eq!(
        tasks.get("processing"),
        Some(&Value::Array(vec!["a-1".into()]))
    );
    for part in ["keys", "groups", "prefixes", "transition_log"] {
        assert!(
            snapshot(&state, part, &Value::Nil)
                .as_array()
                .unwrap()
                .len()
                >= 3,
            "{part}"
        );
    }
    for part in ["queued", "erred_tasks", "shuffle_workers"] {
        assert_eq!(
            snapshot(&state, part, &Value::Nil),
            Value::Array(Vec::new()),
            "{part}"
        );
    }
    assert_eq!(snapshot(&state, "nothing", &Value::Nil), Value::Nil);
    let client = Value::map([("client", "client".into())]);
    assert_eq!(
        snapshot(&state, "client_keys", &client),
        Value::Array(vec!["c-1".into()])
    );
    state.out.clear();
    let hello = Value::Array(vec![Value::map([("op", "hello".into())])]);
    let to = |name: &str| Value::map([(name, hello.clone())]);
    state.send_raw(&to("nobody"), &to(ADDRESS));
    assert_eq!(state.out.len(), 1);
}
