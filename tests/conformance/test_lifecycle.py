"""Workers that join, leave, are killed, retire and restart; clients and schedulers that go away."""

import os
import signal
import socket
import threading

import dask
import pytest
from dask import delayed
from distributed import KilledWorker, wait
from distributed.core import rpc
from distributed.scheduler import NoValidWorkerError
from harness import STOCK, holders, rss, state, wait_until
from helpers import exit_process, inc, slow_inc, wait_for_file, worker_name


def n_workers(client):
    return len(client.ncores())


@pytest.mark.cluster(workers=1)
def test_worker_joins_and_leaves(own):
    cluster, client = own
    futures = client.map(slow_inc, range(30), delay=0.02)
    late = cluster.add_worker()
    client.wait_for_workers(2, timeout=30)
    assert client.gather(futures) == list(range(1, 31))
    assert set(client.gather(client.map(worker_name, range(20), pure=False))) == {"w1", "w2"}
    late.send(signal.SIGTERM)
    late.wait()
    wait_until(lambda: n_workers(client) == 1, 10)
    assert client.gather(client.map(inc, range(10), pure=False)) == list(range(1, 11))


@pytest.mark.cluster(workers=3)
def test_s054_killed_worker_is_recomputed(own):
    cluster, client = own
    layers = [[delayed(slow_inc)(i, delay=0.002) for i in range(100)]]
    for _ in range(3):
        layers.append([delayed(sum)([a, b]) for a, b in zip(layers[-1], layers[-1][1:])])
    total = client.compute(delayed(sum)(layers[-1]))
    wait_until(lambda: sum(map(len, client.has_what().values())) > 60, 20)
    cluster.workers[1].kill()
    expected = dask.compute(delayed(sum)(layers[-1]), scheduler="sync")[0]
    assert total.result(timeout=60) == expected
    wait_until(lambda: n_workers(client) == 2, 10)


@pytest.mark.cluster(workers=2)
def test_s054_results_of_killed_worker_come_back(own):
    cluster, client = own
    futures = client.map(inc, range(40), workers=["w1"], allow_other_workers=True)
    wait(futures)
    cluster.workers[0].kill()
    assert client.gather(futures) == list(range(1, 41))
    assert all(len(holders(client, f.key)) == 1 for f in futures)


@pytest.mark.cluster(workers=2)
def test_scattered_data_lost_with_its_worker(own):
    cluster, client = own
    [data] = client.scatter([5], workers=["w1"])
    later = client.submit(wait_for_file, str(cluster.dir / "never"), result=data, workers="w2")
    cluster.workers[0].kill()
    wait_until(lambda: data.status in ("lost", "cancelled"), 10)
    later.cancel()
    assert client.submit(inc, 1).result(timeout=10) == 2


@pytest.mark.cluster(workers=2, config={"distributed.scheduler.worker-ttl": "2s"})
def test_s054_worker_ttl(own):
    """A worker that stops answering but keeps its sockets open is removed after worker-ttl."""
    cluster, client = own
    futures = client.map(inc, range(20))
    wait(futures)
    cluster.workers[0].send(signal.SIGSTOP)
    try:
        wait_until(lambda: n_workers(client) == 1, 40)
        assert client.gather(futures) == list(range(1, 21))
    finally:
        cluster.workers[0].send(signal.SIGKILL)


def test_s055_killed_worker_error(make_cluster):
    cluster = make_cluster(2, nanny=True, config={"distributed.scheduler.allowed-failures": 1})
    with cluster.client() as client:
        client.wait_for_workers(2, timeout=60)
        future = client.submit(exit_process, key="deadly")
        with pytest.raises(KilledWorker, match="deadly") as info:
            future.result(timeout=60)
        assert info.value.task == "deadly" and "tcp://" in info.value.last_worker.address
        assert info.value.allowed_failures == 1
        client.wait_for_workers(2, timeout=60)
        assert client.submit(inc, 1).result(timeout=20) == 2


def test_s055_innocent_tasks_survive(make_cluster):
    cluster = make_cluster(2, nanny=True, config={"distributed.scheduler.allowed-failures": 0})
    with cluster.client() as client:
        client.wait_for_workers(2, timeout=60)
        first = client.map(inc, range(20))
        client.gather(first)
        with pytest.raises(KilledWorker):
            client.submit(exit_process).result(timeout=60)
        client.wait_for_workers(2, timeout=60)
        assert client.gather(first) == list(range(1, 21))


def test_nanny_restarts_its_worker(make_cluster):
    cluster = make_cluster(1, nanny=True)
    with cluster.client() as client:
        client.wait_for_workers(1, timeout=60)
        [(addr, pid)] = client.run(os.getpid).items()
        # A nanny whose worker dies before it has seen it start gives up.
        nannies = lambda: set(client.run(lambda dask_worker: dask_worker.status.name, nanny=True).values())
        wait_until(lambda: nannies() == {"running"}, 30)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: set(client.ncores()) - {addr}, 60)
        assert pid not in client.run(os.getpid).values()
        assert client.scheduler_info()["workers"].popitem()[1]["nanny"].startswith("tcp://")
        assert client.submit(inc, 1).result(timeout=20) == 2


@pytest.mark.cluster(workers=3)
def test_retire_workers_moves_data(own):
    cluster, client = own
    futures = client.map(inc, range(30))
    wait(futures)
    victim = next(a for a, keys in client.has_what().items() if keys)
    retired = client.retire_workers([victim])
    assert list(retired) == [victim] and retired[victim]["name"] in ("w1", "w2", "w3")
    wait_until(lambda: victim not in client.ncores(), 20)
    before = client.get_events("all")
    assert client.gather(futures) == list(range(1, 31))
    assert all(holders(client, f.key) for f in futures) and before is not None
    story = client.story(futures[0].key)
    assert sum(1 for line in story if line[2:4] == ("processing", "memory")) == 1, "recomputed, not moved"


@pytest.mark.cluster(workers=3)
def test_s176_retire_by_name_as_the_operator_does(own):
    """What dask-kubernetes sends: workers_to_close(n=, attribute="name"), then retire_workers(names=)."""
    cluster, client = own
    futures = client.map(inc, range(12))
    wait(futures)
    names = client.sync(client.scheduler.workers_to_close, n=1, attribute="name")
    assert len(names) == 1 and names[0] in ("w1", "w2", "w3")
    client.sync(client.scheduler.retire_workers, names=list(names), close_workers=True, remove=True)
    wait_until(lambda: n_workers(client) == 2, 20)
    assert client.gather(futures) == list(range(1, 13))


@pytest.mark.cluster(workers=0)
def test_s025_adaptive_target(own):
    cluster, client = own
    target = lambda: client.sync(client.scheduler.adaptive_target)
    assert target() == 0
    future = client.submit(inc, 1)
    wait_until(lambda: target() >= 1, 5)
    cluster.add_worker()
    assert future.result(timeout=30) == 2
    many = client.map(wait_for_file, [str(cluster.dir / "go")] * 30, pure=False)
    wait_until(lambda: target() > 1, 10)
    (cluster.dir / "go").touch()
    wait(many)
    del many, future
    wait_until(lambda: client.sync(client.scheduler.workers_to_close), 10)


def test_s025_adaptive_cluster(make_cluster):
    """distributed's Adaptive drives a cluster object whose workers are commands, up and down again."""
    from distributed import SpecCluster
    from distributed.deploy.spec import ProcessInterface

    cluster = make_cluster()

    class Remote(ProcessInterface):
        def __init__(self, scheduler=None, name=None, **kwargs):
            super().__init__(scheduler=scheduler, name=name, **kwargs)
            self.name = name

        async def start(self):
            self.process = cluster.add_worker(name=str(self.name))
            await super().start()

        async def close(self):
            self.process.send(signal.SIGTERM)
            await super().close()

    class Ours(ProcessInterface):
        def __init__(self):
            super().__init__()
            self.address = self.external_address = cluster.address

        async def close(self):
            await super().close()

    async def run():
        spec = SpecCluster(
            workers={},
            worker={"cls": Remote, "options": {}},
            scheduler={"cls": Ours, "options": {}},
            asynchronous=True,
            shutdown_scheduler=False,
        )
        async with spec:
            from distributed import Client

            spec.adapt(minimum=0, maximum=2, interval="100ms", wait_count=2, target_duration="1s")
            async with Client(spec, asynchronous=True, set_as_default=False) as client:
                futures = client.map(slow_inc, range(60), delay=0.05, pure=False)
                assert sum(await client.gather(futures)) == sum(range(1, 61))
                seen = len(spec.worker_spec)
                del futures
                for _ in range(300):
                    if not spec.scheduler_info["workers"]:
                        break
                    await asyncio.sleep(0.05)
                assert seen >= 1 and not spec.scheduler_info["workers"]

    import asyncio

    asyncio.run(asyncio.wait_for(run(), 60))


def test_s148_restart(make_cluster):
    cluster = make_cluster(2, nanny=True)
    with cluster.client() as client:
        client.wait_for_workers(2, timeout=60)
        futures = client.map(inc, range(10))
        client.gather(futures)
        before = set(client.run(os.getpid).values())
        client.restart(timeout=60)
        assert all(f.status == "cancelled" for f in futures)
        after = set(client.run(os.getpid).values())
        assert len(after) == 2 and not after & before
        assert client.submit(inc, 1).result(timeout=20) == 2
        assert not any(holders(client, f.key) for f in futures)


def test_s148_restart_workers(make_cluster):
    cluster = make_cluster(2, nanny=True)
    with cluster.client() as client:
        client.wait_for_workers(2, timeout=60)
        pids = client.run(os.getpid)
        [first, _] = pids
        assert client.restart_workers([first], timeout=60) == {first: "OK"}
        client.wait_for_workers(2, timeout=60)
        after = set(client.run(os.getpid).values())
        assert len(after & set(pids.values())) == 1 and len(after) == 2


@pytest.mark.cluster(workers=1)
def test_name_taken(own):
    cluster, client = own
    twin = cluster.add_worker(name="w1")
    assert twin.wait(30) != 0 or "name taken" in twin.text()
    assert "name taken" in twin.text()
    assert n_workers(client) == 1


@pytest.mark.cluster(workers=1, config={"distributed.scheduler.no-workers-timeout": "500ms"})
def test_s142_no_workers_timeout(own):
    cluster, client = own
    future = client.submit(inc, 1, resources={"GPU": 1})
    with pytest.raises(NoValidWorkerError, match="GPU"):
        future.result(timeout=20)
    assert client.submit(inc, 2).result(timeout=10) == 3


@pytest.mark.cluster(workers=1)
def test_s142_no_worker_state_and_late_resource(own):
    cluster, client = own
    future = client.submit(worker_name, resources={"GPU": 1})
    wait_until(lambda: state(client, future.key) == "no-worker", 10)
    cluster.add_worker("--resources", "GPU=1", name="gpu")
    assert future.result(timeout=30) == "gpu"


@pytest.mark.cluster(workers=1)
def test_s139_set_resources_at_run_time(own):
    _, client = own

    async def grow(dask_worker):
        await dask_worker.set_resources(DISK=2)

    client.run(grow)
    assert client.submit(worker_name, resources={"DISK": 1}).result(timeout=10) == "w1"
    [worker] = client.scheduler_info()["workers"].values()
    assert worker["resources"] == {"DISK": 2}


@pytest.mark.cluster(workers=1, env={"DASK_DISTRIBUTED__WORKER__RESOURCES__GPU": "2"})
def test_s139_resources_from_environment(own):
    _, client = own
    [worker] = client.scheduler_info()["workers"].values()
    assert {name.upper(): n for name, n in worker["resources"].items()} == {"GPU": 2}


def test_idle_timeout(make_cluster):
    cluster = make_cluster(1, scheduler_args=("--idle-timeout", "3s"))
    with cluster.client() as client:
        client.wait_for_workers(1)
        assert client.submit(inc, 1).result(timeout=10) == 2
    assert cluster.scheduler.wait(30) == 0
    cluster.workers[0].wait(30)
    assert not cluster.file.exists()


def test_scheduler_ends_on_signal(make_cluster):
    cluster = make_cluster(1)
    with cluster.client() as client:
        client.wait_for_workers(1)
        client.submit(inc, 1).result(timeout=10)
        cluster.scheduler.send(signal.SIGTERM)
        assert cluster.scheduler.wait(15) == 0
    cluster.workers[0].wait(60)
    assert not cluster.file.exists()


def test_client_shutdown_ends_everything(make_cluster):
    cluster = make_cluster(1, nanny=True)
    client = cluster.client()
    client.wait_for_workers(1, timeout=60)
    client.shutdown()
    cluster.scheduler.wait(30)
    cluster.workers[0].wait(30)


@pytest.mark.cluster(workers=1)
def test_s060_client_lost_releases_its_tasks(own):
    cluster, client = own
    import subprocess
    import sys

    from harness import environment

    code = (
        "import sys, time\nfrom distributed import Client\n"
        f"c = Client({cluster.address!r})\nf = c.submit(pow, 2, 5, key='of-the-lost')\nf.result()\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    lost = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment(), text=True)
    assert lost.stdout.readline().strip() == "ready"
    assert state(client, "of-the-lost") == "memory"
    lost.kill()
    lost.wait()
    wait_until(lambda: state(client, "of-the-lost") is None, 20)


def test_s060_scheduler_lost(make_cluster):
    """kill -9 of the scheduler: the client's futures are cancelled; a new scheduler at the port serves it again."""
    cluster = make_cluster(0, scheduler_args=())
    port = cluster.port
    with cluster.client(timeout=30) as client:
        cluster.add_worker()
        client.wait_for_workers(1)
        future = client.submit(inc, 1)
        assert future.result(timeout=10) == 2
        cluster.scheduler.kill()
        wait_until(lambda: future.status == "cancelled", 20)
        cluster.file.unlink(missing_ok=True)
        cluster.scheduler = cluster.start_scheduler(("--port", str(port)))
        cluster.wait_ready()
        cluster.add_worker(name="again")
        client.wait_for_workers(1, timeout=60)
        assert client.submit(inc, 5).result(timeout=30) == 6


class Relay(threading.Thread):
    """A TCP relay whose links can be cut."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.pairs = []
        self.refuse = False
        self.start()

    def run(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.refuse:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self.pairs += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        self.refuse = True
        for s in self.pairs:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.pairs.clear()

    def mend(self):
        self.refuse = False


@pytest.mark.cluster(workers=1)
def test_s026_client_link_cut(own):
    """The client reconnects; what it held is cancelled (as stock); it works again."""
    cluster, _ = own
    relay = Relay(cluster.port)
    with cluster.client(address=f"tcp://127.0.0.1:{relay.port}", timeout=20) as client:
        future = client.submit(inc, 1)
        assert future.result(timeout=10) == 2
        relay.cut()
        wait_until(lambda: future.status == "cancelled", 20)
        relay.mend()
        wait_until(lambda: client.status == "running", 20)
        assert client.submit(inc, 2).result(timeout=20) == 3


@pytest.mark.cluster(workers=1)
def test_many_clients_come_and_go(own):
    cluster, client = own
    before = rss(cluster.scheduler.pid)
    for i in range(25):
        with cluster.client() as other:
            assert other.submit(inc, i).result(timeout=10) == i + 1
    assert client.submit(inc, 1).result(timeout=10) == 2
    assert rss(cluster.scheduler.pid) - before < 30_000_000 or STOCK


@pytest.mark.cluster(workers=1)
def test_s174_unregister_and_health_of_operator(own):
    """A pod that ends cleanly tells `unregister`; an unknown address is "already-removed"."""
    cluster, client = own

    async def unregister(addr):
        async with rpc(cluster.address) as scheduler:
            return await scheduler.unregister(address=addr, stimulus_id="test")

    assert client.sync(unregister, "tcp://127.0.0.1:9") == "already-removed"
