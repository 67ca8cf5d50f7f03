//! Messages that workers and clients send on their streams.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::core::Core;
use super::stream::{Peer, Position};
use crate::protocol::{DecodeError, Key, Message, Reader, Value};
use crate::scheduler::{
    ClientId, ErrorPayload, Failure, StartStop, Status, TaskFinished, TaskId, WorkerId,
    heartbeat_interval,
};

/// How to go on after a batch.
pub(super) enum Next {
    /// All handled.
    Done,
    /// A graph is being made; go on from here when it is done.
    Resume(Position),
    /// The stream ends.
    Close,
}

/// Longest error text kept (`distributed.admin.max-error-length`).
const MAX_ERROR_TEXT: usize = 10_000;

/// What one message asks for beyond its own effect.
enum Flow {
    Go,
    EndOfBatch,
    WaitForGraph,
    Close,
}

/// Handles a batch (an array of maps; a single map counts as an array of one).
pub(super) fn handle(
    core: &mut Core,
    token: usize,
    peer: Peer,
    message: &Message,
    at: Position,
) -> Next {
    let Some(head) = message.frames.first().cloned() else {
        return Next::Close;
    };
    let (mut offset, mut remaining) = (at.offset, at.remaining);
    if offset == 0 {
        let mut r = Reader::new(&head);
        match r.peek() {
            Ok(crate::protocol::Kind::Array) => match r.array_len() {
                Ok(n) => (offset, remaining) = (r.position(), n),
                Err(e) => return refuse(peer, &e),
            },
            _ => remaining = 1,
        }
    }
    while remaining > 0 {
        let mut r = Reader::new(&head[offset..]);
        let flow = match r.raw_value() {
            Ok(raw) => one(core, token, peer, message, &head, raw),
            Err(e) => Err(e),
        };
        offset += r.position();
        remaining -= 1;
        match flow {
            Ok(Flow::Go) => {}
            Ok(Flow::EndOfBatch) => return Next::Done,
            Ok(Flow::WaitForGraph) => return Next::Resume(Position { offset, remaining }),
            Ok(Flow::Close) => return Next::Close,
            Err(e) => return refuse(peer, &e),
        }
    }
    Next::Done
}

fn refuse(peer: Peer, error: &DecodeError) -> Next {
    tracing::warn!(?peer, %error, "closing a stream that sent a message which cannot be understood");
    Next::Close
}

/// Names and raw values of one message.
struct Fields<'a>(SmallVec<[(&'a str, &'a [u8]); 16]>);

impl<'a> Fields<'a> {
    fn read(raw: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(raw);
        let n = r.map_len()?;
        let mut list = SmallVec::new();
        for _ in 0..n {
            let name = r.str()?;
            list.push((name, r.raw_value()?));
        }
        Ok(Self(list))
    }

    fn get(&self, name: &str) -> Option<Reader<'a>> {
        self.0
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| Reader::new(v))
    }

    fn need(&self, name: &'static str) -> Result<Reader<'a>, DecodeError> {
        self.get(name).ok_or(DecodeError::MissingField(name))
    }

    fn str(&self, name: &'static str) -> Result<&'a str, DecodeError> {
        self.need(name)?.str()
    }

    fn opt_str(&self, name: &'static str) -> Option<&'a str> {
        self.get(name)?.str().ok()
    }

    fn keys(&self, name: &'static str) -> Result<Vec<Key>, DecodeError> {
        let value = self.need(name)?.value()?;
        let list = value.as_array().ok_or(DecodeError::MissingField(name))?;
        list.iter().map(Key::from_value).collect()
    }
}

fn one(
    core: &mut Core,
    token: usize,
    peer: Peer,
    message: &Message,
    head: &Bytes,
    raw: &[u8],
) -> Result<Flow, DecodeError> {
    if raw.first().is_some_and(|b| *b == 0xa2) && &raw[1..] == b"OK" {
        return Ok(Flow::EndOfBatch);
    }
    let fields = Fields::read(raw)?;
    let op = fields.str("op")?;
    match peer {
        Peer::Worker(w) => from_worker(core, w, op, &fields, message, head, raw),
        Peer::Client(c) => from_client(core, token, c, op, &fields, message, raw),
    }
}

fn from_worker(
    core: &mut Core,
    w: WorkerId,
    op: &str,
    fields: &Fields<'_>,
    message: &Message,
    head: &Bytes,
    raw: &[u8],
) -> Result<Flow, DecodeError> {
    let mut scratch = Vec::new();
    match op {
        "task-finished" => task_finished(core, w, fields, head, raw)?,
        "task-erred" => task_erred(core, w, fields, message, raw)?,
        "release-worker-data" => {
            let mut r = fields.need("key")?;
            core.state
                .handle_release_worker_data(w, r.key(&mut scratch)?);
        }
        "add-keys" => {
            let keys = fields.keys("keys")?;
            core.state.handle_add_keys(w, &keys);
        }
        "long-running" => {
            let run_id = fields.need("run_id")?.u64()?;
            let duration = fields
                .get("compute_duration")
                .and_then(|mut r| r.f64().ok());
            let mut r = fields.need("key")?;
            core.state
                .handle_long_running(w, r.key(&mut scratch)?, run_id, duration);
        }
        "reschedule" => {
            let mut r = fields.need("key")?;
            core.state.handle_reschedule(Some(w), r.key(&mut scratch)?);
        }
        "steal-response" => {
            let state = fields.opt_str("state");
            let stimulus = fields.opt_str("stimulus_id").unwrap_or_default();
            let mut r = fields.need("key")?;
            core.state
                .handle_steal_response(w, r.key(&mut scratch)?, state, stimulus);
        }
        "request-refresh-who-has" => {
            let keys = fields.keys("keys")?;
            core.state.handle_request_refresh_who_has(w, &keys);
        }
        "worker-status-change" => {
            let status = Status::parse(fields.str("status")?);
            core.state.set_worker_status(w, status);
        }
        "log-event" => {
            let worker = core.state.worker(w).info.address.clone();
            log_event(core, fields, message, raw, Some(&worker))?;
        }
        "keep-alive" => {}
        "close-stream" => return Ok(Flow::Close),
        other => {
            let address = core.state.worker(w).info.address.clone();
            let value = message.decode_part(raw)?;
            let services = core.services.clone();
            if !services.extension(core, other, &address, &value) {
                tracing::warn!(worker = %address, op = other, "unknown stream message; ignored");
            }
        }
    }
    Ok(Flow::Go)
}

fn log_event(
    core: &mut Core,
    fields: &Fields<'_>,
    message: &Message,
    raw: &[u8],
    worker: Option<&str>,
) -> Result<(), DecodeError> {
    let value = message.decode_part(raw)?;
    let mut msg = value.get("msg").cloned().unwrap_or(Value::Nil);
    let topic = fields.need("topic")?.value()?;
    let topics: Vec<&str> = match topic.as_array() {
        Some(list) => list.iter().filter_map(Value::as_str).collect(),
        None => topic.as_str().into_iter().collect(),
    };
    if let (Some(worker), Value::Map(map)) = (worker, &mut msg)
        && !topics.contains(&worker)
    {
        map.push(("worker".into(), worker.into()));
    }
    core.state.log_event(&topics, msg);
    Ok(())
}

fn task_finished(
    core: &mut Core,
    w: WorkerId,
    fields: &Fields<'_>,
    head: &Bytes,
    raw: &[u8],
) -> Result<(), DecodeError> {
    let mut startstops: SmallVec<[StartStop<'_>; 4]> = SmallVec::new();
    if let Some(mut r) = fields.get("startstops") {
        for _ in 0..r.array_len()? {
            startstops.push(startstop(&mut r)?);
        }
    }
    let metadata = match fields.get("metadata") {
        // An empty map, the usual case.
        Some(r) if r.remaining() == 1 => None,
        Some(_) => fields.need("metadata")?.value().ok().and_then(|v| match v {
            Value::Map(m) => Some(m),
            _ => None,
        }),
        None => None,
    };
    let type_pickle = match fields.need("type")?.bin() {
        Ok(b) => head.slice_ref(b),
        Err(_) => Bytes::new(),
    };
    let mut scratch = Vec::new();
    let mut key = fields.need("key")?;
    let msg = TaskFinished {
        key: key.key(&mut scratch)?,
        run_id: fields.need("run_id")?.u64()?,
        nbytes: fields
            .get("nbytes")
            .and_then(|mut r| r.i64().ok())
            .unwrap_or(0),
        type_pickle,
        typename: fields.opt_str("typename").unwrap_or("object"),
        metadata,
        startstops: &startstops,
    };
    core.state.handle_task_finished(w, msg, raw);
    Ok(())
}

fn startstop<'a>(r: &mut Reader<'a>) -> Result<StartStop<'a>, DecodeError> {
    let mut s = StartStop {
        action: "",
        start: 0.0,
        stop: 0.0,
    };
    for _ in 0..r.map_len()? {
        match r.str()? {
            "action" => s.action = r.str()?,
            "start" => s.start = r.f64()?,
            "stop" => s.stop = r.f64()?,
            _ => r.skip()?,
        }
    }
    Ok(s)
}

fn task_erred(
    core: &mut Core,
    w: WorkerId,
    fields: &Fields<'_>,
    message: &Message,
    raw: &[u8],
) -> Result<(), DecodeError> {
    let value = message.decode_part(raw)?;
    let text = |name: &str| -> String {
        let text = value.get(name).and_then(Value::as_str).unwrap_or_default();
        text.chars().take(MAX_ERROR_TEXT).collect()
    };
    let failure = Failure {
        exception: error_payload(value.get("exception")),
        traceback: error_payload(value.get("traceback")),
        exception_text: text("exception_text"),
        traceback_text: text("traceback_text"),
    };
    let mut scratch = Vec::new();
    let mut key = fields.need("key")?;
    let run_id = fields.need("run_id")?.u64()?;
    core.state
        .handle_task_erred(w, key.key(&mut scratch)?, run_id, failure, raw);
    Ok(())
}

/// An exception or traceback field.
pub(crate) fn error_payload(value: Option<&Value>) -> ErrorPayload {
    match value {
        Some(Value::Payload(p)) => ErrorPayload::Payload(p.detach()),
        Some(Value::Bin(b)) => ErrorPayload::Pickle(Bytes::copy_from_slice(b)),
        _ => ErrorPayload::Nil,
    }
}

fn from_client(
    core: &mut Core,
    token: usize,
    own: ClientId,
    op: &str,
    fields: &Fields<'_>,
    message: &Message,
    raw: &[u8],
) -> Result<Flow, DecodeError> {
    let own_name = core.state.client(own).name.clone();
    let name: Arc<str> = fields.opt_str("client").map_or(own_name, Into::into);
    match op {
        "update-graph" => {
            let value = message.decode_part(raw)?;
            if let Some(Some(stream)) = core.streams.get_mut(token) {
                stream.waiting_for_graph = true;
            }
            core.state.active_graph_updates += 1;
            core.services.materialize(own, value);
            return Ok(Flow::WaitForGraph);
        }
        "client-desires-keys" => {
            let keys = fields.keys("keys")?;
            core.state.client_desires_keys(&name, &keys);
        }
        "client-releases-keys" => release_keys(core, &name, fields)?,
        "update-data" => update_data(core, &name, &message.decode_part(raw)?)?,
        "report-key" => {
            let value = fields.need("key")?.value()?;
            core.state
                .handle_report_key(&name, &Key::from_value(&value)?);
        }
        "heartbeat-client" => heartbeat_client(core, own),
        "close-client" | "close-stream" => return Ok(Flow::Close),
        "cancel-keys" => {
            let keys = fields.keys("keys")?;
            let force = fields
                .get("force")
                .is_some_and(|mut r| r.bool().unwrap_or(false));
            let reason = fields.opt_str("reason").unwrap_or("unknown");
            core.state
                .cancel_keys(&name, &keys, force, reason, fields.opt_str("msg"));
        }
        "subscribe-topic" => core.state.events.subscribe(fields.str("topic")?, own),
        "unsubscribe-topic" => core.state.events.unsubscribe(fields.str("topic")?, own),
        "log-event" => log_event(core, fields, message, raw, None)?,
        other => {
            let value = message.decode_part(raw)?;
            let services = core.services.clone();
            if !services.extension(core, other, &name, &value) {
                tracing::warn!(client = %name, op = other, "unknown stream message; ignored");
            }
        }
    }
    Ok(Flow::Go)
}

fn release_keys(core: &mut Core, name: &str, fields: &Fields<'_>) -> Result<(), DecodeError> {
    let Some(client) = core.state.client_id(name) else {
        return Ok(());
    };
    let mut r = fields.need("keys")?;
    let mut ids: Vec<TaskId> = Vec::new();
    if r.peek()? == crate::protocol::Kind::Array {
        let mut scratch = Vec::new();
        for _ in 0..r.array_len()? {
            ids.extend(core.state.task_id_by_bytes(r.key(&mut scratch)?));
        }
    } else {
        // A set.
        for key in fields.keys("keys")? {
            ids.extend(core.state.task_id(&key));
        }
    }
    core.state.client_releases_ids(client, &ids);
    Ok(())
}

fn heartbeat_client(core: &mut Core, id: ClientId) {
    let interval = heartbeat_interval(core.state.all_clients().count()) * 10.0;
    core.state.client_seen(id);
    let msg = Value::map([
        ("op", "adjust-heartbeat-interval".into()),
        ("interval", Value::from(interval)),
    ]);
    core.state.send_to_client(id, msg);
}

/// `update_data`, from a stream or by RPC.
pub(crate) fn update_data(core: &mut Core, client: &str, value: &Value) -> Result<(), DecodeError> {
    let mut who_has = Vec::new();
    for (key, holders) in value.get("who_has").and_then(Value::as_map).unwrap_or(&[]) {
        let holders = holders.as_array().unwrap_or(&[]);
        let holders = holders
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_string)
            .collect();
        who_has.push((Key::from_value(key)?, holders));
    }
    let mut nbytes = Vec::new();
    for (key, n) in value.get("nbytes").and_then(Value::as_map).unwrap_or(&[]) {
        nbytes.push((Key::from_value(key)?, n.as_i64().unwrap_or(0)));
    }
    let client = match value.get("client") {
        Some(Value::Nil) => None,
        Some(c) => c.as_str(),
        None => Some(client),
    };
    core.state.update_data(&who_has, &nbytes, client);
    Ok(())
}
