//! Writing the scheduler's messages in wire form.

use std::sync::Arc;

use crate::graph::{RunSpec, SpecTemplate};
use crate::protocol::{BatchWriter, Key, PayloadKind, Value, write};
use crate::scheduler::{ErrorPayload, State, Stimulus, TaskId, ToClient, ToWorker, WorkerId};

/// Appends a message for a worker to its batch. Messages about tasks that have moved on meanwhile are left out.
pub(super) fn worker_message(w: &mut BatchWriter, state: &State, to: WorkerId, msg: &ToWorker) {
    match msg {
        ToWorker::ComputeTask { task, run_id } => {
            if let Some(t) = state.live_task(*task)
                && t.run_id == *run_id
                && t.processing_on == Some(to)
            {
                compute_task(w, state, *task);
            }
        }
        ToWorker::FreeKeys { keys, stimulus } => keys_message(w, "free-keys", keys, *stimulus),
        ToWorker::RemoveReplicas { keys, stimulus } => {
            keys_message(w, "remove-replicas", keys, *stimulus)
        }
        ToWorker::AcquireReplicas { keys, stimulus } => {
            let b = w.begin();
            head(b, 4, "acquire-replicas");
            write::str(b, "who_has");
            write::map_len(b, keys.len());
            for (key, holders, _) in keys {
                b.extend_from_slice(key.as_bytes());
                addresses(b, holders);
            }
            write::str(b, "nbytes");
            write::map_len(b, keys.len());
            for (key, _, nbytes) in keys {
                b.extend_from_slice(key.as_bytes());
                write::int(b, *nbytes);
            }
            stimulus_id(b, *stimulus);
        }
        ToWorker::StealRequest { key, request } => {
            let b = w.begin();
            head(b, 3, "steal-request");
            write::str(b, "key");
            b.extend_from_slice(key.as_bytes());
            write::str(b, "stimulus_id");
            write::str(b, &format!("steal-{request}"));
        }
        ToWorker::RefreshWhoHas { who_has, stimulus } => {
            let b = w.begin();
            head(b, 3, "refresh-who-has");
            write::str(b, "who_has");
            write::map_len(b, who_has.len());
            for (key, holders) in who_has {
                b.extend_from_slice(key.as_bytes());
                addresses(b, holders);
            }
            stimulus_id(b, *stimulus);
        }
        ToWorker::StatusChange { status, stimulus } => {
            let b = w.begin();
            head(b, 3, "worker-status-change");
            write::str(b, "status");
            write::str(b, status);
            stimulus_id(b, *stimulus);
        }
        ToWorker::RemoveWorker { address, stimulus } => {
            let b = w.begin();
            head(b, 3, "remove-worker");
            write::str(b, "worker");
            write::str(b, address);
            stimulus_id(b, *stimulus);
        }
        ToWorker::Close { reason } => {
            let b = w.begin();
            head(b, 2, "close");
            write::str(b, "reason");
            write::str(b, reason);
        }
        ToWorker::CloseStream => {
            let b = w.begin();
            head(b, 1, "close-stream");
        }
        ToWorker::Raw(value) => {
            w.value(value);
        }
    }
}

/// Appends a message for a client to its batch.
pub(super) fn client_message(w: &mut BatchWriter, msg: &ToClient) {
    match msg {
        ToClient::KeyInMemory {
            key,
            type_pickle,
            workers,
        } => {
            let b = w.begin();
            head(
                b,
                2 + usize::from(type_pickle.is_some()) + usize::from(workers.is_some()),
                "key-in-memory",
            );
            write::str(b, "key");
            b.extend_from_slice(key.as_bytes());
            if let Some(t) = type_pickle {
                write::str(b, "type");
                write::bin(b, t);
            }
            if let Some(list) = workers {
                write::str(b, "workers");
                addresses(b, list);
            }
        }
        ToClient::LostData { key } => key_message(w, "lost-data", key),
        ToClient::TaskRetried { key } => key_message(w, "task-retried", key),
        ToClient::CancelledKeys { keys, reason, msg } => {
            let b = w.begin();
            head(b, 4, "cancelled-keys");
            write::str(b, "keys");
            write::array_len(b, keys.len());
            for key in keys.iter() {
                b.extend_from_slice(key.as_bytes());
            }
            write::str(b, "reason");
            write::str(b, reason);
            write::str(b, "msg");
            match msg {
                Some(m) => write::str(b, m),
                None => write::nil(b),
            }
        }
        ToClient::TaskErred {
            key,
            exception,
            traceback,
        } => {
            let b = w.begin();
            head(b, 4, "task-erred");
            write::str(b, "key");
            b.extend_from_slice(key.as_bytes());
            write::str(b, "exception");
            error_payload(w, exception);
            write::str(w.head(), "traceback");
            error_payload(w, traceback);
        }
        ToClient::Restart => {
            let b = w.begin();
            head(b, 1, "restart");
        }
        ToClient::Event { topic, time, msg } => {
            let b = w.begin();
            head(b, 3, "event");
            write::str(b, "topic");
            write::str(b, topic);
            write::str(b, "event");
            write::array_len(b, 2);
            write::f64(b, *time);
            w.part(msg);
        }
        ToClient::Raw(value) => {
            w.value(value);
        }
    }
}

fn head(b: &mut Vec<u8>, fields: usize, op: &str) {
    write::map_len(b, fields);
    write::str(b, "op");
    write::str(b, op);
}

fn stimulus_id(b: &mut Vec<u8>, stimulus: Stimulus) {
    write::str(b, "stimulus_id");
    write::str(b, &stimulus.to_string());
}

fn addresses(b: &mut Vec<u8>, list: &[Arc<str>]) {
    write::array_len(b, list.len());
    for a in list {
        write::str(b, a);
    }
}

fn key_message(w: &mut BatchWriter, op: &str, key: &Key) {
    let b = w.begin();
    head(b, 2, op);
    write::str(b, "key");
    b.extend_from_slice(key.as_bytes());
}

fn keys_message(w: &mut BatchWriter, op: &str, keys: &[Key], stimulus: Stimulus) {
    let b = w.begin();
    head(b, 3, op);
    write::str(b, "keys");
    write::array_len(b, keys.len());
    for key in keys {
        b.extend_from_slice(key.as_bytes());
    }
    stimulus_id(b, stimulus);
}

fn error_payload(w: &mut BatchWriter, error: &ErrorPayload) {
    match error {
        ErrorPayload::Payload(p) => w.payload(p),
        ErrorPayload::Pickle(bytes) => write::bin(w.head(), bytes),
        ErrorPayload::Nil => write::nil(w.head()),
    }
}

/// A number that Python may have sent as an int: written back as one where it has no fraction.
fn number(b: &mut Vec<u8>, x: f64) {
    if x.fract() == 0.0 && x.abs() < 9e15 {
        write::int(b, x as i64);
    } else {
        write::f64(b, x);
    }
}

fn compute_task(w: &mut BatchWriter, state: &State, id: TaskId) {
    let task = state.task(id);
    let Some(spec) = &task.spec else { return };
    let b = w.begin();
    head(b, 12, "compute-task");
    write::str(b, "key");
    b.extend_from_slice(task.key.as_bytes());
    write::str(b, "run_id");
    write::uint(b, task.run_id);
    write::str(b, "priority");
    write::array_len(b, 3);
    match task.priority {
        Some(p) => {
            number(b, p.user);
            number(b, p.generation);
            write::int(b, p.internal);
        }
        None => (0..3).for_each(|_| write::int(b, 0)),
    }
    write::str(b, "stimulus_id");
    stimulus_text(b, state.clock.wall);
    write::str(b, "who_has");
    write::map_len(b, task.dependencies.len());
    for dep in task.dependencies.iter() {
        let dep = state.task(dep);
        b.extend_from_slice(dep.key.as_bytes());
        write::array_len(b, dep.who_has.len());
        for holder in &dep.who_has {
            write::str(b, &state.worker(*holder).info.address);
        }
    }
    write::str(b, "nbytes");
    write::map_len(b, task.dependencies.len());
    for dep in task.dependencies.iter() {
        let dep = state.task(dep);
        b.extend_from_slice(dep.key.as_bytes());
        write::int(b, dep.nbytes);
    }
    write::str(b, "resource_restrictions");
    match task.restrictions().filter(|r| !r.resources.is_empty()) {
        Some(r) => {
            write::map_len(b, r.resources.len());
            for (name, amount) in &r.resources {
                write::str(b, name);
                number(b, *amount);
            }
        }
        None => write::nil(b),
    }
    write::str(b, "actor");
    write::bool(b, task.actor);
    write::str(b, "span_id");
    write::nil(b);
    write::str(b, "annotations");
    annotations(w, task.rare.as_ref().and_then(|r| r.annotations.as_ref()));
    write::str(w.head(), "run_spec");
    match spec {
        RunSpec::Whole(payload) => w.payload(payload),
        RunSpec::Template(template, args) => {
            let start = template.header_start(args.len());
            let parts = [
                &start,
                &template.before[..],
                args,
                &template.after,
                SpecTemplate::HEADER_END,
            ];
            w.inline_payload(PayloadKind::Pickled, &parts);
        }
    }
}

fn annotations(w: &mut BatchWriter, list: Option<&Arc<Vec<(String, Value)>>>) {
    let list = list.map_or(&[][..], |l| l.as_slice());
    write::map_len(w.head(), list.len());
    for (name, value) in list {
        write::str(w.head(), name);
        w.part(value);
    }
}

/// `compute-task-<time>` without going through a `String`.
fn stimulus_text(b: &mut Vec<u8>, time: f64) {
    use std::io::Write as _;
    let mut text = [0u8; 48];
    let mut cursor = std::io::Cursor::new(&mut text[..]);
    // The buffer is longer than any such text; a failed write would only shorten it.
    let _ = write!(cursor, "compute-task-{time:.6}");
    let n = cursor.position() as usize;
    write::str(b, std::str::from_utf8(&text[..n]).unwrap_or("compute-task"));
}
