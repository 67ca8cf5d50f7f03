"""Where tasks run and what stays in memory: stealing, queuing, the active memory manager, paused workers."""

import numpy as np
import pytest
from distributed import wait
from harness import holders, state, wait_until
from helpers import inc, slow_inc, wait_for_file, worker_name


@pytest.mark.cluster(workers=1)
def test_stealing(own):
    """Work piled on one worker moves to one that joins."""
    cluster, client = own
    blockers = client.map(slow_inc, range(60), delay=0.1, pure=False)
    seed = client.submit(inc, 1)
    wait(seed)
    chained = [client.submit(lambda x, _, i=i: (x, worker_name()), f, seed, pure=False) for i, f in enumerate(blockers)]
    cluster.add_worker()
    client.wait_for_workers(2, timeout=30)
    ran_on = {name for _, name in client.gather(chained)}
    assert ran_on == {"w1", "w2"}


@pytest.mark.cluster(workers=1, config={"distributed.scheduler.worker-saturation": "inf"})
def test_stealing_without_queuing(own):
    """With saturation inf every task is sent at once; a new worker can only get some by stealing."""
    cluster, client = own
    futures = client.map(lambda i: (slow_inc(i, 0.05), worker_name())[1], range(120), pure=False)
    wait_until(lambda: sum(map(len, client.processing().values())) > 50, 10)
    cluster.add_worker()
    client.wait_for_workers(2, timeout=30)
    assert set(client.gather(futures)) == {"w1", "w2"}
    actions = [msg for _, msg in client.get_events("stealing")]
    assert actions


@pytest.mark.cluster(workers=2, config={"distributed.scheduler.work-stealing": "False"})
def test_stealing_can_be_switched_off(own):
    cluster, client = own
    futures = client.map(slow_inc, range(20), delay=0.01)
    assert client.gather(futures) == list(range(1, 21))
    assert not client.get_events("stealing")


@pytest.mark.cluster(workers=2)
def test_queuing(own):
    """Root tasks stay on the scheduler until a worker has room."""
    cluster, client = own
    flag = cluster.dir / "go"
    futures = client.map(wait_for_file, [str(flag)] * 100, pure=False)
    wait_until(lambda: sum(map(len, client.processing().values())) >= 2, 10)
    states = [state(client, f.key) for f in futures]
    assert states.count("queued") + states.count("processing") == 100
    assert states.count("processing") <= 8
    assert len(client.processing()) == 2
    flag.touch()
    wait(futures)


@pytest.mark.cluster(workers=2, config={"distributed.scheduler.worker-saturation": "inf"})
def test_saturation_inf_sends_everything(own):
    cluster, client = own
    flag = cluster.dir / "go"
    futures = client.map(wait_for_file, [str(flag)] * 100, pure=False)
    wait_until(lambda: sum(map(len, client.processing().values())) == 100, 10)
    flag.touch()
    wait(futures)


def test_queued_tasks_are_cancelled(own):
    cluster, client = own
    flag, mark = cluster.dir / "go", cluster.dir / "ran"

    def task(i):
        wait_for_file(str(flag))
        (mark.parent / f"ran-{i}").touch()

    futures = client.map(task, range(50))
    wait_until(lambda: state(client, futures[-1].key) == "queued", 10)
    client.cancel(futures[10:])
    flag.touch()
    wait(futures[:10])
    wait_until(lambda: not any(client.processing().values()), 10)
    assert len(list(cluster.dir.glob("ran-*"))) < 30


@pytest.mark.cluster(workers=2, config={"distributed.scheduler.active-memory-manager.interval": "50ms"})
def test_amm_drops_replicas(own):
    _, client = own
    x = client.submit(bytes, 10_000, workers="w1")
    y = client.submit(len, x, workers="w2", pure=False)
    z = client.submit(len, x, workers="w1", pure=False)
    assert client.gather([y, z]) == [10_000, 10_000]
    wait_until(lambda: len(holders(client, x.key)) == 1, 10)
    assert client.submit(len, x, pure=False).result(timeout=10) == 10_000


@pytest.mark.cluster(workers=2, config={"distributed.scheduler.active-memory-manager.start": "False"})
def test_amm_off_keeps_replicas_until_asked(own):
    _, client = own
    x = client.submit(bytes, 10_000, workers="w1")
    client.submit(len, x, workers="w2", pure=False).result(timeout=10)
    assert len(holders(client, x.key)) == 2
    client.amm.run_once()
    wait_until(lambda: len(holders(client, x.key)) == 1, 10)


def test_locality(client):
    """A task goes where its big input is."""
    big = client.submit(np.ones, 2_000_000, workers="carol")
    wait(big)
    futures = [client.submit(lambda x, i: worker_name(), big, i, pure=False) for i in range(3)]
    assert client.gather(futures).count("carol") >= 2


def test_all_workers_are_used(client):
    futures = client.map(lambda i: (slow_inc(i, 0.02), worker_name())[1], range(40), pure=False)
    assert set(client.gather(futures)) == {"alice", "bob", "carol"}


@pytest.mark.cluster(
    workers=1,
    worker_args=("--memory-limit", "400MiB"),
    config={
        "distributed.worker.memory.pause": "0.6",
        "distributed.worker.memory.target": "False",
        "distributed.worker.memory.spill": "False",
        "distributed.worker.memory.terminate": "False",
        "distributed.worker.memory.monitor-interval": "20ms",
    },
)
def test_paused_worker_gets_no_tasks(own):
    cluster, client = own
    full = client.submit(np.ones, 25_000_000)
    wait(full)
    status = lambda: {w["name"]: w["status"] for w in client.scheduler_info()["workers"].values()}
    wait_until(lambda: status()["w1"] == "paused", 20)
    cluster.add_worker("--memory-limit", "4GiB", name="free")
    wait_until(lambda: status().get("free") == "running", 30)
    assert client.submit(worker_name, pure=False).result(timeout=20) == "free"
    del full
    wait_until(lambda: status()["w1"] == "running", 20)


@pytest.mark.cluster(
    workers=1,
    worker_args=("--memory-limit", "300MiB"),
    config={"distributed.worker.memory.target": "0.3", "distributed.worker.memory.monitor-interval": "20ms"},
)
def test_s194_memory_and_spill_are_reported(own):
    _, client = own
    futures = [client.submit(np.full, 3_000_000, i, dtype=float) for i in range(8)]
    wait(futures)

    def spilled():
        [worker] = client.scheduler_info()["workers"].values()
        return worker["metrics"]["spilled_bytes"]["disk"] > 0 and worker["metrics"]["managed_bytes"] > 0

    wait_until(spilled, 20)
    assert [f.result()[0] for f in futures] == list(range(8))
