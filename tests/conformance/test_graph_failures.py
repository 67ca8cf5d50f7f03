"""Graphs that fail while they are built: a clear error for their client, nothing for anybody else."""

import os
import signal
import traceback

import pytest
from dask import delayed
from dask._expr import LLGExpr
from dask._task_spec import Task
from distributed import wait
from harness import STOCK, children, wait_until
from helpers import double, inc

ours = pytest.mark.skipif(STOCK, reason="the stock scheduler runs such a graph in its own process")


class Failing(LLGExpr):
    """An expression that does something when the scheduler side materialises it."""

    _parameters = ["dsk", "action"]

    def _layer(self):
        act(self.operand("action"))
        return super()._layer()

    def __dask_graph__(self):
        act(self.operand("action"))
        return super().__dask_graph__()


def act(action):
    # Only in the process that materialises graphs, not in the client that builds this one.
    if os.getpid() == int(action.rsplit(":", 1)[1]):
        return
    kind = action.split(":")[0]
    if kind == "raise":
        raise RuntimeError("the graph says no")
    if kind == "exit":
        os._exit(42)
    if kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "system-exit":
        raise SystemExit(3)
    if kind == "recurse":
        act(action)


def submit(client, action, key):
    """Sends a failing graph as `Client._graph_to_futures` would."""
    expr = Failing({key: Task(key, inc, 1)}, f"{action}:{os.getpid()}")
    return client._graph_to_futures(expr, [key], span_metadata=_no_span())[key]


def _no_span():
    from distributed.spans import SpanMetadata

    return SpanMetadata(collections=[])


def bystander_is_served(client):
    assert client.submit(double, os.getpid(), pure=False).result(timeout=30) == 2 * os.getpid()


def test_graph_raises(client, client2):
    future = submit(client, "raise", "graph-raises")
    with pytest.raises(RuntimeError, match="the graph says no"):
        future.result(timeout=30)
    bystander_is_served(client2)


@ours
@pytest.mark.parametrize("action", ["exit", "segfault", "system-exit", "recurse"])
def test_graph_crashes_its_process(client, client2, action):
    future = submit(client, action, f"graph-{action}")
    with pytest.raises(Exception) as info:
        future.result(timeout=40)
    assert not isinstance(info.value, TimeoutError)
    assert str(info.value)
    bystander_is_served(client2)
    bystander_is_served(client)


def test_missing_module(client, client2, tmp_path, monkeypatch):
    """The client has a module that the scheduler side has not: the error names it."""
    (tmp_path / "only_the_client_has_it.py").write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_the_client_has_it

    future = client.submit(only_the_client_has_it.f, 1)
    with pytest.raises(Exception) as info:
        future.result(timeout=30)
    assert "only_the_client_has_it" in "".join(traceback.format_exception(info.value))
    bystander_is_served(client2)


def test_unpicklable_argument_fails_in_the_client(client):
    import threading

    with pytest.raises(TypeError):
        client.submit(inc, threading.Lock()).result(timeout=10)
    bystander_is_served(client)


def test_object_that_cannot_be_unpickled(client, client2):
    class Bad:
        def __reduce__(self):
            return divide, (1, 0)

    future = client.submit(double, Bad())
    with pytest.raises(Exception):
        future.result(timeout=30)
    bystander_is_served(client2)


def divide(a, b):
    return a / b


def test_cycle(client):
    with pytest.raises(Exception, match="[Cc]ycle|depend"):
        client.get({"a": (inc, "b"), "b": (inc, "a")}, "a")
    bystander_is_served(client)


def test_dependency_that_does_not_exist(client):
    from dask._task_spec import TaskRef

    expr = LLGExpr({"needs-missing": Task("needs-missing", inc, TaskRef("was-never-there"))})
    future = client._graph_to_futures(expr, ["needs-missing"], span_metadata=_no_span())["needs-missing"]
    wait_until(lambda: future.status in ("cancelled", "error", "lost"), 20)
    bystander_is_served(client)


def test_dependency_on_released_future(client):
    future = client.submit(inc, 1)
    wait(future)
    value = delayed(inc)(future)
    client.cancel([future], force=True)
    with pytest.raises(Exception):
        client.compute(value).result(timeout=20)
    bystander_is_served(client)


@pytest.mark.timeout(180)
def test_huge_graph(client, client2):
    """Tens of thousands of tasks go in; another client is served meanwhile."""
    n = 20_000
    graph = {f"huge-{i}": (inc, i) for i in range(n)}
    graph["huge-end"] = (len, [f"huge-{i}" for i in range(0, n, 100)])
    future = client.get(graph, "huge-end", sync=False, optimize_graph=False)
    bystander_is_served(client2)
    assert future.result(timeout=120) == 200


@ours
@pytest.mark.cluster(workers=1)
def test_killed_helper_is_replaced(own):
    """Every helper process dies by kill -9: the next graph is served by a new one."""
    cluster, client = own
    array_sum(client)
    helpers = children(cluster.scheduler.pid)
    assert helpers
    for pid in helpers:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(running(pid) for pid in helpers), 10)
    assert array_sum(client) == 400
    assert client.run_on_scheduler(inc, 1) == 2


def array_sum(client):
    import dask.array as da

    return client.compute(da.ones(400, chunks=50).sum()).result(timeout=30)


@ours
@pytest.mark.cluster(workers=1)
def test_helpers_start_lazily_and_end_with_the_scheduler(own):
    cluster, client = own
    array_sum(client)
    helpers = children(cluster.scheduler.pid)
    client.close()
    cluster.scheduler.send(signal.SIGTERM)
    cluster.scheduler.wait(15)
    wait_until(lambda: not any(running(pid) for pid in helpers), 10)


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("count", [3])
def test_graphs_of_one_client_keep_their_order(client, count):
    """Submissions that build on each other, without waiting."""
    total = client.submit(inc, 0, pure=False)
    for _ in range(100):
        total = client.submit(inc, total, pure=False)
    values = [delayed(inc)(total) for _ in range(count)]
    assert client.gather(client.compute(values)) == [102] * count


@ours
@pytest.mark.cluster(workers=1)
def test_other_python_for_the_helper_is_named_when_missing(own):
    cluster, client = own
    broken = type(cluster)(1, env={"OXIDASK_PYTHON": "/no/such/python"})
    try:
        with broken.client() as other:
            other.wait_for_workers(1, timeout=30)
            import dask.array as da

            with pytest.raises(Exception, match="no/such/python|helper"):
                other.compute(da.ones(10, chunks=5).sum()).result(timeout=30)
    finally:
        broken.close()
    assert array_sum(client) == 400
