"""Tasks that use the cluster themselves, actors, and what the scheduler tells about tasks."""

import time

import dask
import pytest
from dask import delayed
from distributed import (
    as_completed,
    get_client,
    get_task_stream,
    get_worker,
    rejoin,
    secede,
    wait,
    worker_client,
)
from harness import state, wait_until
from helpers import Counter, add, boom, inc, slow_inc, wait_for_file


def fib(n):
    if n < 2:
        return n
    client = get_client()
    parts = client.map(fib, [n - 1, n - 2])
    secede()
    total = sum(client.gather(parts))
    rejoin()
    return total


def nested_compute(depth):
    if depth == 0:
        return 1
    parts = [delayed(nested_compute)(depth - 1) for _ in range(2)]
    with worker_client():
        return sum(dask.compute(*parts))


def test_s100_get_client_recursive(client):
    assert client.submit(fib, 8).result(timeout=60) == 21


def test_s100_worker_client(client):
    def parent(n):
        with worker_client() as inner:
            return sum(inner.gather(inner.map(inc, range(n))))

    assert client.submit(parent, 10).result(timeout=20) == 55


def test_s100_secede_frees_the_thread(client, tmp_path):
    flag = tmp_path / "go"

    def leave():
        secede()
        return wait_for_file(str(flag), result="left")

    left = client.submit(leave, workers="bob")
    wait_until(lambda: state(client, left.key) == "processing")
    assert client.submit(inc, 1, workers="bob").result(timeout=10) == 2
    flag.touch()
    assert left.result(timeout=10) == "left"


@pytest.mark.cluster(workers=1)
def test_s016_nested_on_one_thread(own):
    _, client = own
    assert client.submit(nested_compute, 3).result(timeout=60) == 8


def test_s107_actor(client):
    counter = client.submit(Counter, 10, actor=True).result(timeout=10)
    assert counter.increment().result() == 11
    assert [counter.increment(2).result() for _ in range(3)] == [13, 15, 17]
    assert counter.n == 17
    with pytest.raises(ValueError, match="actor says no"):
        counter.fail().result()


def test_s107_actors_are_distinct(client):
    futures = [client.submit(Counter, actor=True) for _ in range(3)]
    actors = [f.result(timeout=10) for f in futures]
    for i, actor in enumerate(actors):
        actor.increment(i + 1).result()
    assert [a.n for a in actors] == [1, 2, 3]


def test_s107_actor_used_by_tasks(client):
    counter = client.submit(Counter, actor=True).result(timeout=10)

    def use(actor):
        return actor.increment().result()

    assert sorted(client.gather(client.map(use, [counter] * 5, pure=False))) == [1, 2, 3, 4, 5]


def test_s111_actor_lost_with_its_worker(make_cluster):
    cluster = make_cluster(2)
    with cluster.client(set_as_default=True) as client:
        client.wait_for_workers(2)
        future = client.submit(Counter, actor=True, workers="w1", allow_other_workers=True)
        actor = future.result(timeout=10)
        assert actor.increment().result() == 1
        cluster.workers[0].kill()
        with pytest.raises((OSError, ValueError, RuntimeError)):
            for _ in range(200):
                actor.increment().result(timeout=5)
        assert client.submit(inc, 1).result(timeout=20) == 2


def test_call_stack(client, tmp_path):
    flag = tmp_path / "go"
    future = client.submit(wait_for_file, str(flag))
    wait_until(lambda: state(client, future.key) == "processing")
    wait_until(lambda: client.call_stack([future]), 10)
    stack = client.call_stack([future])
    assert any("wait_for_file" in line for keys in stack.values() for lines in keys.values() for line in lines)
    assert future.key in next(iter(client.call_stack(keys=[future.key]).values()))
    flag.touch()
    wait(future)


def test_story(client):
    future = client.submit(inc, 1, key="told")
    wait(future)
    story = client.story("told")
    moves = [line[2:4] for line in story if line[0] == "scheduler"]
    assert moves == [("released", "waiting"), ("waiting", "processing"), ("processing", "memory")]
    assert {line[0] for line in story} - {"scheduler"} <= set(client.ncores())


def test_profile(client):
    def spin(seconds):
        stop = time.perf_counter() + seconds
        while time.perf_counter() < stop:
            sum(range(1000))

    client.gather(client.map(spin, [0.4] * 3, pure=False))

    def seen():
        return client.profile()["count"]

    assert wait_until(seen, 10) > 0
    assert "children" in client.profile(key="spin")
    assert client.profile(scheduler=True)["identifier"] == "root"


def test_s206_get_task_stream(client, tmp_path):
    with get_task_stream(client, plot="save", filename=str(tmp_path / "stream.html")) as stream:
        futures = client.map(slow_inc, range(10), delay=0.01, pure=False)
        wait(futures)
        bad = client.submit(boom)
        wait(bad)
    assert len(stream.data) == 11
    one = next(r for r in stream.data if r["key"] == futures[0].key)
    expected = "key worker status nbytes thread type typename metadata startstops stimulus_id"
    assert set(expected.split()) <= set(one)
    assert one["startstops"][0]["action"] in ("compute", "transfer")
    assert one["startstops"][0]["stop"] > one["startstops"][0]["start"]
    assert {r["status"] for r in stream.data} == {"OK", "error"}
    assert (tmp_path / "stream.html").stat().st_size > 1000
    assert len(client.get_task_stream(count=3)) == 3


def test_s193_task_stream_has_a_record_per_task(client):
    client.get_task_stream()
    futures = client.map(inc, range(200), pure=False)
    wait(futures)
    keys = {f.key for f in futures}
    assert len([r for r in client.get_task_stream(start="60s") if r["key"] in keys]) == 200


def test_s195_counts_by_prefix(client):
    futures = client.map(inc, range(20), pure=False)
    bad = client.submit(boom)
    wait([*futures, bad])
    states = client.sync(client.scheduler.get_task_prefix_states)
    assert states["inc"]["memory"] == 20 and states["boom"]["erred"] == 1


def test_get_task_metadata(client):
    from distributed import get_task_metadata

    with get_task_metadata() as tasks:
        future = client.submit(slow_inc, 1, delay=0.01)
        future.result()
    assert tasks.state[future.key] == "memory"
    assert future.key in tasks.metadata


def test_recreate_error_and_task_locally(client):
    bad = client.submit(add, 1, "x")
    wait(bad)
    with pytest.raises(TypeError):
        client.recreate_error_locally(bad)
    good = client.submit(inc, 1)
    assert client.recreate_task_locally(good) == 2


def test_set_restrictions_through_retry(client):
    future = client.submit(boom)
    wait(future)
    client.retry([future])
    wait(future)
    assert future.status == "error"


def test_worker_state_seen_by_tasks(client):
    def look():
        worker = get_worker()
        return worker.name, worker.address, worker.scheduler.address

    name, address, scheduler = client.submit(look, workers="carol").result()
    assert name == "carol" and address in client.ncores() and scheduler == client.scheduler.address


def test_as_completed_of_nested(client):
    def spread(n):
        with worker_client() as inner:
            return [f.result() for f in as_completed(inner.map(inc, range(n)))]

    assert sorted(client.submit(spread, 6).result(timeout=20)) == [1, 2, 3, 4, 5, 6]
