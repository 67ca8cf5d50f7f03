"""Graphs as a whole: compute, persist, get, annotations, delayed; random DAGs against the synchronous scheduler."""

import operator
import random

import dask
import pytest
from dask import delayed
from distributed import wait
from harness import holders, state, wait_until
from helpers import add, boom, double, inc, worker_name


def random_dag(seed, size=40):
    """A dict graph in the old tuple form: integers in, a sum at the end."""
    rng = random.Random(seed)
    graph = {}
    for i in range(size):
        names = rng.sample(sorted(graph), min(len(graph), rng.randrange(4)))
        if names and rng.random() < 0.3:
            graph[f"n{i:03}-{seed}"] = (sum, [*names, rng.randrange(100)])
        elif names:
            graph[f"n{i:03}-{seed}"] = (operator.add, names[0], (operator.mul, rng.randrange(5), names[-1]))
        else:
            graph[f"n{i:03}-{seed}"] = rng.randrange(100) if rng.random() < 0.5 else (inc, rng.randrange(100))
    graph[f"end-{seed}"] = (sum, sorted(graph))
    return graph


def test_s002_random_dags(client):
    for seed in range(40):
        graph = random_dag(seed)
        keys = [f"end-{seed}", f"n020-{seed}", [f"n003-{seed}", f"n039-{seed}"]]
        end, middle, pair = client.get(graph, keys)
        assert (end, middle, tuple(pair)) == dask.get(graph, keys), f"seed {seed}"


def test_s002_get_forms(client):
    assert client.get({"x": (inc, 1)}, "x") == 2
    assert client.get({("x", 0): 1, ("x", 1): (inc, ("x", 0))}, [("x", 1), ("x", 0)]) == [2, 1]
    assert client.get({"a": 1, "b": "a"}, "b") == 1
    future = client.get({"x": (inc, 1)}, "x", sync=False)
    assert future.result(timeout=10) == 2


def test_s002_key_types(client):
    graph = {"text": 1, 3: (inc, "text"), 2.5: (inc, 3), ("t", 1, "x"): (add, 3, 2.5), "out": (inc, ("t", 1, "x"))}
    assert client.get(graph, ["out", 3, 2.5]) == [6, 2, 3]


def test_s012_delayed_arguments(client):
    one, two = delayed(inc)(0), delayed(inc)(1)
    total = delayed(lambda items, named, pair: sum(items) + named["x"] + pair[1])([one, two], {"x": two}, (one, two))
    assert total.compute() == 7
    assert client.compute(delayed(sum)([one, [two][0]])).result() == 3


def test_s012_delayed_options(client):
    assert delayed(inc, pure=True)(5).key == delayed(inc, pure=True)(5).key
    assert delayed(inc, pure=False)(5).key != delayed(inc, pure=False)(5).key
    first, second = delayed(divmod, nout=2)(17, 5)
    assert dask.compute(first, second) == (3, 2)
    assert delayed(inc)(1, dask_key_name="my-name").key == "my-name"

    @delayed
    def decorated(x, *, times=2):
        return x * times

    assert decorated(4, times=3).compute() == 12


def test_s012_delayed_attributes_and_methods(client):
    word = delayed("hello")
    assert word.upper().compute() == "HELLO"
    assert (delayed(3) + delayed(inc)(3) * 2).compute() == 11
    assert delayed([1, 2, 3])[1].compute() == 2


def test_s013_compute_shares_parents(client, tmp_path):
    counter = tmp_path / "count"

    def shared_parent():
        with open(counter, "a") as f:
            f.write("x")
        return 10

    parent = delayed(shared_parent)()
    assert dask.compute(parent + 1, parent + 2, delayed(inc)(parent)) == (11, 12, 11)
    assert counter.read_text() == "x"


def test_compute_list_and_scalar(client):
    futures = client.compute([delayed(inc)(i) for i in range(3)])
    assert client.gather(futures) == [1, 2, 3]
    assert client.compute(delayed(inc)(1), sync=True) == 2
    assert client.compute([delayed(inc)(1), 5], sync=True) == [2, 5]


def test_s051_persist(client, tmp_path):
    counter = tmp_path / "count"

    def leaf(i):
        with open(counter, "a") as f:
            f.write("x")
        return i

    base = [delayed(leaf)(i) for i in range(5)]
    total = delayed(sum)(base)
    [kept] = client.persist([total])
    wait(kept)
    assert kept.compute() == 10 and (kept + 1).compute() == 11
    assert counter.read_text() == "x" * 5
    [again] = dask.persist(delayed(inc)(kept))
    assert again.compute() == 11 and counter.read_text() == "x" * 5


def test_s052_futures_of_release(client):
    import dask.array as da
    from distributed import futures_of

    x = da.ones(8, chunks=2).persist()
    futures = futures_of(x)
    wait(futures)
    keys = [f.key for f in futures]
    assert all(holders(client, key) for key in keys) and len(keys) == 4
    for future in futures:
        future.release()
    wait_until(lambda: not any(holders(client, key) for key in keys), 2)


def test_s141_annotate_delayed(client):
    with dask.annotate(workers="bob"):
        on_bob = [delayed(worker_name, pure=False)() for _ in range(4)]
    with dask.annotate(resources={"GPU": 1}):
        on_gpu = delayed(worker_name, pure=False)()
    assert set(client.compute(on_bob, sync=True, optimize_graph=False)) == {"bob"}
    assert client.compute(on_gpu, sync=True, optimize_graph=False) == "carol"


def test_s141_annotate_around_submit(client):
    with dask.annotate(workers=["carol"], priority=5, retries=1):
        futures = client.map(worker_name, range(4), pure=False)
        single = client.submit(worker_name, pure=False)
    assert set(client.gather(futures)) | {single.result()} == {"carol"}


def test_s141_annotate_around_compute(client):
    import dask.array as da

    x = da.ones(6, chunks=1).map_blocks(lambda b: b + (worker_name() != "alice"), dtype=float)
    with dask.annotate(workers=["alice"]):
        future = client.compute(x.sum())
    assert future.result() == 6


def test_s141_annotate_callable_and_retries(client, tmp_path):
    from helpers import fail_until

    with dask.annotate(retries=lambda key: 2):
        flaky = delayed(fail_until, pure=False)(str(tmp_path / "a"), 2)
    assert client.compute(flaky, optimize_graph=False).result(timeout=20) == 3
    with dask.annotate(priority=lambda key: 7, workers=lambda key: "bob"):
        placed = delayed(worker_name, pure=False)()
    assert client.compute(placed, optimize_graph=False).result(timeout=20) == "bob"


def test_s141_custom_annotation_is_kept(client):
    with dask.annotate(my_note={"deep": {"er": 2}}):
        future = client.submit(inc, 1, key="noted")
    future.result()

    def annotation(dask_scheduler):
        return dict(dask_scheduler.tasks["noted"].annotations)

    assert client.run_on_scheduler(annotation)["my_note"] == {"deep": {"er": 2}}


def test_s140_resources(client):
    futures = client.map(worker_name, range(6), resources={"GPU": 1}, pure=False)
    assert client.gather(futures) == ["carol"] * 6
    assert client.submit(worker_name, resources={"MEM": 60}).result(timeout=10) == "carol"
    value = delayed(worker_name, pure=False)()
    assert client.compute(value, resources={"GPU": 1}).result() == "carol"
    [kept] = client.persist([delayed(worker_name, pure=False)()], resources={"GPU": 1})
    assert kept.compute() == "carol"


def test_s140_resources_limit_concurrency(make_cluster):
    cluster = make_cluster()
    cluster.add_worker("--resources", "GPU=1", nthreads=4)

    def overlap(path):
        import os
        import time

        inside = os.path.join(path, str(os.getpid()) + str(time.time()))
        open(inside, "w").close()
        n = len(os.listdir(path))
        time.sleep(0.02)
        os.unlink(inside)
        return n

    where = cluster.dir / "inside"
    where.mkdir()
    with cluster.client() as client:
        results = client.gather(client.map(overlap, [str(where)] * 10, resources={"GPU": 1}, pure=False))
        assert set(results) == {1}
        missing = client.submit(inc, 1, resources={"GPU": 2})
        wait_until(lambda: state(client, missing.key) == "no-worker", 10)


def test_s049_chain(client):
    depth = 1000
    graph = {"c0": 0, **{f"c{i}": (inc, f"c{i - 1}") for i in range(1, depth + 1)}}
    assert client.get(graph, f"c{depth}", optimize_graph=False) == depth


def test_s049_large_graph_warning(client):
    with pytest.warns(UserWarning, match="large graph"):
        assert client.submit(len, bytes(12_000_000)).result() == 12_000_000


def test_s045_only_what_is_needed_runs(client, tmp_path):
    counter = tmp_path / "count"

    def leaf(i):
        with open(counter, "a") as f:
            f.write("x")
        return i

    leaves = {f"leaf-{i}": (leaf, i) for i in range(100)}
    assert client.get({**leaves, "two": (add, "leaf-3", "leaf-4")}, "two") == 7
    assert counter.read_text() == "xx"


def test_s047_intermediate_results_are_dropped(client):
    graph = {"b0": (bytes, 1000)}
    for i in range(1, 60):
        graph[f"b{i}"] = (bytes.__add__, f"b{i - 1}", b"x")
    future = client.get(graph, "b59", sync=False)
    assert len(future.result()) == 1059
    wait_until(lambda: sum(map(len, client.has_what().values())) == 1, 5)


def test_error_in_graph(client):
    value = delayed(inc)(delayed(boom)(5))
    with pytest.raises(ZeroDivisionError, match="boom 5"):
        value.compute()
    with pytest.raises(ZeroDivisionError):
        client.gather(client.persist(value).dask and client.compute(value))


def test_futures_inside_graphs(client):
    future = client.submit(inc, 1)
    assert delayed(add)(future, 3).compute() == 5
    assert client.compute(delayed(sum)([future, delayed(double)(future)])).result() == 6
    assert client.get({"y": (add, future, 1)}, "y") == 3


def test_same_key_submitted_again_while_in_memory(client):
    first = client.submit(inc, 1, key="again")
    assert first.result() == 2
    second = client.submit(inc, 1, key="again")
    assert second.result(timeout=10) == 2
    del first
    assert client.submit(inc, second).result(timeout=10) == 3


def test_wide_fan_in(client):
    assert delayed(sum)([delayed(inc)(i) for i in range(600)]).compute() == sum(range(1, 601))
