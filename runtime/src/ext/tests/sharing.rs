use super::{Session, text};
use crate::protocol::Value;

fn set_key(key: &'static str) -> [(&'static str, Value); 3] {
    [
        ("name", "v".into()),
        ("key", key.into()),
        ("timeout", "30 s".into()),
    ]
}

fn get(timeout: Option<f64>) -> [(&'static str, Value); 3] {
    [
        ("name", "v".into()),
        ("timeout", timeout.into()),
        ("client", "reader".into()),
    ]
}

fn confirm(record: &Value) -> [(&'static str, Value); 3] {
    [
        ("name", "v".into()),
        ("key", record.get("value").unwrap().clone()),
        ("token", text(record, "token").into()),
    ]
}

fn with_tasks() -> Session {
    let session = Session::default();
    session.core.add_task("x", "memory");
    session.core.add_task("y", "processing");
    session
}

#[tokio::test]
async fn a_variable_is_waited_for() {
    let session = Session::default();
    assert_eq!(
        session.error("variable_get", get(Some(0.01))).await,
        "TimeoutError()"
    );
    let waiting = session.spawn("variable_get", get(None)).await;
    session
        .call(
            "variable_set",
            [
                ("name", "v".into()),
                ("data", 1i64.into()),
                ("timeout", "30 s".into()),
            ],
        )
        .await;
    let record = waiting.await.unwrap().unwrap();
    assert_eq!(
        record,
        Value::map([("type", "msgpack".into()), ("value", 1i64.into())])
    );
    let unknown = [
        ("name", "v".into()),
        ("key", "z".into()),
        ("timeout", "20 ms".into()),
    ];
    assert_eq!(
        session.error("variable_set", unknown).await,
        "TimeoutError('Task z unknown to scheduler.')"
    );
}

#[tokio::test]
async fn a_replaced_future_is_kept_until_all_readers_hold_it() {
    let session = with_tasks();
    session.call("variable_set", set_key("x")).await;
    let first = session.call("variable_get", get(None)).await;
    let second = session.call("variable_get", get(None)).await;
    assert_eq!(
        (text(&first, "state"), text(&first, "type")),
        ("memory", "Future")
    );
    assert_ne!(text(&first, "token"), text(&second, "token"));
    session.call("variable_set", set_key("y")).await;
    assert_eq!(session.core.wanted("variable-v"), ["x", "y"]);
    session
        .stream(
            "variable-future-received-confirm",
            confirm(&first),
            "reader",
        )
        .await;
    assert_eq!(session.core.wanted("variable-v"), ["x", "y"]);
    session
        .stream(
            "variable-future-received-confirm",
            confirm(&second),
            "reader",
        )
        .await;
    assert_eq!(session.core.wanted("variable-v"), ["y"]);
    assert_eq!(session.core.wanted("reader"), ["x"]);
}

#[tokio::test]
async fn a_future_that_is_set_again_is_not_released() {
    let session = with_tasks();
    session.call("variable_set", set_key("x")).await;
    let record = session.call("variable_get", get(None)).await;
    session.call("variable_set", set_key("y")).await;
    session.call("variable_set", set_key("x")).await;
    session
        .stream(
            "variable-future-received-confirm",
            confirm(&record),
            "reader",
        )
        .await;
    assert_eq!(session.core.wanted("variable-v"), ["x"]);
}

#[tokio::test]
async fn readers_that_vanish_hold_nothing_back() {
    let session = with_tasks();
    session.call("variable_set", set_key("x")).await;
    let reading = session.spawn("variable_get", get(None)).await;
    reading.await.unwrap().unwrap();
    session.call("variable_set", set_key("y")).await;
    assert_eq!(session.core.wanted("variable-v"), ["x", "y"]);
    session
        .ext
        .client_removed(&mut session.core.clone(), "reader");
    assert_eq!(session.core.wanted("variable-v"), ["y"]);
}

#[tokio::test]
async fn deleting_a_variable_forgets_its_client() {
    let session = with_tasks();
    session.call("variable_set", set_key("x")).await;
    let record = session.call("variable_get", get(None)).await;
    session
        .stream("variable_delete", [("name", "v".into())], "reader")
        .await;
    assert_eq!(session.core.wanted("variable-v"), ["x"]);
    assert_eq!(
        session.error("variable_get", get(Some(0.01))).await,
        "TimeoutError()"
    );
    session
        .stream(
            "variable-future-received-confirm",
            confirm(&record),
            "reader",
        )
        .await;
    assert!(!session.core.has_pseudo_client("variable-v"));
}

fn publish(name: &str, keys: &[&str], replace: bool, uid: u8) -> [(&'static str, Value); 6] {
    [
        ("names", Value::array([name])),
        (
            "keys",
            Value::Array(vec![Value::array(keys.iter().copied())]),
        ),
        ("data", Value::Array(vec![Value::Bin(vec![7].into())])),
        ("override", replace.into()),
        ("client", "writer".into()),
        ("uid", Value::Bin(vec![uid].into())),
    ]
}

fn mark(uid: u8) -> [(&'static str, Value); 1] {
    [("uid", Value::Bin(vec![uid].into()))]
}

#[tokio::test]
async fn datasets_wait_for_the_stream_of_their_client() {
    let session = Session::default();
    let putting = session
        .spawn("publish_put", publish("d", &["x"], false, 1))
        .await;
    session.core.add_task("x", "memory");
    session
        .stream("publish_flush_batched_send", mark(1), "writer")
        .await;
    putting.await.unwrap().unwrap();
    assert_eq!(session.core.wanted("published-d"), ["x"]);
    assert_eq!(session.call("publish_list", []).await, Value::array(["d"]));
    let found = session
        .call("publish_get", [("names", Value::array(["d", "e"]))])
        .await;
    let [dataset, missing] = found.as_array().unwrap() else {
        panic!()
    };
    assert_eq!(dataset.get("keys"), Some(&Value::array(["x"])));
    assert_eq!(dataset.get("data"), Some(&Value::Bin(vec![7].into())));
    assert!(missing.is_nil());
}

#[tokio::test]
async fn datasets_are_replaced_only_on_demand() {
    let session = with_tasks();
    for uid in 1..5 {
        session
            .stream("publish_flush_batched_send", mark(uid), "writer")
            .await;
    }
    session
        .call("publish_put", publish("d", &["x"], false, 1))
        .await;
    let error = session
        .error("publish_put", publish("d", &["y"], false, 2))
        .await;
    assert_eq!(error, "KeyError('Dataset d already exists')");
    session
        .call("publish_put", publish("d", &["y"], true, 3))
        .await;
    assert_eq!(session.core.wanted("published-d"), ["y"]);
    let delete = [
        ("names", Value::array(["d", "e"])),
        ("client", "writer".into()),
        ("uid", Value::Bin(vec![4].into())),
    ];
    session.call("publish_delete", delete).await;
    assert_eq!(session.core.wanted("published-d"), Vec::<String>::new());
    assert_eq!(session.call("publish_list", []).await, Value::Array(vec![]));
}

#[tokio::test]
async fn a_publisher_that_vanishes_is_not_waited_for() {
    let session = with_tasks();
    let putting = session
        .spawn("publish_put", publish("d", &["x"], false, 1))
        .await;
    session
        .ext
        .client_removed(&mut session.core.clone(), "writer");
    assert_eq!(putting.await.unwrap().unwrap_err().text, "TimeoutError()");
}
