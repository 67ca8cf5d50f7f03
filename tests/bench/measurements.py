"""What each row measures: a function of (side, scale) that gives the numbers of one run."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time

import graphs
from processes import Cluster, Fakes, Side, costs, rss


def noop(x):
    return x


def inc(x):
    return x + 1


def settle(seconds: float) -> None:
    """Lets queued releases and flushes pass: they have no event to wait for."""
    time.sleep(seconds)


# ------------------------------------------------------------------ zero workers
def graph_of(kind: str, n: int):
    """(tasks, function that submits them and returns what to wait for), built before the clock starts."""
    from dask._task_spec import Task, TaskRef
    from distributed import default_client

    client = default_client()
    tag = os.urandom(4).hex()
    if kind == "map":
        return n, lambda: client.map(noop, range(n), pure=False)
    if kind == "merge":  # one key wanted: no message per task to the client
        dsk = {f"do-{tag}-{i}": Task(f"do-{tag}-{i}", noop, i) for i in range(n)}
        dsk[f"merge-{tag}"] = Task(f"merge-{tag}", lambda *a: 0, *map(TaskRef, dsk))
        return n + 1, lambda: [client.get(dsk, f"merge-{tag}", sync=False)]
    if kind == "tree":  # a binary tree of n levels as one plain dict
        dsk = {}
        for level in range(n):
            for i in range(2 ** (n - 1 - level)):
                below = [TaskRef(f"add{level - 1}-{tag}-{j}") for j in (2 * i, 2 * i + 1)] if level else [i]
                dsk[f"add{level}-{tag}-{i}"] = Task(f"add{level}-{tag}-{i}", noop, *below)
        return len(dsk), lambda: [client.get(dsk, f"add{n - 1}-{tag}-0", sync=False)]
    collection = graphs.array100k(n) if kind == "array" else graphs.merge(n)
    return None, lambda: [client.compute(collection)]


def zero(side: Side, kind: str, n: int, fakes: int, saturation: str = "1.1") -> dict[str, float]:
    """Fake workers answer at once, so that the scheduler alone is the bottleneck. The client submits and waits."""
    from distributed import wait

    with Cluster(side, saturation=saturation) as cluster, cluster.client() as client:
        zeros = Fakes(cluster, fakes)
        wait(client.map(noop, range(500), pure=False))
        if kind == "array":
            wait(client.compute(graphs.array100k(3)))
        settle(0.5)
        tasks, submit = graph_of(kind, n)
        gc.collect()
        before = rss(cluster.pid)
        zeros.ask("reset")
        started, a = time.time(), cluster.usage()
        held = submit()
        wait(held)
        b, seen = cluster.usage(), zeros.ask("")
        tasks = tasks or int(seen["tasks"])
        row = costs(a, b, tasks)
        row["tasks"] = tasks
        row["ingest_s"] = seen["first"] - started
        row["run_tasks_per_s"] = seen["tasks"] / max(seen["last"] - seen["first"], 1e-6)
        row["tasks_per_message"] = seen["tasks"] / max(seen["messages_in"], 1)
        row["held_bytes"] = (rss(cluster.pid) - before) / tasks
        row["rss_mb"] = rss(cluster.pid) / 1e6
        row["helper_mb"] = cluster.helper_rss() / 1e6
        del held, submit
        gc.collect()
        c = cluster.usage()
        settle(1.5 if tasks < 60_000 else 4)
        d = cluster.usage()
        row["release_us"] = (d.scheduler - c.scheduler) / tasks * 1e6
        row["rest_mb"] = cluster.rest / 1e6
        row["released_mb"] = rss(cluster.pid) / 1e6
    return row


# ------------------------------------------------------------------ latency
def raw_latency(side: Side, n: int) -> dict[str, float]:
    """update-graph to key-in-memory, without the stock client's batching and threads."""
    from rawclient import latencies

    row = {}
    with Cluster(side) as cluster:
        Fakes(cluster, 1)
        with latencies(cluster.address) as measure:
            measure(100, 0)
            a = cluster.usage()
            paced = measure(n // 2, 0.012)
            row["paced_p50_ms"] = statistics.median(paced) * 1e3
            row["paced_p99_ms"] = sorted(paced)[int(len(paced) * 0.99)] * 1e3
            row["direct_p50_ms"] = statistics.median(measure(n, 0)) * 1e3
            row |= {k: v for k, v in costs(a, cluster.usage(), n + n // 2).items() if k in ("both_us", "other_load")}
    return row


def rpc_latency(side: Side, n: int) -> dict[str, float]:
    """One identity request of the stock client at a time."""
    with Cluster(side) as cluster, cluster.client() as client:
        times = []
        a = cluster.usage()
        for _ in range(n):
            start = time.perf_counter()
            client.sync(client.scheduler.identity, n_workers=0)
            times.append(time.perf_counter() - start)
        row = costs(a, cluster.usage(), n)
    return {"p50_ms": statistics.median(times) * 1e3, "other_load": row["other_load"], "both_us": row["both_us"]}


# ------------------------------------------------------------------ real workers
def map_gather(side: Side, n: int, saturation: str = "1.1") -> dict[str, float]:
    """client.map of trivial tasks and gather, two stock workers."""
    with Cluster(side, workers=2, saturation=saturation) as cluster, cluster.client() as client:
        client.gather(client.map(inc, range(200), pure=False))
        settle(0.5)
        gc.collect()
        a = cluster.usage()
        futures = client.map(inc, range(n), pure=False)
        results = client.gather(futures)
        row = costs(a, cluster.usage(), n)
        assert results[-1] == n and len(results) == n
    return row


def paper_graphs(side: Side, names: list[str]) -> dict[str, float]:
    """The graphs of the rsds paper; the geometric mean of their walls, and each wall."""
    row = {"other_load": 0.0}
    with Cluster(side, workers=2) as cluster, cluster.client() as client:
        client.gather(client.map(inc, range(200), pure=False))
        client.upload_file(graphs.__file__)
        for name in names:
            collection = graphs.CASES[name]()
            gc.collect()
            a = cluster.usage()
            future = client.compute(collection)
            future.result()
            one = costs(a, cluster.usage(), 1)
            row[name] = one["wall_s"]
            row["other_load"] = max(row["other_load"], one["other_load"])
            del collection, future
            settle(0.5)
    walls = [row[name] for name in names]
    row["geomean_s"] = math.exp(statistics.fmean(map(math.log, walls)))
    return row


def merge_slow(side: Side, n: int, delay: float) -> dict[str, float]:
    """n sleeping tasks on two threads: the overhead over the ideal."""
    with Cluster(side, workers=2) as cluster, cluster.client() as client:
        client.gather(client.map(inc, range(200), pure=False))
        client.upload_file(graphs.__file__)
        collection = graphs.merge_slow(n, delay)
        a = cluster.usage()
        client.compute(collection).result()
        row = costs(a, cluster.usage(), n)
    row["overhead_percent"] = (row["wall_s"] / (n * delay / 2) - 1) * 100
    return row
