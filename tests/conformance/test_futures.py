"""submit, map, gather and what a Future goes through."""

import concurrent.futures
import gc
import time
import traceback

import dask
import pytest
from distributed import Future, as_completed, fire_and_forget, wait
from distributed.client import FutureCancelledError
from harness import holders, state, wait_until
from helpers import add, address, boom, double, fail_until, inc, slow_inc, wait_for_file, worker_name


def test_s088_submit(client):
    future = client.submit(inc, 10)
    assert future.result(timeout=10) == 11
    assert future.status == "finished"
    assert client.submit(add, future, y=future).result() == 22


def test_s088_submit_pure_and_key(client):
    assert client.submit(inc, 1).key == client.submit(inc, 1).key
    assert client.submit(inc, 1, pure=False).key != client.submit(inc, 1, pure=False).key
    named = client.submit(inc, 1, key="my-own-key")
    assert named.key == "my-own-key" and named.result() == 2
    tupled = client.submit(inc, 2, key=("tupled", 3))
    assert tupled.result() == 3 and tupled.key == ("tupled", 3)
    assert holders(client, tupled.key)


def test_s088_submit_workers(client):
    for name in ("alice", "bob", "carol"):
        assert client.submit(worker_name, workers=[name], pure=False).result() == name
    addr = client.submit(address, workers="bob").result()
    futures = client.map(address, range(8), workers=[addr], pure=False)
    assert set(client.gather(futures)) == {addr}


def test_s088_allow_other_workers(client):
    future = client.submit(inc, 1, workers="nobody-of-this-name", allow_other_workers=True)
    assert future.result(timeout=20) == 2


def test_s088_unknown_worker_waits(client):
    future = client.submit(inc, 1, workers="tcp://127.0.0.1:1")
    with pytest.raises(TimeoutError):
        future.result(timeout=0.3)
    assert client.scheduler_info()
    assert state(client, future.key) == "no-worker"


def test_s088_submit_returns_at_once(client, tmp_path):
    flag = tmp_path / "go"
    before = time.perf_counter()
    future = client.submit(wait_for_file, str(flag), result=5)
    assert time.perf_counter() - before < 1 and future.status == "pending"
    flag.touch()
    assert future.result(timeout=10) == 5


def test_s088_priority(client, tmp_path):
    flag = tmp_path / "go"
    order = tmp_path / "order"

    def note(name):
        with open(order, "a") as f:
            f.write(name + "\n")

    blocker = client.submit(wait_for_file, str(flag), workers="bob")
    wait_until(lambda: any(blocker.key in keys for keys in client.processing().values()))
    low = client.submit(note, "low", workers="bob", priority=-10)
    mid = client.submit(note, "mid", workers="bob")
    high = client.submit(note, "high", workers="bob", priority=10)
    wait_until(lambda: sum(map(len, client.processing().values())) == 4)
    flag.touch()
    wait([low, mid, high], timeout=20)
    assert order.read_text().split() == ["high", "mid", "low"]


def test_s089_map(client):
    futures = client.map(inc, range(200))
    assert client.gather(futures) == list(range(1, 201))
    assert client.gather(client.map(add, [1, 2, 3], [10, 20, 30])) == [11, 22, 33]
    assert client.gather(client.map(slow_inc, range(3), delay=0)) == [1, 2, 3]
    assert client.gather(client.map(add, futures[:3], y=futures[5])) == [7, 8, 9]


def test_s089_map_batch_size_and_keys(client):
    futures = client.map(inc, range(1000), batch_size=100)
    assert sum(client.gather(futures)) == 500500
    named = client.map(inc, range(3), key=["k-a", "k-b", "k-c"])
    assert [f.key for f in named] == ["k-a", "k-b", "k-c"] and client.gather(named) == [1, 2, 3]


def test_s089_map_10k(client):
    futures = client.map(inc, range(10_000), pure=False)
    assert sum(client.gather(futures)) == 50_005_000


def test_s096_gather(client):
    futures = client.map(inc, range(1000))
    assert client.gather(futures, direct=False) == list(range(1, 1001))
    assert client.gather(futures, direct=True) == list(range(1, 1001))
    assert client.gather({"a": futures[0], "b": [futures[1]]}) == {"a": 1, "b": [2]}


def test_s096_gather_errors_skip(client):
    futures = [client.submit(inc, 1), client.submit(boom, 7)]
    with pytest.raises(ZeroDivisionError, match="boom 7"):
        client.gather(futures)
    assert client.gather(futures, errors="skip") == [2]


def test_s096_result_timeout(client, tmp_path):
    flag = tmp_path / "go"
    future = client.submit(wait_for_file, str(flag))
    with pytest.raises(TimeoutError):
        future.result(timeout=0.2)
    flag.touch()
    assert future.result(timeout=10) is None


def test_s058_error_and_traceback(client):
    future = client.submit(boom, 3)
    with pytest.raises(ZeroDivisionError, match="boom 3") as info:
        future.result()
    assert "raise ZeroDivisionError" in "".join(traceback.format_exception(info.value))
    assert isinstance(future.exception(), ZeroDivisionError)
    assert any("helpers.py" in line for line in traceback.format_tb(future.traceback()))
    assert future.status == "error"


def test_s058_error_reaches_dependents(client):
    bad = client.submit(boom, 1)
    later = client.submit(inc, client.submit(inc, bad))
    with pytest.raises(ZeroDivisionError):
        later.result(timeout=10)


def test_s058_chained_exception(client):
    def chained():
        try:
            int("x")
        except ValueError as e:
            raise RuntimeError("outer") from e

    error = client.submit(chained).exception()
    assert isinstance(error, RuntimeError) and isinstance(error.__cause__, ValueError)


def test_s058_unpicklable_exception(client):
    def odd():
        class Odd(Exception):
            def __reduce__(self):
                raise TypeError("cannot be pickled")

        raise Odd("strange message")

    future = client.submit(odd)
    with pytest.raises(Exception, match="strange message"):
        future.result(timeout=10)


def test_s036_unserialisable_result(client):
    import threading

    future = client.submit(threading.Lock)
    with pytest.raises(TypeError, match="lock"):
        future.result(timeout=20)
    assert client.submit(inc, 1).result(timeout=10) == 2


def test_s057_retries(client, tmp_path):
    assert client.submit(fail_until, str(tmp_path / "a"), 2, retries=2).result(timeout=20) == 3
    with pytest.raises(OSError, match="not yet"):
        client.submit(fail_until, str(tmp_path / "b"), 2, retries=1).result(timeout=20)
    assert client.gather(client.map(fail_until, [str(tmp_path / "c"), str(tmp_path / "d")], [1, 1], retries=5)) == [
        2,
        2,
    ]
    value = dask.delayed(fail_until)(str(tmp_path / "e"), 2)
    assert client.compute(value, retries=2).result(timeout=20) == 3


def test_s057_future_retry(client, tmp_path):
    first = client.submit(fail_until, str(tmp_path / "f"), 1)
    later = client.submit(inc, first)
    wait(later)
    assert later.status == "error"
    later.retry()
    assert later.result(timeout=10) == 3


def test_s092_release_on_gc(client):
    future = client.submit(inc, 41)
    key = future.key
    assert future.result() == 42
    assert state(client, key) == "memory"
    del future
    gc.collect()
    wait_until(lambda: not holders(client, key), 5)
    wait_until(lambda: state(client, key) is None, 5)


def test_s092_dependency_kept_for_dependent(client, tmp_path):
    flag = tmp_path / "go"
    first = client.submit(inc, 1)
    second = client.submit(lambda x, _: x + 1, first, client.submit(wait_for_file, str(flag)))
    del first
    gc.collect()
    flag.touch()
    assert second.result(timeout=10) == 3


def test_s093_cancel(client, tmp_path):
    flag = tmp_path / "go"
    blocker = client.submit(wait_for_file, str(flag), workers="bob")
    queued = client.submit(inc, blocker)
    queued.cancel()
    wait_until(lambda: queued.cancelled(), 5)
    assert queued.status == "cancelled" and "cancelled" in repr(queued)
    with pytest.raises(FutureCancelledError):
        queued.result(timeout=5)
    flag.touch()
    assert blocker.result(timeout=10) is None


def test_s093_cancel_reason_and_dependents(client, tmp_path):
    flag = tmp_path / "go"
    first = client.submit(wait_for_file, str(flag))
    second = client.submit(inc, first)
    client.cancel([first], force=True, reason="because", msg="of a test")
    with pytest.raises(FutureCancelledError, match="because"):
        first.result(timeout=5)
    wait_until(lambda: second.status == "cancelled", 5)
    flag.touch()


def test_s093_cancel_keeps_what_others_want(client, client2):
    mine = client.submit(inc, 100, key="shared-key")
    theirs = client2.submit(inc, 100, key="shared-key")
    wait([mine])
    assert theirs.result(timeout=10) == 101
    client.cancel([mine])
    assert theirs.result(timeout=10) == 101


def test_s094_status(client, tmp_path):
    flag = tmp_path / "go"
    pending = client.submit(wait_for_file, str(flag))
    assert pending.status == "pending" and not pending.done()
    finished = client.submit(inc, 1)
    error = client.submit(boom)
    wait([finished, error])
    assert finished.done() and finished.status == "finished"
    assert error.status == "error" and "error" in repr(error)
    pending.cancel()
    wait_until(lambda: pending.status == "cancelled", 5)
    flag.touch()


@pytest.mark.cluster(workers=1)
def test_s094_status_lost(own):
    cluster, client = own
    [future] = client.scatter([1])
    assert future.status == "finished"
    cluster.workers[0].kill()
    wait_until(lambda: future.status in ("lost", "cancelled"), 20)


def test_s095_fire_and_forget(client, client2, tmp_path):
    flag, out = tmp_path / "go", tmp_path / "out"

    def write(_):
        out.write_text("done")

    future = client2.submit(write, client2.submit(wait_for_file, str(flag)))
    fire_and_forget(future)
    key = future.key
    wait_until(lambda: state(client, key) is not None, 5)
    del future
    client2.close()
    flag.touch()
    wait_until(out.exists, 10)
    wait_until(lambda: state(client, key) is None, 10)


def test_s097_as_completed(client, tmp_path):
    flags = [tmp_path / name for name in "abc"]
    futures = [client.submit(wait_for_file, str(flag), result=i) for i, flag in enumerate(flags)]
    results = as_completed(futures, with_results=True)
    seen = []
    for i in (2, 0, 1):
        flags[i].touch()
        seen.append(next(results)[1])
    assert seen == [2, 0, 1]


def test_s097_as_completed_add_and_batches(client):
    seq = as_completed(client.map(inc, range(5)))
    total, extra = 0, 3
    for future in seq:
        total += future.result()
        if extra:
            extra -= 1
            seq.add(client.submit(double, extra, pure=False))
    assert total == 15 + 6
    batches = as_completed(client.map(inc, range(20)), with_results=True).batches()
    assert sorted(r for batch in batches for _, r in batch) == list(range(1, 21))


def test_s097_as_completed_raise_errors(client):
    futures = [client.submit(boom, 1), client.submit(inc, 1)]
    found = dict(as_completed(futures, with_results=True, raise_errors=False))
    assert found[futures[1]] == 2 and found[futures[0]][0] is ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        list(as_completed(futures, with_results=True))


def test_s098_wait(client, tmp_path):
    flag = tmp_path / "go"
    slow = client.submit(wait_for_file, str(flag))
    fast = client.submit(inc, 1)
    done, not_done = wait([slow, fast], return_when="FIRST_COMPLETED", timeout=10)
    assert done == {fast} and not_done == {slow}
    with pytest.raises(TimeoutError):
        wait([slow, fast], timeout=0.2)
    flag.touch()
    assert wait([slow, fast], timeout=10).not_done == set()


def test_s099_future_starts_before_result(client, tmp_path):
    out = tmp_path / "started"
    future = client.submit(out.touch)
    lazy = dask.delayed((tmp_path / "lazy").touch)()
    wait_until(out.exists, 10)
    assert not (tmp_path / "lazy").exists()
    client.compute(lazy).result()
    assert (tmp_path / "lazy").exists() and future.done()


def test_s015_parallel_speed_up(own):
    cluster, client = own
    futures = client.map(slow_inc, range(8), delay=0)
    wait(futures)
    before = time.perf_counter()
    client.gather(client.map(slow_inc, range(8), delay=0.25, pure=False))
    assert time.perf_counter() - before < 1.8, "eight tasks of 0.25 s on two threads take one second"


def test_future_callback_and_repr(client):
    seen = concurrent.futures.Future()
    future = client.submit(inc, 1)
    future.add_done_callback(lambda f: seen.set_result(f.result()))
    assert seen.result(timeout=10) == 2
    assert "int" in repr(future) and "finished" in repr(future)


def test_future_by_key(client):
    future = client.submit(inc, 5, key="by-key")
    wait([future])
    assert Future("by-key", client).result(timeout=10) == 6


def test_submit_many_small(client):
    futures = [client.submit(inc, i, pure=False) for i in range(500)]
    assert sum(client.gather(futures)) == sum(range(1, 501))


def test_large_argument_and_result(client):
    data = bytes(8_000_000)
    future = client.submit(len, data)
    assert future.result(timeout=20) == 8_000_000
    assert len(client.submit(bytes, 12_000_000).result(timeout=20)) == 12_000_000


def test_missing_task_argument_is_a_clear_error(client):
    with pytest.raises(TypeError, match="positional"):
        client.submit(add, 1).result(timeout=10)
