use super::{Session, text};
use crate::protocol::{Key, Value};

async fn with_queue(max_size: i64) -> Session {
    let session = Session::default();
    session
        .call(
            "queue_create",
            [("name", "q".into()), ("maxsize", max_size.into())],
        )
        .await;
    session
}

fn put(data: i64) -> [(&'static str, Value); 3] {
    [
        ("name", "q".into()),
        ("data", data.into()),
        ("timeout", Value::Nil),
    ]
}

fn get(timeout: Option<f64>) -> [(&'static str, Value); 2] {
    [("name", "q".into()), ("timeout", timeout.into())]
}

async fn size(session: &Session) -> i64 {
    session
        .call("queue_qsize", [("name", "q".into())])
        .await
        .as_i64()
        .unwrap()
}

#[tokio::test]
async fn first_in_first_out() {
    let session = with_queue(0).await;
    for i in 0..3 {
        session.call("queue_put", put(i)).await;
    }
    assert_eq!(size(&session).await, 3);
    let first = session.call("queue_get", get(None)).await;
    assert_eq!(
        first,
        Value::map([("type", "msgpack".into()), ("value", 0i64.into())])
    );
    let rest = session
        .call("queue_get", [("name", "q".into()), ("batch", true.into())])
        .await;
    assert_eq!(rest.as_array().unwrap().len(), 2);
    let none = session
        .call("queue_get", [("name", "q".into()), ("batch", true.into())])
        .await;
    assert_eq!(none, Value::Array(vec![]));
}

#[tokio::test]
async fn errors_are_those_of_python() {
    let session = with_queue(0).await;
    assert_eq!(
        session.error("queue_get", get(Some(0.01))).await,
        "TimeoutError()"
    );
    assert_eq!(
        session
            .error("queue_qsize", [("name", "other".into())])
            .await,
        "KeyError('other')"
    );
    assert_eq!(
        session.error("queue_put", [("name", "other".into())]).await,
        "KeyError('other')"
    );
    let unknown = [
        ("name", "q".into()),
        ("key", "x".into()),
        ("timeout", 0.02.into()),
    ];
    assert_eq!(
        session.error("queue_put", unknown).await,
        "TimeoutError('Task x unknown to scheduler.')"
    );
    let both = [
        ("name", "q".into()),
        ("batch", 2i64.into()),
        ("timeout", 1.0.into()),
    ];
    assert!(
        session
            .error("queue_get", both)
            .await
            .starts_with("NotImplementedError(")
    );
    assert_eq!(
        session.error("queue_qsize", []).await,
        r#"TypeError("missing a required argument: 'name'")"#
    );
}

#[tokio::test]
async fn a_full_queue_makes_puts_wait_in_order() {
    let session = with_queue(1).await;
    session.call("queue_put", put(0)).await;
    let second = session.spawn("queue_put", put(1)).await;
    let gone = session.spawn("queue_put", put(2)).await;
    let last = session.spawn("queue_put", put(3)).await;
    let mut late = put(4);
    late[2].1 = 0.01.into();
    assert_eq!(session.error("queue_put", late).await, "TimeoutError()");
    gone.abort();
    assert!(gone.await.is_err());
    for expected in [0i64, 1, 3] {
        let record = session.call("queue_get", get(None)).await;
        assert_eq!(record.get("value"), Some(&expected.into()));
    }
    assert_eq!(second.await.unwrap().unwrap(), Value::Nil);
    assert_eq!(last.await.unwrap().unwrap(), Value::Nil);
    assert_eq!(size(&session).await, 0);
}

#[tokio::test]
async fn waiting_gets_are_served_in_order_and_leave_when_their_connection_does() {
    let session = with_queue(0).await;
    let gone = session.spawn("queue_get", get(None)).await;
    let first = session.spawn("queue_get", get(None)).await;
    let batch = session
        .spawn("queue_get", [("name", "q".into()), ("batch", 2i64.into())])
        .await;
    gone.abort();
    assert!(gone.await.is_err());
    for i in 0..4 {
        session.call("queue_put", put(i)).await;
        session.settle().await;
    }
    assert_eq!(
        first.await.unwrap().unwrap().get("value"),
        Some(&0i64.into())
    );
    assert_eq!(batch.await.unwrap().unwrap().as_array().unwrap().len(), 2);
    assert_eq!(size(&session).await, 1);
}

#[tokio::test]
async fn a_broken_off_batch_goes_back() {
    let session = with_queue(0).await;
    session.call("queue_put", put(0)).await;
    let batch = session
        .spawn("queue_get", [("name", "q".into()), ("batch", 2i64.into())])
        .await;
    assert_eq!(size(&session).await, 0);
    batch.abort();
    assert!(batch.await.is_err());
    assert_eq!(size(&session).await, 1);
}

#[tokio::test]
async fn a_future_is_kept_until_the_receiver_holds_it() {
    let session = with_queue(0).await;
    session.core.add_task("x", "memory");
    session.core.add_task("e", "erred");
    for key in ["x", "x", "e"] {
        session
            .call(
                "queue_put",
                [
                    ("name", "q".into()),
                    ("key", key.into()),
                    ("timeout", Value::Nil),
                ],
            )
            .await;
    }
    assert_eq!(session.core.wanted("queue-q"), ["e", "x"]);
    for _ in 0..2 {
        let record = session.call("queue_get", get(None)).await;
        assert_eq!(
            (
                text(&record, "type"),
                text(&record, "value"),
                text(&record, "state")
            ),
            ("Future", "x", "memory")
        );
    }
    let received = [("name", "q".into()), ("key", "x".into())];
    session
        .stream("queue-future-release", received.clone(), "client")
        .await;
    assert_eq!(session.core.wanted("queue-q"), ["e", "x"]);
    session
        .stream("queue-future-release", received, "client")
        .await;
    assert_eq!(session.core.wanted("queue-q"), ["e"]);
    assert_eq!(session.core.wanted("client"), ["x"]);
    let erred = session.call("queue_get", get(None)).await;
    assert_eq!(erred.get("exception"), Some(&Value::Bin(vec![1].into())));
    assert_eq!(erred.get("traceback"), Some(&Value::Nil));
}

#[tokio::test]
async fn a_put_waits_for_its_key() {
    let session = with_queue(0).await;
    let waiting = session
        .spawn(
            "queue_put",
            [
                ("name", "q".into()),
                ("key", "x".into()),
                ("timeout", 5.0.into()),
            ],
        )
        .await;
    session.core.add_task("x", "waiting");
    waiting.await.unwrap().unwrap();
    assert_eq!(session.core.wanted("queue-q"), ["x"]);
}

#[tokio::test]
async fn the_last_client_closes_the_queue() {
    let session = with_queue(1).await;
    session.call("queue_create", [("name", "q".into())]).await;
    session.core.add_task("x", "memory");
    session
        .call("queue_put", [("name", "q".into()), ("key", "x".into())])
        .await;
    let waiting = session
        .spawn("queue_put", [("name", "q".into()), ("key", "x".into())])
        .await;
    session
        .stream("queue_release", [("name", "q".into())], "one")
        .await;
    assert_eq!(size(&session).await, 1);
    session
        .stream("queue_release", [("name", "q".into())], "two")
        .await;
    assert_eq!(session.core.wanted("queue-q"), Vec::<String>::new());
    assert_eq!(waiting.await.unwrap().unwrap_err().text, "KeyError('q')");
    session
        .stream("queue_release", [("name", "q".into())], "three")
        .await;
}

#[tokio::test]
async fn names_may_be_tuples() {
    let session = Session::default();
    let name = Key::from_value(&Value::array(["a", "b"])).unwrap();
    session
        .call("queue_create", [("name", name.to_value())])
        .await;
    assert_eq!(
        session
            .call("queue_qsize", [("name", name.to_value())])
            .await,
        Value::Int(0)
    );
}
