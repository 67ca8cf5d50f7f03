"""What the scheduler tells about itself and its workers; run, logs, events, plugins, reports."""

import logging

import pytest
from distributed import Nanny, NannyPlugin, SchedulerPlugin, WorkerPlugin, get_worker, performance_report
from distributed.diagnostics import MemorySampler
from distributed.diagnostics.plugin import UploadDirectory, UploadFile
from harness import wait_until
from helpers import inc, slow_inc


def test_s011_connects_unchanged(shared):
    with shared.client(set_as_default=False) as client:
        assert client.submit(inc, 1).result(timeout=10) == 2
        client.wait_for_workers(3, timeout=20)
        wait_until(lambda: "processes=3" in repr(client), 10)
        assert "tcp://" in repr(client)


def test_scheduler_info(client, shared):
    info = client.scheduler_info(n_workers=-1)
    assert info["type"] == "Scheduler" and info["address"] == shared.address
    assert {"id", "address", "services", "started", "n_workers", "total_threads", "total_memory", "workers"} <= set(
        info
    )
    assert info["n_workers"] == 3 and info["total_threads"] == 4
    worker = next(w for w in info["workers"].values() if w["name"] == "carol")
    fields = "type id host resources local_directory name nthreads memory_limit last_seen services metrics status nanny"
    assert set(fields.split()) <= set(worker)
    assert worker["resources"] == {"GPU": 1, "MEM": 100} and worker["status"] == "running"
    assert worker["metrics"]["memory"] > 0


def test_s008_get_versions(client, recwarn):
    versions = client.get_versions(check=True)
    assert set(versions) == {"scheduler", "workers", "client"}
    assert set(versions["workers"]) == set(client.ncores())
    for side in (versions["scheduler"], versions["client"], *versions["workers"].values()):
        assert set(side) == {"host", "packages"}
        assert side["packages"]["distributed"] == versions["client"]["packages"]["distributed"]
    assert "python" in versions["scheduler"]["packages"]
    assert not [w for w in recwarn if "Mismatch" in str(w.message)]
    assert "pandas" in client.get_versions(packages=["pandas"])["scheduler"]["packages"]


def test_s008_mismatch_is_reported(make_cluster, tmp_path):
    """A worker that reports another version of a package: `get_versions(check=True)` warns."""
    cluster = make_cluster(1)
    preload = tmp_path / "other_versions.py"
    preload.write_text(
        "import distributed.versions as v\n"
        "v._version_cached = lambda name, right=v.version: '0.0.1' if name == 'toolz' else right(name)\n"
    )
    cluster.add_worker("--preload", str(preload), name="odd")
    with cluster.client() as client:
        client.wait_for_workers(2, timeout=30)
        with pytest.warns(UserWarning, match="toolz"):
            client.get_versions(check=True)


def test_run(client):
    results = client.run(lambda dask_worker: dask_worker.name)
    assert sorted(results.values()) == ["alice", "bob", "carol"]
    [addr] = [a for a, name in results.items() if name == "bob"]
    assert client.run(inc, 1, workers=[addr]) == {addr: 2}

    def takes_worker(dask_worker):
        return dask_worker.state.nthreads

    assert sorted(client.run(takes_worker).values()) == [1, 1, 2]

    def fails():
        raise ValueError("on the worker")

    with pytest.raises(ValueError, match="on the worker"):
        client.run(fails)
    assert all(isinstance(v, ValueError) for v in client.run(fails, on_error="return").values())

    async def coroutine():
        return 5

    assert set(client.run(coroutine).values()) == {5}


def test_run_on_scheduler(client, shared):
    assert client.run_on_scheduler(inc, 1) == 2

    def look(dask_scheduler):
        return dask_scheduler.address, sorted(ws.name for ws in dask_scheduler.workers.values())

    assert client.run_on_scheduler(look) == (shared.address, ["alice", "bob", "carol"])

    def fails():
        raise ValueError("on the scheduler")

    with pytest.raises(ValueError, match="on the scheduler"):
        client.run_on_scheduler(fails)


def test_s135_logs(client):
    client.run(lambda: logging.getLogger("distributed.worker").warning("a line for the test"))
    logs = client.get_worker_logs()
    assert set(logs) == set(client.ncores())
    assert all(
        any(level == "WARNING" and "a line for the test" in text for level, text in log) for log in logs.values()
    )
    scheduler = client.get_scheduler_logs()
    assert scheduler and all(len(entry) == 2 for entry in scheduler)
    assert all(isinstance(level, str) and isinstance(text, str) for level, text in scheduler)
    assert len(client.get_scheduler_logs(n=2)) == 2


def test_s136_events(client, client2):
    client.log_event("topic-a", {"x": 1})
    client.log_event(["topic-a", "topic-b"], "text")
    events = client2.get_events("topic-a")
    assert [msg for _, msg in events] == [{"x": 1}, "text"]
    assert all(isinstance(when, float) for when, _ in events)
    assert [msg for _, msg in client.get_events()["topic-b"]] == ["text"]
    assert client.get_events("never-used") == ()


def test_s136_subscribe_topic(client, client2):
    seen = []
    client.subscribe_topic("news", seen.append)
    wait_until(lambda: client2.log_event("news", "first") or seen, 10)
    assert seen[0][1] == "first"
    client.unsubscribe_topic("news")
    with pytest.raises(ValueError):
        client.unsubscribe_topic("never subscribed to")


def test_s137_worker_log_event(client):
    def measured(i):
        get_worker().log_event("softmax", {"i": i, "runtime": 0.5})

    client.gather(client.map(measured, range(3)))
    wait_until(lambda: len(client.get_events("softmax")) == 3, 5)
    assert sorted(msg["i"] for _, msg in client.get_events("softmax")) == [0, 1, 2]
    assert all(msg["worker"] in client.ncores() for _, msg in client.get_events("softmax"))


def test_print_and_warn_reach_the_client(client, capsys):
    from distributed import print as remote_print

    client.submit(lambda: remote_print("hello from a task")).result()
    found = []
    wait_until(lambda: found.append(capsys.readouterr().out) or "hello from a task" in "".join(found), 5)


def test_s028_worker_plugin(client, shared):
    class Plugin(WorkerPlugin):
        name = "test-plugin"

        def setup(self, worker):
            worker.my_plugin_value = 7
            worker.my_transitions = 0

        def transition(self, key, start, finish, **kwargs):

            self.seen = getattr(self, "seen", 0) + 1

        def teardown(self, worker):
            worker.my_plugin_value = None

    client.register_plugin(Plugin())
    assert set(client.run(lambda dask_worker: dask_worker.my_plugin_value).values()) == {7}
    client.gather(client.map(inc, range(5)))
    seen = client.run(lambda dask_worker: getattr(dask_worker.plugins["test-plugin"], "seen", 0))
    assert sum(seen.values()) >= 5
    late = shared.add_worker(name="late", wait=True)
    value = client.run(lambda dask_worker: (dask_worker.name, dask_worker.my_plugin_value))
    assert ("late", 7) in value.values()
    client.unregister_worker_plugin("test-plugin")
    assert set(client.run(lambda dask_worker: dask_worker.my_plugin_value).values()) == {None}
    with pytest.raises(ValueError):
        client.unregister_worker_plugin("test-plugin")
    late.stop()
    wait_until(lambda: len(client.ncores()) == 3, 20)


def test_s028_worker_plugin_error(client):
    class Bad(WorkerPlugin):
        name = "bad-plugin"

        def setup(self, worker):
            raise RuntimeError("setup fails")

    with pytest.raises(RuntimeError, match="setup fails"):
        client.register_plugin(Bad())
    client.unregister_worker_plugin("bad-plugin")


def test_s028_nanny_plugin(make_cluster):
    class Plugin(NannyPlugin):
        name = "nanny-plugin"

        def setup(self, nanny: Nanny):
            nanny.plugin_was_here = 3

    cluster = make_cluster(1, nanny=True)
    with cluster.client() as client:
        client.wait_for_workers(1, timeout=60)
        client.register_plugin(Plugin())
        assert set(client.run(lambda dask_worker: dask_worker.plugin_was_here, nanny=True).values()) == {3}
        client.unregister_worker_plugin("nanny-plugin", nanny=True)


def test_s028_scheduler_plugin(client):
    class Plugin(SchedulerPlugin):
        name = "counter"

        def start(self, scheduler):
            self.transitions = []
            self.added = list(scheduler.workers)

        def transition(self, key, start, finish, *args, **kwargs):
            self.transitions.append((key, start, finish))

    client.register_plugin(Plugin())
    assert client.submit(inc, 1, key="watched").result(timeout=10) == 2

    def seen(dask_scheduler):
        plugin = dask_scheduler.plugins["counter"]
        return plugin.added, [(s, f) for key, s, f in plugin.transitions if key == "watched"]

    wait_until(lambda: ("processing", "memory") in client.run_on_scheduler(seen)[1], 5)
    added, moves = client.run_on_scheduler(seen)
    assert len(added) == 3 and moves[0][0] == "released"
    client.unregister_scheduler_plugin("counter")


def test_upload_file(client, tmp_path):
    module = tmp_path / "uploaded_module.py"
    module.write_text("def value():\n    return 123\n")
    client.upload_file(str(module))

    def use():
        import uploaded_module

        return uploaded_module.value()

    assert set(client.run(use).values()) == {123}
    assert client.submit(use).result(timeout=10) == 123
    assert client.run_on_scheduler(use) == 123
    module.write_text("def value():\n    return 456\n")
    client.upload_file(str(module))
    assert client.submit(use, pure=False).result(timeout=10) == 456


def test_upload_file_and_directory_plugins(client, tmp_path):
    package = tmp_path / "uploaded_package"
    package.mkdir()
    (package / "__init__.py").write_text("value = 77\n")
    single = tmp_path / "uploaded_single.py"
    single.write_text("value = 88\n")
    client.register_plugin(UploadFile(str(single)))

    def use_single():
        import uploaded_single

        return uploaded_single.value

    assert set(client.run(use_single).values()) == {88}
    client.register_plugin(UploadDirectory(str(package), update_path=True, mode="scheduler"))

    def use_package():
        import uploaded_package

        return uploaded_package.value

    assert client.run_on_scheduler(use_package) == 77


def test_s027_pip_install(make_cluster, tmp_path):
    """A wheel made here, installed into a folder that is on the workers' path; late workers have it too."""
    import subprocess
    import sys

    from distributed.diagnostics.plugin import PipInstall

    source = tmp_path / "pkg"
    source.mkdir()
    (source / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='oxitestpkg', version='1', py_modules=['oxitestpkg'])\n"
    )
    (source / "oxitestpkg.py").write_text("value = 5\n")
    quiet = ["--quiet", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    wheel = [sys.executable, "-m", "pip", "wheel", *quiet, "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(wheel, check=True, timeout=60)
    [built] = tmp_path.glob("oxitestpkg-*.whl")
    target = tmp_path / "site"
    target.mkdir()
    import harness

    cluster = make_cluster(1, env={"PYTHONPATH": f"{harness.HERE}:{target}"}, execute=True)
    with cluster.client() as client:
        client.wait_for_workers(1, timeout=60)
        options = ["--no-index", "--no-deps", "--target", str(target), "--upgrade"]
        client.register_plugin(PipInstall(packages=[str(built)], pip_options=options))

        def use():
            import oxitestpkg

            return oxitestpkg.value

        wait_until(lambda: list(target.glob("oxitestpkg*")), 30)
        assert set(client.run(use).values()) == {5}
        cluster.add_worker(name="late", execute=True)
        client.wait_for_workers(2, timeout=60)
        assert list(client.run(use).values()) == [5, 5]


def test_s192_progress(client, capsys):
    from distributed.diagnostics.progressbar import TextProgressBar

    futures = client.map(slow_inc, range(10), delay=0.02)
    bar = TextProgressBar(futures, interval="20ms", complete=True)
    client.gather(futures)
    output = []
    wait_until(lambda: output.append(capsys.readouterr().out) or "100%" in "".join(output), 10)
    assert bar is not None


def test_s192_multi_progress(client):
    from distributed.diagnostics.progressbar import MultiProgressBar

    futures = client.map(inc, range(10), pure=False)
    client.gather(futures)
    bar = MultiProgressBar(futures, interval="20ms", scheduler=client.scheduler.address)
    drawn = []
    bar._draw_bar = lambda **kw: drawn.append(kw)
    bar._draw_stop = lambda **kw: drawn.append(kw)
    client.sync(bar.listen)
    assert drawn[-1]["status"] == "finished"


def test_s203_performance_report(client, tmp_path):
    path = tmp_path / "report.html"
    with performance_report(filename=str(path)):
        client.gather(client.map(slow_inc, range(20), delay=0.01))
    text = path.read_text()
    assert len(text) > 10_000 and "Dask Performance Report" in text


def test_memory_sampler(client):
    sampler = MemorySampler()
    with sampler.sample("run", client=client, interval=0.02):
        futures = client.map(slow_inc, range(20), delay=0.02)
        client.gather(futures)
    frame = sampler.to_pandas()
    assert len(frame) >= 2 and (frame["run"] > 0).all()


@pytest.mark.parametrize("format", ["msgpack", "yaml"])
def test_dump_cluster_state(client, tmp_path, format):
    from distributed.cluster_dump import DumpArtefact

    client.submit(inc, 1, key="dumped").result()
    kept = client.submit(inc, 5, key="kept-in-dump")
    kept.result()
    client.dump_cluster_state(str(tmp_path / "dump"), format=format)
    [file] = tmp_path.glob("dump*")
    dump = DumpArtefact.from_url(str(file))
    assert set(dump.dump) >= {"scheduler", "workers", "versions"}
    assert len(dump.dump["workers"]) == 3
    assert "kept-in-dump" in [task["key"] for task in dump.scheduler_tasks_in_state("memory")]


def test_dump_cluster_state_through_url(client, tmp_path):
    client.dump_cluster_state(f"file://{tmp_path}/dump", write_from_scheduler=True)
    assert list(tmp_path.glob("dump*"))


def test_s208_wait_for_workers(make_cluster):
    cluster = make_cluster()
    with cluster.client() as client:
        with pytest.raises(TimeoutError):
            client.wait_for_workers(1, timeout=0.3)
        for _ in range(2):
            cluster.add_worker()
        client.wait_for_workers(2, timeout=30)
        assert len(client.ncores()) == 2


def test_s031_dashboard_link(client, shared):
    assert client.dashboard_link == f"{shared.http}/status"


def test_unknown_operation_is_answered(client):
    assert client.sync(client.scheduler.no_such_operation) is None
    assert client.submit(inc, 1).result(timeout=10) == 2


def test_amm_methods(client):
    client.amm.stop()
    assert client.amm.running() is False
    client.amm.start()
    assert client.amm.running() is True
    client.amm.run_once()


def test_s024_cluster_object(client, shared):
    """The base class of every cluster manager: identity, subscribe_worker_status, get_logs."""
    from distributed.core import rpc
    from distributed.deploy import Cluster

    async def connect():
        cluster = Cluster(asynchronous=True, name="test")
        cluster.scheduler_comm = rpc(shared.address)
        await cluster._start()
        seen = (len(cluster.scheduler_info["workers"]), cluster.scheduler_address)
        logs = await cluster.get_logs(cluster=False)
        await cluster._close()
        return seen, logs

    (workers, address), logs = client.sync(connect)
    assert address == shared.address and "Scheduler" in logs and len(logs) >= 2
    assert workers in (3, 5)
