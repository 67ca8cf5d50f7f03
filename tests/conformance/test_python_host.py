"""What runs in Python beside the scheduler: functions, plugins, feeds, reports, shuffles."""

import os
import signal
import socket
import time

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import SchedulerPlugin, performance_report, wait
from distributed.diagnostics.progressbar import MultiProgressBar, ProgressBar, TextProgressBar
from harness import wait_until
from helpers import inc


def test_tasks_of_the_mirror(client):
    futures = client.map(inc, range(50), key="mirror-inc")
    total = client.submit(sum, futures, key="mirror-total")
    assert total.result() == sum(range(1, 51))

    def look(key, dask_scheduler=None):
        ts = dask_scheduler.tasks[key]
        assert key in dask_scheduler.tasks
        assert "no such task" not in dask_scheduler.tasks
        assert dask_scheduler.tasks.get("no such task") is None
        return {
            "state": ts.state,
            "dependencies": {d.state for d in ts.dependencies},
            "n": len(ts.dependencies),
            "dependents": {len(d.dependents) for d in ts.dependencies},
            "type": ts.type,
            "prefix": (ts.prefix.name, ts.prefix.states["memory"]),
            "group": (ts.group.name, len(ts.group), ts.group.states["memory"]),
            "wanted": [c.client_key for c in ts.who_wants],
            "there": ts.who_has <= set(dask_scheduler.workers.values()),
            "text": repr(ts),
            "run_spec": ts.run_spec.func is sum,
            "held": sum(len(ws.has_what) for ws in dask_scheduler.workers.values()),
            "all": sum(t.state == "memory" for t in dask_scheduler.tasks.values()),
            "groups": "mirror-total" in dask_scheduler.task_groups,
        }

    seen = client.run_on_scheduler(look, total.key)
    assert seen["state"] == "memory" and seen["dependencies"] == {"memory"} and seen["n"] == 50
    assert seen["dependents"] == {1} and seen["type"] == "int" and seen["there"] and seen["run_spec"]
    assert seen["prefix"] == ("mirror-total", 1) and seen["group"] == ("mirror-total", 1, 1)
    assert seen["wanted"] == [client.id] and seen["groups"]
    assert seen["text"] == f"<TaskState {total.key!r} memory>"
    assert seen["held"] >= 51 and seen["all"] == 51


def test_failed_task_of_the_mirror(client):
    future = client.submit(lambda: 1 / 0, key="mirror-fails")
    wait(future)

    def look(dask_scheduler):
        ts = dask_scheduler.tasks["mirror-fails"]
        return ts.state, ts.exception_text, ts.exception_blame is ts, ts.exception is not None, len(ts.erred_on)

    assert client.run_on_scheduler(look) == ("erred", "ZeroDivisionError('division by zero')", True, True, 1)


def test_coroutine_sees_the_state_change(client):
    async def watch(dask_scheduler):
        import asyncio

        states = []
        while "later" not in dask_scheduler.tasks:
            await asyncio.sleep(0.01)
        ts = dask_scheduler.tasks["later"]
        while ts.state != "memory":
            states.append(ts.state)
            await asyncio.sleep(0.01)
        return states

    running = client.sync(_both, client, watch)
    assert running and set(running) <= {"waiting", "processing", "released"}


async def _both(client, watch):
    import asyncio

    watching = asyncio.ensure_future(client.run_on_scheduler(watch))
    await asyncio.sleep(0.2)
    future = client.submit(time.sleep, 0.3, key="later")
    states = await watching
    await future
    return states


def test_changes_through_the_mirror(client):
    async def change(dask_scheduler):
        replies = await dask_scheduler.broadcast(msg={"op": "ncores"})
        dask_scheduler.log_event("mirror-topic", {"a": 1})
        dask_scheduler.set_metadata(["mirror", "x"], 5)
        found = dask_scheduler.get_metadata(["mirror", "x"])
        return len(replies), found, [msg for _, msg in dask_scheduler.get_events("mirror-topic")]

    assert client.run_on_scheduler(change) == (3, 5, [{"a": 1}])
    assert client.get_metadata(["mirror", "x"]) == 5
    with pytest.raises(NotImplementedError, match="transitions"):
        client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transitions({}, stimulus_id="x"))


def test_attributes_set_on_the_mirror_stay(client):
    def remember(dask_scheduler):
        dask_scheduler.remembered = 3

    client.run_on_scheduler(remember)
    assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.remembered) == 3


def test_tracker_on_the_scheduler(client):
    """What xgboost.dask does: a server in a thread of the scheduler, used later."""

    def start():
        import socket
        import threading

        server = socket.create_server(("127.0.0.1", 0))

        def serve():
            connection, _ = server.accept()
            connection.sendall(b"hello")
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    port = client.run_on_scheduler(start)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        assert connection.recv(5) == b"hello"


class Recorder(SchedulerPlugin):
    name = "recorder"

    def __init__(self):
        self.seen = []

    async def start(self, scheduler):
        self.seen.append(("start", len(scheduler.workers)))

    def transition(self, key, start, finish, *args, stimulus_id, **kwargs):
        if key == "recorded":
            self.seen.append((start, finish, "startstops" in kwargs))

    def update_graph(self, scheduler, *, client, keys, tasks, stimulus_id, **kwargs):
        self.seen.append(("graph", sorted(map(str, keys)), len(tasks)))

    def add_worker(self, scheduler, worker):
        self.seen.append(("add-worker", worker in scheduler.workers))

    def remove_worker(self, scheduler, worker, *, stimulus_id, **kwargs):
        self.seen.append(("remove-worker", worker in scheduler.workers))

    def add_client(self, scheduler, client):
        self.seen.append(("add-client", client in scheduler.clients))

    def remove_client(self, scheduler, client):
        self.seen.append(("remove-client",))

    def restart(self, scheduler):
        self.seen.append(("restart",))

    def log_event(self, topic, msg):
        if topic == "mine":
            self.seen.append(("event", msg))


@pytest.mark.cluster(workers=1)
def test_plugin_hooks_in_order(own):
    cluster, client = own
    client.register_plugin(Recorder())

    def seen():
        return client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["recorder"].seen)

    assert client.submit(inc, 1, key="recorded").result() == 2
    client.log_event("mine", "hello")
    cluster.add_worker(name="second")
    client.wait_for_workers(2)
    with cluster.client():
        pass
    client.retire_workers(["second"])
    client.restart()
    wait_until(lambda: ("restart",) in seen(), 10)
    events = seen()
    wanted = [
        ("start", 1),
        ("graph", ["recorded"], 1),
        ("released", "waiting", False),
        ("waiting", "processing", False),
        ("processing", "memory", True),
        ("event", "hello"),
        ("add-worker", True),
        ("add-client", True),
        ("remove-client",),
        ("remove-worker", False),
        ("restart",),
    ]
    positions = [events.index(event) for event in wanted]
    assert positions == sorted(positions), events
    client.unregister_scheduler_plugin("recorder")
    with pytest.raises(ValueError, match="recorder"):
        client.unregister_scheduler_plugin("recorder")


@pytest.mark.cluster(workers=1)
def test_a_crash_in_python_is_that_callers_error(own):
    cluster, client = own
    client.register_plugin(Recorder())
    with pytest.raises(Exception, match="exited with code 7"):
        client.run_on_scheduler(lambda: os._exit(7))
    names = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.plugins))
    assert "recorder" in names
    assert client.submit(inc, 1).result() == 2
    assert "recorder" in cluster.scheduler.text()


def test_progress_bars(client, capsys):
    futures = client.map(lambda x: (time.sleep(0.02), x)[1], range(30))
    TextProgressBar(futures, interval="20ms")
    assert all(f.done() for f in futures)
    assert "100% Completed" in capsys.readouterr().out


def test_progress_bars_by_group_and_of_failures(client):
    drawn = []

    class Groups(MultiProgressBar):
        def _draw_bar(self, **kwargs):
            drawn.append(kwargs)

    class Single(ProgressBar):
        def _draw_bar(self, **kwargs):
            drawn.append(kwargs)

    for turn in range(5):
        total = client.submit(sum, client.map(inc, range(turn * 100, turn * 100 + 40), key="bars"), key=f"sum-{turn}")
        bar = Groups([total], interval="20ms")
        client.sync(bar.listen, callback_timeout=20)
        assert drawn[-1]["status"] == "finished"
    failing = client.submit(lambda: 1 / 0)
    wait(failing)
    client.sync(Single([failing]).listen, callback_timeout=20)
    assert drawn[-1]["status"] == "error"


def test_performance_report(client, tmp_path):
    path = tmp_path / "report.html"
    with performance_report(filename=str(path)):
        client.gather(client.map(lambda x: (time.sleep(0.01), x)[1], range(30)))
    html = path.read_text()
    assert "Dask Performance Report" in html
    assert "number of tasks: 30" in html
    assert "Task Stream" in html and "Scheduler Logs" in html


def test_workers_to_close_with_a_key(client):
    by_name = cloudpickle.dumps(lambda ws: ws.name)
    chosen = client.sync(client.scheduler.workers_to_close, n=1, key=by_name, attribute="name")
    assert len(chosen) == 1 and chosen[0] in ("alice", "bob", "carol")


def test_state_dump_by_the_scheduler(client, tmp_path):
    client.dump_cluster_state(f"file://{tmp_path}/dump", write_from_scheduler=True)
    assert (tmp_path / "dump.msgpack.gz").stat().st_size > 0


# ---- peer-to-peer shuffles


@pytest.fixture
def p2p():
    with dask.config.set({"dataframe.shuffle.method": "p2p", "array.rechunk.method": "p2p"}):
        yield


def frame(n=2000, partitions=8):
    pdf = pd.DataFrame({"a": np.arange(n), "b": np.arange(n) % 37})
    return pdf, dd.from_pandas(pdf, npartitions=partitions)


def test_p2p_dataframe(client, p2p):
    pdf, ddf = frame()
    out = ddf.shuffle("b").compute()
    assert sorted(out.a) == list(pdf.a)
    parts = client.gather(client.compute(list(ddf.shuffle("b").to_delayed())))
    where = [set(p.b) for p in parts]
    assert sum(map(len, where)) == 37
    left, right = dd.from_pandas(pdf, npartitions=5), dd.from_pandas(pdf[::3].rename(columns={"b": "c"}), npartitions=4)
    joined = left.merge(right, on="a", shuffle_method="p2p").compute()
    pd.testing.assert_frame_equal(
        joined.sort_values("a", ignore_index=True), pdf.merge(pdf[::3].rename(columns={"b": "c"}), on="a")
    )


def test_p2p_rechunk(client, p2p):
    x = np.random.default_rng(0).random((200, 200))
    y = da.from_array(x, chunks=(200, 20)).rechunk((20, 200))
    np.testing.assert_array_equal(y.compute(), x)


@pytest.mark.cluster(workers=3)
def test_p2p_goes_on_when_a_worker_dies(own, p2p):
    cluster, client = own
    pdf, ddf = frame(20_000, 60)

    def slow(part):
        time.sleep(0.02)
        return part

    future = client.compute(ddf.map_partitions(slow, meta=ddf._meta).shuffle("b").map_partitions(slow, meta=ddf._meta))
    wait_until(lambda: "initialized" in cluster.scheduler.text(), 30)
    time.sleep(0.2)
    cluster.workers[0].send(signal.SIGKILL)
    out = future.result(timeout=60)
    assert sorted(out.a) == list(pdf.a)


def test_event_stream_of_failures_too(client):
    """Plugins are given the worker's times, of failed tasks as well; graphs come with annotations and priorities."""

    class Times(SchedulerPlugin):
        name = "times"

        def __init__(self):
            self.seen = {}
            self.graphs = []

        def transition(self, key, start, finish, *args, **kwargs):
            if start == "processing":
                self.seen[key] = (finish, [s["action"] for s in kwargs["startstops"]], kwargs["worker"])

        def update_graph(self, scheduler, *, client, keys, tasks, annotations, priority, stimulus_id, **kwargs):
            self.graphs.append((annotations, {k: len(p) for k, p in priority.items()}))

    client.register_plugin(Times())
    try:
        with dask.annotate(retries=0, foo="bar"):
            fails = client.submit(lambda: 1 / 0, key="times-fails", pure=False)
        good = client.submit(inc, 1, key="times-good")
        wait([fails, good])

        def look(dask_scheduler):
            return dask_scheduler.plugins["times"].seen, dask_scheduler.plugins["times"].graphs

        wait_until(lambda: len(client.run_on_scheduler(look)[0]) >= 2, 5)
        seen, graphs = client.run_on_scheduler(look)
        assert seen["times-fails"][0] == "erred" and seen["times-good"][0] == "memory"
        assert all("compute" in actions and worker in client.ncores() for _, actions, worker in seen.values())
        assert graphs[0][0]["foo"] == {"times-fails": "bar"} and graphs[0][1] == {"times-fails": 3}
    finally:
        client.unregister_scheduler_plugin("times")


def test_plugins_have_a_say_in_which_workers_close(client):
    class Keep(SchedulerPlugin):
        name = "keep-alice"

        def valid_workers_downscaling(self, scheduler, workers):
            return [ws for ws in workers if ws.name != "alice"]

    client.register_plugin(Keep())
    try:
        names = client.sync(client.scheduler.workers_to_close, n=2, attribute="name")
        assert set(names) == {"bob", "carol"}
    finally:
        client.unregister_scheduler_plugin("keep-alice")


@pytest.mark.cluster(workers=0)
def test_plugins_close_with_the_scheduler(own, tmp_path):
    cluster, client = own

    class Last(SchedulerPlugin):
        def __init__(self, path):
            self.path = path

        async def start(self, scheduler):
            self.scheduler = scheduler

        async def before_close(self):
            self.text = f"clients {len(self.scheduler.clients) > 0}"

        async def close(self):
            with open(self.path, "w") as f:
                f.write(self.text + ", closed")

    path = tmp_path / "closed"
    client.register_plugin(Last(str(path)), name="last")
    client.shutdown()
    wait_until(path.exists, 10)
    wait_until(lambda: path.read_text() == "clients True, closed", 5)


def test_preload(make_cluster, tmp_path):
    module = tmp_path / "preloaded_module.py"
    module.write_text(
        "import click\n"
        "@click.command()\n"
        "@click.option('--word')\n"
        "def dask_setup(scheduler, word):\n"
        "    scheduler.preloaded = word, scheduler.address\n"
        "def dask_teardown(scheduler):\n"
        f"    open({str(tmp_path / 'torn-down')!r}, 'w').close()\n"
    )
    cluster = make_cluster(0, scheduler_args=("--preload", str(module), "--word", "hello"))
    with cluster.client() as client:
        word, address = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.preloaded)
        assert (word, address) == ("hello", cluster.address)
    cluster.scheduler.stop()
    assert (tmp_path / "torn-down").exists()
