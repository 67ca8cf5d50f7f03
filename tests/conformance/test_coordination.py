"""Lock, Semaphore, Event, Queue, Variable, MultiLock, between clients and tasks."""

import time

import pytest
from distributed import Event, Lock, MultiLock, Queue, Semaphore, Variable
from harness import wait_until
from helpers import inc


def exclusive(name, path, kind):
    """Enters the lock; 1 if nobody else was inside."""
    import os

    lock = {"lock": Lock, "multi": lambda n: MultiLock([n, n + "-2"])}[kind](name)
    with lock:
        mine = os.path.join(path, f"{os.getpid()}-{time.time()}")
        open(mine, "w").close()
        inside = len(os.listdir(path))
        time.sleep(0.01)
        os.unlink(mine)
    return inside


@pytest.mark.parametrize("kind", ["lock", "multi"])
def test_s103_lock_excludes(client, tmp_path, kind):
    where = tmp_path / "inside"
    where.mkdir()
    futures = client.map(exclusive, [f"lock-{kind}"] * 8, [str(where)] * 8, kind=kind, pure=False)
    assert set(client.gather(futures)) == {1}


def test_s103_lock_timeout(client, client2):
    lock = Lock("held", scheduler_rpc=client.scheduler, loop=client.loop)
    assert lock.acquire(timeout=5)
    other = Lock("held", scheduler_rpc=client2.scheduler, loop=client2.loop)
    assert other.locked()
    assert not other.acquire(timeout=0.2)
    assert not other.acquire(blocking=False)
    lock.release()
    assert other.acquire(timeout=5)
    other.release()


def test_s103_multilock(client, client2):
    ab, bc = MultiLock(["a", "b"], client=client), MultiLock(["b", "c"], client=client2)
    assert ab.acquire(timeout=5)
    assert not bc.acquire(timeout=0.2)
    c = MultiLock(["c"], client=client2)
    assert c.acquire(timeout=5)
    c.release()
    ab.release()
    assert bc.acquire(timeout=5)
    bc.release()


def test_s103_semaphore(client):
    semaphore = Semaphore(max_leases=2, name="two-at-once")

    def enter(s):
        with s:
            n = s.get_value()
            time.sleep(0.02)
            return n

    assert max(client.gather(client.map(enter, [semaphore] * 8, pure=False))) <= 2
    assert semaphore.acquire(timeout=1) and semaphore.acquire(timeout=1)
    assert not semaphore.acquire(timeout=0.2)
    assert semaphore.get_value() == 2
    semaphore.release()
    assert semaphore.get_value() == 1
    semaphore.release()
    semaphore.close()


@pytest.mark.cluster(
    workers=2,
    config={
        "distributed.scheduler.locks.lease-validation-interval": "100ms",
        "distributed.scheduler.locks.lease-timeout": "1s",
    },
)
def test_s103_lease_of_a_killed_worker_is_freed(own):
    cluster, client = own
    held = Event("held", client=client)

    def hold():
        Lock("leased").acquire()
        Event("held").set()
        time.sleep(60)

    holder = client.submit(hold, workers="w1")
    assert held.wait(timeout=10)
    cluster.workers[0].kill()
    assert Lock("leased").acquire(timeout=20)
    holder.cancel()


def test_s104_event(client, client2):
    event = Event("starting-gun", client=client)
    assert not event.is_set()
    assert not event.wait(timeout=0.1)

    def waiter():
        return Event("starting-gun").wait(timeout=20)

    future = client.submit(waiter)
    Event("starting-gun", client=client2).set()
    assert future.result(timeout=10) is True and event.is_set()
    event.clear()
    assert not event.is_set()


def test_s101_variable(client, client2):
    variable = Variable("v", client=client)
    with pytest.raises(TimeoutError):
        variable.get(timeout=0.1)
    variable.set(5)
    assert Variable("v", client=client2).get(timeout=5) == 5
    assert client.submit(lambda: Variable("v").get(timeout=5)).result(timeout=10) == 5
    client.submit(lambda: Variable("v").set("from a task")).result(timeout=10)
    assert variable.get() == "from a task"
    variable.delete()
    wait_until(lambda: _unset(variable), 5)


def _unset(variable):
    try:
        variable.get(timeout=0.05)
    except TimeoutError:
        return True
    return False


def test_s101_variable_keeps_future(client, client2):
    variable = Variable("kept", client=client)
    future = client.submit(inc, 1, pure=False)
    variable.set(future)
    key = future.key
    del future
    got = Variable("kept", client=client2).get(timeout=5)
    assert got.key == key and got.result(timeout=5) == 2
    variable.delete()


def test_s106_same_name_same_object(client, client2):
    Variable("common", client=client).set(1)
    assert Variable("common", client=client2).get(timeout=5) == 1
    Queue("common-q", client=client).put("x")
    assert Queue("common-q", client=client2).get(timeout=5) == "x"
    Variable("common", client=client).delete()
    Queue("common-q", client=client).close()


def test_s102_queue(client, client2):
    queue = Queue("q", client=client)
    other = Queue("q", client=client2)
    for i in range(3):
        queue.put(i)
    assert other.qsize() == 3
    assert other.get(timeout=5) == 0
    assert other.get(batch=2) == [1, 2]
    with pytest.raises(TimeoutError):
        queue.get(timeout=0.1)
    queue.put({"deep": {"er": (1, "two", None)}})
    assert other.get(timeout=5) == {"deep": {"er": (1, "two", None)}}
    queue.close()


def test_s102_queue_of_futures(client, client2):
    queue = Queue("futures", client=client)
    future = client.submit(inc, 10, pure=False)
    queue.put(future)
    del future
    assert Queue("futures", client=client2).get(timeout=5).result(timeout=5) == 11

    def producer():
        for i in range(3):
            Queue("futures").put(i)

    client.submit(producer).result(timeout=10)
    assert queue.get(batch=True) == [0, 1, 2]
    queue.close()


def test_s102_queue_maxsize(client, client2):
    queue = Queue("small", client=client, maxsize=1)
    queue.put(1)
    with pytest.raises(TimeoutError):
        queue.put(2, timeout=0.1)
    assert Queue("small", client=client2).get(timeout=5) == 1
    queue.put(2, timeout=5)
    assert queue.get(timeout=5) == 2
    queue.close()


def test_s102_blocked_getter_is_served(client):
    queue = Queue("late", client=client)
    future = client.submit(lambda: Queue("late").get(timeout=20))
    wait_until(lambda: any(client.processing().values()))
    queue.put("arrived")
    assert future.result(timeout=10) == "arrived"
    queue.close()
