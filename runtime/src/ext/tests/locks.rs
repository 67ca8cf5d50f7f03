use std::time::Duration;

use super::Session;
use crate::ext::semaphores::Semaphores;
use crate::ext::{Out, Ticket};
use crate::protocol::{Key, Value};

async fn with_semaphore(max_leases: i64) -> Session {
    let session = Session::default();
    session
        .call(
            "semaphore_register",
            [
                ("name", "s".into()),
                ("max_leases", max_leases.into()),
                ("lease_timeout", 30i64.into()),
            ],
        )
        .await;
    session
}

fn acquire(lease: &'static str, timeout: Option<f64>) -> [(&'static str, Value); 3] {
    [
        ("name", "s".into()),
        ("lease_id", lease.into()),
        ("timeout", timeout.into()),
    ]
}

fn lease(lease: &'static str) -> [(&'static str, Value); 2] {
    [("name", "s".into()), ("lease_id", lease.into())]
}

async fn value(session: &Session) -> i64 {
    session
        .call("semaphore_value", [("name", "s".into())])
        .await
        .as_i64()
        .unwrap()
}

#[tokio::test]
async fn leases_go_to_those_who_waited_longest() {
    let session = with_semaphore(1).await;
    assert_eq!(
        session.call("semaphore_acquire", acquire("a", None)).await,
        Value::Bool(true)
    );
    assert_eq!(
        session.call("semaphore_acquire", acquire("a", None)).await,
        Value::Bool(true)
    );
    assert_eq!(value(&session).await, 1);
    assert_eq!(
        session
            .call("semaphore_acquire", acquire("z", Some(0.01)))
            .await,
        Value::Bool(false)
    );
    let gone = session.spawn("semaphore_acquire", acquire("b", None)).await;
    let second = session
        .spawn("semaphore_acquire", acquire("c", Some(9.0)))
        .await;
    assert_eq!(session.ext.semaphore_metrics()[0].pending_leases, 2);
    gone.abort();
    assert!(gone.await.is_err());
    session.call("semaphore_release", lease("a")).await;
    assert_eq!(second.await.unwrap().unwrap(), Value::Bool(true));
    session.call("semaphore_release", lease("a")).await;
    assert_eq!(value(&session).await, 1);
    let metrics = &session.ext.semaphore_metrics()[0];
    assert_eq!(
        (
            metrics.acquire_total,
            metrics.release_total,
            metrics.pending_leases
        ),
        (3, 1, 0)
    );
}

#[tokio::test]
async fn a_lease_given_to_a_lost_connection_is_handed_on() {
    let session = with_semaphore(1).await;
    session.call("semaphore_acquire", acquire("a", None)).await;
    let gone = session.spawn("semaphore_acquire", acquire("b", None)).await;
    // Released, but the waiting request has had no time to notice.
    let released = session.try_call("semaphore_release", lease("a"));
    released.await.unwrap();
    gone.abort();
    assert!(gone.await.is_err());
    assert_eq!(value(&session).await, 0);
    assert_eq!(
        session
            .call("semaphore_acquire", acquire("c", Some(0.0)))
            .await,
        Value::Bool(true)
    );
}

#[tokio::test]
async fn semaphore_errors_are_those_of_python() {
    let session = with_semaphore(2).await;
    let other = [("name", "s".into()), ("max_leases", 3i64.into())];
    assert_eq!(
        session.error("semaphore_register", other).await,
        "ValueError('Inconsistent max leases: 3, expected: 2')"
    );
    let unknown = [("name", "t".into()), ("lease_id", "a".into())];
    assert_eq!(
        session.error("semaphore_acquire", unknown.clone()).await,
        "RuntimeError('Semaphore or Lock `t` not known.')"
    );
    assert_eq!(session.call("semaphore_release", unknown).await, Value::Nil);
    session
        .call("semaphore_close", [("name", "s".into())])
        .await;
    assert_eq!(
        session.error("semaphore_acquire", acquire("a", None)).await,
        "RuntimeError('Semaphore or Lock `s` not known.')"
    );
}

#[test]
fn leases_expire_unless_refreshed() {
    let mut semaphores = Semaphores::default();
    let name = Key::new_str("s");
    let mut out = Out::default();
    semaphores.register(name.clone(), 2, Some(30.0)).unwrap();
    assert!(
        semaphores
            .acquire(&name, "a".into(), Ticket(1), 0.0)
            .unwrap()
    );
    assert!(
        semaphores
            .acquire(&name, "b".into(), Ticket(2), 0.0)
            .unwrap()
    );
    assert!(
        !semaphores
            .acquire(&name, "c".into(), Ticket(3), 10.0)
            .unwrap()
    );
    assert_eq!(
        semaphores.refresh(&name, &["a".into()], 20.0),
        Vec::<crate::protocol::Str>::new()
    );
    assert_eq!(semaphores.expire(30.0, &mut out), 0);
    assert_eq!(semaphores.expire(31.0, &mut out), 1);
    assert_eq!(out.wakes, [Ticket(3)]);
    assert_eq!(semaphores.collect(&name, Ticket(3)), Some(Ok(true)));
    assert_eq!(semaphores.refresh(&name, &["b".into()], 32.0), ["b"]);
    assert_eq!(semaphores.value(&name), 3);
    assert_eq!(semaphores.metrics()[0].average_pending_lease_time_s, 10.5);
}

fn multi(
    id: &'static str,
    locks: &[&str],
    n: i64,
    timeout: Option<f64>,
) -> [(&'static str, Value); 4] {
    [
        ("id", id.into()),
        ("locks", Value::array(locks.iter().copied())),
        ("num_locks", n.into()),
        ("timeout", timeout.into()),
    ]
}

#[tokio::test]
async fn several_locks_at_once() {
    let session = Session::default();
    assert_eq!(
        session
            .call("multi_lock_acquire", multi("1", &["a", "b"], 2, None))
            .await,
        Value::Bool(true)
    );
    let second = session
        .spawn("multi_lock_acquire", multi("2", &["b", "c"], 2, None))
        .await;
    assert_eq!(
        session
            .call("multi_lock_acquire", multi("3", &["a"], 1, Some(0.01)))
            .await,
        Value::Bool(false)
    );
    assert_eq!(
        session
            .call("multi_lock_acquire", multi("4", &["a", "d"], 1, Some(0.01)))
            .await,
        Value::Bool(true)
    );
    let fifth = session
        .spawn("multi_lock_acquire", multi("5", &["c"], 1, None))
        .await;
    second.abort();
    assert!(second.await.is_err());
    assert_eq!(fifth.await.unwrap().unwrap(), Value::Bool(true));
    let sixth = session
        .spawn("multi_lock_acquire", multi("6", &["a", "b"], 2, Some(9.0)))
        .await;
    session
        .call("multi_lock_release", [("id", "1".into())])
        .await;
    assert_eq!(sixth.await.unwrap().unwrap(), Value::Bool(true));
    assert_eq!(
        session
            .error("multi_lock_release", [("id", "1".into())])
            .await,
        "KeyError('1')"
    );
    assert!(
        session
            .error("multi_lock_acquire", multi("7", &["a"], 2, None))
            .await
            .starts_with("AssertionError(")
    );
}

#[tokio::test]
async fn events() {
    let session = Session::default();
    let name = || [("name", Value::from("e"))];
    let wait = |timeout: Option<f64>| [("name", "e".into()), ("timeout", timeout.into())];
    assert_eq!(
        session.call("event_is_set", name()).await,
        Value::Bool(false)
    );
    assert_eq!(
        session.call("event_wait", wait(Some(0.01))).await,
        Value::Bool(false)
    );
    let gone = session.spawn("event_wait", wait(None)).await;
    let first = session.spawn("event_wait", wait(None)).await;
    let second = session.spawn("event_wait", wait(Some(9.0))).await;
    gone.abort();
    assert!(gone.await.is_err());
    session.call("event_set", name()).await;
    session.call("event_clear", name()).await;
    assert_eq!(first.await.unwrap().unwrap(), Value::Bool(true));
    assert_eq!(second.await.unwrap().unwrap(), Value::Bool(true));
    assert_eq!(
        session.call("event_is_set", name()).await,
        Value::Bool(false)
    );
    session.call("event_set", name()).await;
    assert_eq!(
        session.call("event_wait", wait(None)).await,
        Value::Bool(true)
    );
}

#[tokio::test]
async fn leases_are_checked_in_the_background() {
    let session = Session::default();
    session
        .call(
            "semaphore_register",
            [
                ("name", "s".into()),
                ("max_leases", 1i64.into()),
                ("lease_timeout", 0.05.into()),
            ],
        )
        .await;
    let ext = session.ext.clone();
    let checks =
        tokio::spawn(async move { ext.expire_leases_every(Duration::from_millis(10)).await });
    session.call("semaphore_acquire", acquire("a", None)).await;
    assert_eq!(
        session
            .call("semaphore_acquire", acquire("b", Some(5.0)))
            .await,
        Value::Bool(true)
    );
    checks.abort();
}
