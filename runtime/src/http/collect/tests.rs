//! The collectors over a small state.

use super::*;
use crate::protocol::{Key, Value};
use crate::scheduler::task_stream::Record;
use serde_json::json;

fn raw(message: &Value) -> Record {
    let head = crate::protocol::Message::encode(message).frames[0].to_vec();
    Record {
        worker: "tcp://w:1".into(),
        message: head.into(),
        erred: false,
    }
}

#[test]
fn values_become_json() {
    let value = Value::map([
        ("a", Value::Array(vec![1.into(), "x".into(), Value::Nil])),
        ("inf", f64::INFINITY.into()),
    ]);
    assert_eq!(to_json(&value), json!({"a": [1, "x", null], "inf": null}));
}

#[test]
fn workers_messages_become_records() {
    let span = Value::map([
        ("action", "compute".into()),
        ("start", 1.5.into()),
        ("stop", 2.into()),
    ]);
    let key = Key::from_value(&Value::Array(vec!["x-0a1b2c3d4e".into(), 3.into()])).unwrap();
    let message = Value::map([
        ("op", "task-finished".into()),
        ("key", key.to_value()),
        ("thread", 139_000_000_000_000_i64.into()),
        ("nbytes", 28.into()),
        ("startstops", Value::Array(vec![span, Value::Nil])),
    ]);
    let record = record(&raw(&message)).unwrap();
    assert_eq!(
        (record.key.as_str(), record.name.as_str()),
        ("('x-0a1b2c3d4e', 3)", "x")
    );
    assert_eq!(
        (record.startstops.len(), record.startstops[0].stop),
        (1, 2.0)
    );
    let Some(super::super::view::StreamEvent::Transition { fields, .. }) =
        transition(&raw(&message))
    else {
        panic!()
    };
    assert_eq!(json!(fields), json!({"nbytes": 28}));
    assert!(super::record(&raw(&Value::Nil)).is_none());
}

#[test]
fn events_under_several_topics_are_one_row() {
    let shared = std::sync::Arc::new(Value::map([("action", "add-worker".into())]));
    let event = |time, topic: &str, msg: &std::sync::Arc<Value>| RawEvent {
        time,
        topic: topic.into(),
        msg: msg.clone(),
    };
    let other = std::sync::Arc::new(Value::from("x".repeat(5000).as_str()));
    let rows = event_rows(
        vec![
            event(1.0, "all", &shared),
            event(2.0, "all", &other),
            event(1.0, "w", &shared),
        ],
        10,
    );
    assert_eq!(rows.len(), 2);
    assert!(rows[0].text.chars().count() < 700);
    assert_eq!(
        (rows[1].topic.as_str(), rows[1].text.as_str()),
        ("all, w", r#"{"action":"add-worker"}"#)
    );
}
