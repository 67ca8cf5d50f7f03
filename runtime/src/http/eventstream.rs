//! `/eventstream`: a WebSocket that tells of workers, clients, graphs and finished tasks, in stock's messages.

use super::api::is_cross_site;
use super::html::colour_of;
use super::router::Shared;
use super::view::{StreamEvent, StreamRecord};
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;

/// Largest message a client may send; it has nothing to say but "ping".
const MAX_INCOMING: usize = 4096;

pub(super) async fn connect(
    State(shared): State<Shared>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if is_cross_site(&headers) {
        return (StatusCode::FORBIDDEN, "cross-site request").into_response();
    }
    upgrade
        .max_message_size(MAX_INCOMING)
        .on_upgrade(move |socket| async move {
            // An error is the client's going away.
            let _ = run(socket, shared).await;
        })
}

async fn run(mut socket: WebSocket, shared: Shared) -> Result<(), axum::Error> {
    let mut events = shared.view.subscribe();
    for worker in shared.view.overview().await.workers {
        send(
            &mut socket,
            json!({"name": "add_worker", "worker": worker.address}),
        )
        .await?;
    }
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    for message in messages(&event) {
                        send(&mut socket, message).await?;
                    }
                }
                // A client too slow misses events rather than having them pile up.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            incoming = socket.recv() => match incoming {
                None => return Ok(()),
                Some(Err(error)) => return Err(error),
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap_or_default();
                    if message["name"] == "ping" {
                        send(&mut socket, json!({"name": "pong", "timestamp": timestamp()})).await?;
                    }
                }
                Some(Ok(_)) => {}
            },
        }
    }
}

async fn send(socket: &mut WebSocket, message: Value) -> Result<(), axum::Error> {
    socket.send(Message::Text(message.to_string().into())).await
}

fn messages(event: &StreamEvent) -> Vec<Value> {
    match event {
        StreamEvent::Restart => vec![json!({"name": "restart"})],
        StreamEvent::AddWorker(worker) => vec![json!({"name": "add_worker", "worker": worker})],
        StreamEvent::RemoveWorker(worker) => {
            vec![json!({"name": "remove_worker", "worker": worker})]
        }
        StreamEvent::AddClient(client) => vec![json!({"name": "add_client", "client": client})],
        StreamEvent::RemoveClient(client) => {
            vec![json!({"name": "remove_client", "client": client})]
        }
        StreamEvent::UpdateGraph(client) => vec![json!({"name": "update_graph", "client": client})],
        StreamEvent::Transition { record, fields } => transitions(record, fields),
    }
}

/// One message per span. `name` says what the message is, as in stock, where it overwrites the prefix.
fn transitions(record: &StreamRecord, fields: &Map<String, Value>) -> Vec<Value> {
    let one = |span: &super::view::StartStop| {
        let mut message = fields.clone();
        message.insert("key".into(), record.key.as_str().into());
        message.insert("worker".into(), record.worker.as_str().into());
        message.insert("thread".into(), record.thread.into());
        message.insert("action".into(), span.action.as_str().into());
        message.insert("start".into(), span.start.into());
        message.insert("stop".into(), span.stop.into());
        message.insert(
            "color".into(),
            colour_of(&span.action, &record.name, record.erred).into(),
        );
        message.insert("name".into(), "transition".into());
        Value::Object(message)
    };
    record.startstops.iter().map(one).collect()
}

fn timestamp() -> String {
    crate::config::logging::timestamp(std::time::SystemTime::now())
}
